//! The command line: one command a file. Results go to stdout, everything else to stderr. Exit codes: 0 good, 1 failed,
//! 2 refused input or usage.

mod backup;
mod completions;
mod component;
mod config;
mod dead;
mod demo;
mod doctor;
mod init;
mod lines;
mod out;
mod pause;
mod plugin;
mod publish;
mod reload;
mod run;
mod shadow;
mod stack;
mod state;
mod status;
mod table;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use tidemill_config::Config;
use tidemill_config::check::describe;
use tidemill_config::read::read;
use tidemill_core::model::backend_url::BackendUrl;
use tidemill_process::tasks;
use tidemill_runtime::observe::log_text;
use tidemill_runtime::observe::log_writer;
use tidemill_runtime::observe::log_writer::LogLine;
use tidemill_runtime::reload::settings;
use tidemill_runtime::{build, loading};

/// Validates and routes stream events to sandboxed WebAssembly handlers, and settles what they do exactly once.
#[derive(Parser)]
#[command(name = "tidemill", version, arg_required_else_help = true)]
struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "TIDEMILL_CONFIG", default_value = "tidemill.toml")]
    config: PathBuf,

    /// Another backend than the configured one: sqlite:FILE or redis://HOST:PORT/DB.
    #[arg(long, global = true, value_name = "URL")]
    backend: Option<BackendUrl>,

    /// One JSON document (or JSON Lines) on stdout.
    #[arg(long, global = true)]
    json: bool,

    /// Log lines as JSON.
    #[arg(long, global = true)]
    log_json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a ready project: configuration, schemas, one Rust plugin.
    Init(init::Args),
    /// Run the whole main job on generated events and check that every one is accounted for.
    Demo(demo::Args),
    /// Run the host.
    Run(run::Args),
    /// Reload configuration, schemas and plugins of the running host.
    Reload,
    /// Publish events from JSON Lines: enriched, validated, put on their streams.
    Publish(publish::Args),
    /// Show what became of the events, for each handler.
    Status,
    /// Inspect and replay dead letters.
    #[command(subcommand)]
    Dead(dead::Command),
    /// Show the state that a handler keeps, key by key.
    State(state::Args),
    /// Build plugins, compare, pause and resume them.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// Diagnose the backend: settings, ACLs, durability, leaks.
    Doctor(doctor::Args),
    /// Copy the SQLite database to a new file while hosts work on it.
    Backup(backup::Args),
    /// Print completions for a shell.
    Completions(completions::Args),
}

/// What every command gets.
pub(crate) struct Globals {
    config: PathBuf,
    backend: Option<BackendUrl>,
    json: bool,
    log_json: bool,
}

/// Input that was refused, or wrong usage: exit code 2, where other errors give 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub String);

pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let globals = Globals { config: cli.config, backend: cli.backend, json: cli.json, log_json: cli.log_json };
    let ended = dispatch(cli.command, &globals);
    log_writer::flush();
    match ended {
        Ok(code) => code,
        Err(error) => {
            out::notes(&message(&error));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// Help goes to stdout as it is. What is wrong goes to stderr, without a password that was typed in the wrong place.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let args = std::env::args_os().skip(1).filter_map(|arg| arg.into_string().ok());
        out::notes(&without_passwords(error.render().to_string(), args));
    } else {
        out::ended(error.print());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Usage errors quote the arguments: those that look like a URL are shown as one.
fn without_passwords(mut text: String, args: impl Iterator<Item = String>) -> String {
    for arg in args.filter(|arg| arg.contains("://") || arg.contains('@')) {
        let url = if arg.starts_with('-') { arg.split_once('=').map_or(&*arg, |(_, url)| url) } else { &arg };
        text = text.replace(url, &BackendUrl::from(url).to_string());
    }
    text
}

fn dispatch(command: Command, globals: &Globals) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(args) => init::init(&args),
        Command::Demo(args) => demo::demo(&args, globals),
        Command::Run(args) => run::run(&args, globals),
        Command::Reload => reload::settings(globals),
        Command::Publish(args) => publish::publish(&args, globals),
        Command::Status => status::status(globals),
        Command::Dead(command) => dead::dead(command, globals),
        Command::State(args) => state::state(&args, globals),
        Command::Plugin(command) => plugin::plugin(command, globals),
        Command::Config(command) => config::config(command, globals),
        Command::Doctor(args) => doctor::doctor(&args, globals),
        Command::Backup(args) => backup::backup(&args, globals),
        Command::Completions(args) => completions::completions(&args),
    }
}

/// Findings bring their own level and place; everything else is an error in so many words.
fn message(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    if text.starts_with("error: ") || text.starts_with("warning: ") { text } else { format!("error: {text}") }
}

impl Globals {
    /// The configuration with `--backend` over it.
    fn load(&self) -> anyhow::Result<Config> {
        load(&self.config, self.backend.as_ref())
    }

    /// The same for a host, which reads it again when it changes.
    fn reader(&self) -> settings::ConfigReader {
        let (file, backend) = (self.config.clone(), self.backend.clone());
        Box::new(move || load(&file, backend.as_ref()).map_err(|error| format!("{error:#}")))
    }

    /// The configuration, checked.
    fn load_checked(&self) -> anyhow::Result<(Config, loading::Checked)> {
        let config = self.load()?;
        let checked = build::check(&config).map_err(|error| self.refused(error))?;
        Ok((config, checked))
    }

    /// Says what is odd about the configuration; for the commands that are about it, not for each one.
    fn warn(&self, checked: &loading::Checked) {
        let text = std::fs::read_to_string(&self.config).unwrap_or_default();
        for warning in &checked.warnings {
            out::notes(&describe(warning, &self.config, &text));
        }
    }

    /// An error of building the host, in the words for a person; what the person wrote wrong gives exit code 2.
    fn refused(&self, error: build::Error) -> anyhow::Error {
        match error {
            build::Error::Config(findings) => {
                let text = std::fs::read_to_string(&self.config).unwrap_or_default();
                let lines: Vec<String> =
                    findings.iter().map(|finding| describe(finding, &self.config, &text)).collect();
                UsageError(lines.join("\n")).into()
            }
            build::Error::Schemas(_) | build::Error::Plugins(_) => UsageError(error.to_string()).into(),
            other => other.into(),
        }
    }

    /// Logs to stderr. `RUST_LOG` overrides the level.
    fn log(&self, level: &str) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stderr().is_terminal();
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LogLine).with_ansi(!plain);
        // It would say on stderr that it cannot write to stderr, and panic when it cannot do that.
        let builder = builder.log_internal_errors(false);
        if self.log_json {
            builder.json().map_event_format(log_text::JsonLines).init();
        } else {
            builder.fmt_fields(log_text::fields()).init();
        }
        tasks::report_panics();
    }
}

fn load(file: &Path, backend: Option<&BackendUrl>) -> anyhow::Result<Config> {
    let mut config = read(file).map_err(|error| UsageError(error.to_string()))?;
    if let Some(url) = backend {
        // Given on the command line, a relative file starts where the command was typed.
        let here = std::env::current_dir()?;
        config.backend.url = match url.sqlite_file() {
            Some(":memory:") | None => url.clone(),
            Some(file) => {
                sqlite_path(file)?;
                format!("sqlite:{}", here.join(file).display()).into()
            }
        };
    } else if let Some(file) = config.backend.url.sqlite_file() {
        sqlite_path(file)?;
    }
    Ok(config)
}

/// Refuses what other programs take for a URL of a SQLite file, and is a path here that is not meant.
fn sqlite_path(file: &str) -> Result<(), UsageError> {
    let parameters = file.rsplit_once('?').is_some_and(|(_, parameters)| parameters.contains('='));
    let host = file.starts_with("//") && !file.starts_with("///");
    if file.is_empty()
        || (file != ":memory:" && (file.starts_with([':', '?']) || file.starts_with("file:")))
        || parameters
        || host
    {
        return Err(UsageError(format!(
            "backend url \"sqlite:{file}\" names no file: what follows `sqlite:` is a path, and not a URI with parameters\n  hint: \
             sqlite:tidemill.db, sqlite:/var/lib/tidemill/tidemill.db, or sqlite::memory: for tests"
        )));
    }
    Ok(())
}

/// How long a command that has ended waits for what it began on other threads.
const SHUTDOWN_MAX: Duration = Duration::from_millis(200);
/// And for a database to be closed: its log goes into the file then.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Runs a command's async part.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A plugin that is still being loaded, say, is not waited for.
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    // A copy of the file after a clean end is then complete.
    if !tidemill_storage_sqlite::wait_until_closed(CLOSE_MAX) {
        tracing::warn!(
            "the database was not closed in time: what is in its WAL stays there for the next process that opens it"
        );
    }
    done
}
