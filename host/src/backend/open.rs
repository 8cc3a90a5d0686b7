//! From a URL to the backend that it names.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Backend, Error, Finding, Options, Result, findings, redis, sqlite};
use crate::model::backend_url::BackendUrl;

/// Opens the backend that the URL names: `sqlite:FILE`, `sqlite::memory:`, or `redis://HOST:PORT/DB`.
pub async fn open(url: impl Into<BackendUrl>, options: Options) -> Result<Arc<dyn Backend>> {
    let url = url.into();
    if let Some(file) = url.sqlite_file() {
        return Ok(Arc::new(sqlite::Sqlite::open(file, options).await?));
    }
    match url.scheme().as_deref() {
        Some("redis" | "rediss") => Ok(Arc::new(redis::Redis::open(&url, options).await?)),
        _ => Err(Error::Permanent(format!(
            "backend url \"{url}\" names no backend\n  \
             hint: sqlite:tidemill.db, sqlite::memory: or redis://127.0.0.1:6379, which is how a Valkey is named, too"
        ))),
    }
}

/// Opens the backend for whoever only reads: in a SQLite file of this version nothing is written, also not by opening it,
/// so that it may lie on a full disk or be held by another program. What writes is refused then.
pub async fn open_to_read(url: impl Into<BackendUrl>, options: Options) -> Result<Arc<dyn Backend>> {
    let url = url.into();
    match url.sqlite_file() {
        Some(file) => Ok(Arc::new(sqlite::Sqlite::open_to_read(file, options).await?)),
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
pub async fn diagnose_deeply(url: &BackendUrl) -> Result<Vec<Finding>> {
    match url.sqlite_file() {
        Some(":memory:") | None => Ok(vec![findings::good("integrity", "there is no file to read")]),
        Some(file) => sqlite::check_file(file.to_owned()).await,
    }
}
