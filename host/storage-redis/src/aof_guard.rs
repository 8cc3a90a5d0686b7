//! The check that a new connection passes before anything is written through it: a server that was restarted may have
//! loaded a torn append-only file.
//!
//! A script's writes go into the file as one MULTI .. EXEC block. If the power is cut while it is being written, the
//! server's next start truncates the torn command, and leaves the MULTI without its EXEC. All that is written after it
//! looks well, and is gone at the start after that; or a later EXEC applies half of the torn block. (Redis at least up
//! to 8.10, Valkey before 8.0.11, 8.1.10, 9.0.6 and 9.1.2; tried on Redis 7.0.15.) A rewritten file has no such block:
//! so the file is rewritten once after each start of a server, before any host goes on, and a key records for which
//! start that was done.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, RedisResult};

use super::keys;

/// If a rewrite takes longer, the caller gets an error that reports it, and asks again.
const WAIT_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until the server's file is known to be whole. Errors are such as pass.
pub(super) async fn pass(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let info = info(connection).await?;
    let fact = |name| info.get(name).map(String::as_str).unwrap_or_default();
    // A replica takes no writes; and without a file there is nothing to tear.
    if fact("aof_enabled") != "1" || fact("role") != "master" || is_cured(fact("valkey_version")) {
        return Ok(());
    }
    let run = fact("run_id");
    match redis::cmd("GET").arg(keys::REWRITTEN).query_async::<Option<String>>(connection).await {
        Ok(done) if done.as_deref() == Some(run) => return Ok(()),
        Ok(_) => {}
        Err(error) if is_forbidden(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    match redis::cmd("BGREWRITEAOF").query_async::<()>(connection).await {
        Ok(()) => {}
        // Any rewrite that was begun since the start does as well.
        Err(error) if error.detail().is_some_and(|text| text.contains("in progress")) => {}
        // Where it is forbidden, as on most managed servers, nothing can be done here; `doctor` reports it.
        Err(error) if is_forbidden(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    wait(connection).await?;
    let mark: RedisResult<()> = redis::cmd("SET").arg(keys::REWRITTEN).arg(run).query_async(connection).await;
    match mark {
        // Without the key it is only done once more.
        Err(error) if error.code().is_none() => Err(error),
        _ => Ok(()),
    }
}

async fn wait(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let busy = |text: &'static str| Err(RedisError::from((ErrorKind::Client, text)));
    let until = tokio::time::Instant::now() + WAIT_MAX;
    loop {
        let info = info(connection).await?;
        let is = |name, value| info.get(name).is_some_and(|found| found == value);
        if is("aof_rewrite_in_progress", "0") && is("aof_rewrite_scheduled", "0") {
            return match is("aof_last_bgrewrite_status", "ok") {
                true => Ok(()),
                false => busy("the server could not rewrite its append-only file after its start; see its log"),
            };
        }
        if tokio::time::Instant::now() > until {
            return busy("the server is rewriting its append-only file after its start");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn info(connection: &mut MultiplexedConnection) -> RedisResult<HashMap<String, String>> {
    let text: String = Cmd::new().arg("INFO").query_async(connection).await?;
    Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

fn is_forbidden(error: &RedisError) -> bool {
    let passing = error.detail().is_some_and(|text| text.contains("fork") || text.contains("in progress"));
    // Each managed service has other words for it.
    error.code() == Some("NOPERM") || (error.code() == Some("ERR") && !passing)
}

/// Valkeys that truncate the whole block; of Redis none is known.
fn is_cured(valkey_version: &str) -> bool {
    let mut numbers = valkey_version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match (next(), next(), next()) {
        (8, 0, patch) => patch >= 11,
        (8, 1, patch) => patch >= 10,
        (9, 0, patch) => patch >= 6,
        (9, 1, patch) => patch >= 2,
        version => version > (9, 1, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::is_cured;

    #[test]
    fn which_servers_need_no_rewrite() {
        for (version, cured) in [
            ("", false),
            ("7.2.5", false),
            ("8.0.1", false),
            ("8.0.11", true),
            ("9.1.1", false),
            ("9.1.2", true),
            ("10.0.0", true),
        ] {
            assert_eq!(is_cured(version), cured, "{version}");
        }
    }
}
