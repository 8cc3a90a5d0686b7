//! From a URL to the backend that it names: the one place that knows every backend.

use std::path::PathBuf;
use std::sync::Arc;

use tidemill_config::Config;
use tidemill_core::model::backend_url::BackendUrl;
use tidemill_runtime::options::backend_options;
use tidemill_runtime::patience::{COMMAND_WAIT_MAX, Patience, START_WAIT_MAX};
use tidemill_runtime::shutdown::{Shutdown, ShutdownTrigger};
use tidemill_storage::{Backend, Error, Finding, Options, Result, finding};
use tidemill_storage_redis::Redis;
use tidemill_storage_sqlite::{self as sqlite, Sqlite};

/// Opens the backend that the URL names: `sqlite:FILE`, `sqlite::memory:`, or `redis://HOST:PORT/DB`.
pub async fn open(url: impl Into<BackendUrl>, options: Options) -> Result<Arc<dyn Backend>> {
    let url = url.into();
    if let Some(file) = url.sqlite_file() {
        return Ok(Arc::new(Sqlite::open(file, options).await?));
    }
    match url.scheme().as_deref() {
        Some("redis" | "rediss") => Ok(Arc::new(Redis::open(&url, options).await?)),
        _ => Err(Error::Permanent(format!(
            "backend url \"{url}\" names no backend\n  \
             hint: sqlite:tidemill.db, sqlite::memory: or redis://127.0.0.1:6379, which is how a Valkey is named, too"
        ))),
    }
}

/// Opens the backend to read only: in a SQLite file of this version nothing is written, also not by opening it,
/// so that it may lie on a full disk or be held by another program. What writes is refused then.
pub(crate) async fn open_to_read(url: impl Into<BackendUrl>, options: Options) -> Result<Arc<dyn Backend>> {
    let url = url.into();
    match url.sqlite_file() {
        Some(file) => Ok(Arc::new(Sqlite::open_to_read(file, options).await?)),
        None => open(url, options).await,
    }
}

/// Copies a database that is a file to a new file, while hosts work, and answers its bytes.
pub async fn backup(url: &BackendUrl, to: PathBuf) -> Result<u64> {
    match url.sqlite_file() {
        Some(file) => sqlite::backup(file, to).await,
        None => Err(Error::Permanent(
            "only a SQLite file is copied by Tidemill\n  hint: Redis saves itself: copy its append-only file or its snapshot, \
             as docs/guides/backup.md says"
                .to_owned(),
        )),
    }
}

/// What takes long: reads all that the backend has written, where it lies in a file that can be read.
pub(crate) async fn diagnose_deeply(url: &BackendUrl) -> Result<Vec<Finding>> {
    match url.sqlite_file() {
        Some(":memory:") | None => Ok(vec![finding::good("integrity", "there is no file to read")]),
        Some(file) => sqlite::check_file(file.to_owned()).await,
    }
}

/// Opens the backend for a command; one that is away for a moment (starting, loading, busy) is waited for.
pub async fn open_backend(config: &Config) -> Result<Arc<dyn Backend>> {
    let url = config.backend_url();
    for_a_command(|| open(url.clone(), backend_options(config))).await
}

/// The same for a command that only reads: nothing is written to a SQLite file, so that it may be full or busy.
pub(crate) async fn open_backend_to_read(config: &Config) -> Result<Arc<dyn Backend>> {
    let url = config.backend_url();
    for_a_command(|| open_to_read(url.clone(), backend_options(config))).await
}

/// Opens the backend for a host, which has more patience; none if it is time to stop.
pub(crate) async fn open_backend_for_host(config: &Config, shutdown: Shutdown) -> Result<Option<Arc<dyn Backend>>> {
    let (url, mut patience) = (config.backend_url(), Patience::new(Some(START_WAIT_MAX), shutdown));
    patience.out("opening", || open(url.clone(), backend_options(config))).await
}

async fn for_a_command<F: Future<Output = Result<Arc<dyn Backend>>>>(
    open: impl FnMut() -> F,
) -> Result<Arc<dyn Backend>> {
    let (_trigger, shutdown) = ShutdownTrigger::new();
    let opened = Patience::new(Some(COMMAND_WAIT_MAX), shutdown).out("opening", open).await?;
    opened.ok_or_else(|| Error::Permanent("stopped before the backend was there".to_owned()))
}
