//! `tidemill backup FILE`: a copy of the SQLite database while hosts work on it.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::out;
use super::out::outln;
use super::{Globals, UsageError};
use tidemill_storage as storage;

#[derive(clap::Args)]
pub(super) struct Args {
    /// A new file, for this user alone; none is replaced.
    file: PathBuf,
}

pub(super) fn backup(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("error");
    let config = globals.load()?;
    let copied =
        super::block_on(async { Ok(crate::backends::backup(&config.backend_url(), args.file.clone()).await) })?;
    let bytes = match copied {
        Err(storage::Error::Permanent(text)) => return Err(UsageError(text).into()),
        copied => copied?,
    };
    let file = args.file.display().to_string();
    if globals.json {
        out::json(&json!({ "file": file, "bytes": bytes }));
    } else {
        outln!("{file}: {} KiB, read through and on the disk", bytes.div_ceil(1024));
    }
    Ok(ExitCode::SUCCESS)
}
