//! `tidemill config check`: everything that would stop the host from starting, found without touching the backend.

use std::process::ExitCode;

use serde_json::json;

use super::Globals;
use super::out;
use super::out::outln;
use tidemill_runtime::build;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Check the file, the schemas, the routes and the plugins.
    Check,
}

pub(super) fn config(command: Command, globals: &Globals) -> anyhow::Result<ExitCode> {
    let Command::Check = command;
    globals.log("error");
    let (config, checked) = globals.load_checked()?;
    globals.warn(&checked);
    let plugins = build::plugins(&config, &checked).map_err(|error| globals.refused(error))?.all;
    if globals.json {
        let handlers: Vec<_> = plugins
            .iter()
            .map(|plugin| json!({ "handler": &*plugin.handler, "plugin": &*plugin.digest, "imports": plugin.imports }))
            .collect();
        out::json(&json!({ "ok": true, "schemas": checked.schemas.names().count(), "handlers": handlers }));
    } else {
        let (schemas, streams) = (checked.schemas.names().count(), checked.streams.rows.len());
        outln!("good: {} handlers, {streams} streams, {schemas} schemas", plugins.len());
    }
    Ok(ExitCode::SUCCESS)
}
