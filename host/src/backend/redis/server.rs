//! What a server must be before work is given to it: new enough, a single primary, and one that forgets nothing.

use std::collections::HashMap;

use redis::RedisError;

use super::error::{meaning, plain};
use super::link::Link;
use super::value;
use crate::backend::{Error, Result};

/// Scripts with flags and the lag of groups came with 7.0.
const OLDEST: (u32, u32) = (7, 0);

pub(super) fn bad_url(error: &RedisError) -> Error {
    Error::Refused(format!(
        "broker url cannot be used: {}\n  hint: write redis://HOST:PORT/DB; TLS (rediss://) is not built in, put a proxy in between",
        plain(error)
    ))
}

/// Refuses a server that would lose data or does not know the commands.
pub(super) async fn check(link: &Link, at: &str) -> Result<()> {
    let info = info(link, at).await.map_err(|error| match error {
        Error::Unavailable { cause, .. } => Error::Unavailable { what: format!("cannot reach redis at {at}"), cause },
        other => other,
    })?;
    let refuse = |what: String, hint: &str| Err(Error::Refused(format!("redis at {at} {what}\n  hint: {hint}")));
    if info.version < OLDEST {
        return refuse(format!("is version {}", info.version_text), "Redis 7.0 or newer, or any Valkey, is needed");
    }
    if info.cluster {
        return refuse("runs in cluster mode".into(), "a single primary is needed (cluster-enabled no)");
    }
    if info.policy != "noeviction" {
        return refuse(
            format!("may throw data away when its memory is full: maxmemory-policy is {}", info.policy),
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        );
    }
    Ok(())
}

/// `redis 7.0.15 at 127.0.0.1:6379, append-only file on`
pub(super) async fn describe(link: &Link, at: &str) -> Result<String> {
    let info = info(link, at).await?;
    let aof = if info.append_only { "on" } else { "off" };
    Ok(format!("{} {} at {at}, append-only file {aof}", info.kind, info.version_text))
}

/// All memory that the server uses, for whatever.
pub(super) async fn size_bytes(link: &Link, at: &str) -> Result<u64> {
    let answer = link.send(redis::cmd("INFO").arg("memory")).await.map_err(|error| greeting(at, &error))?;
    let text = value::text(answer)?;
    let number = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
    number.ok_or_else(|| super::error::odd_answer("used_memory"))
}

struct Info {
    kind: &'static str,
    version: (u32, u32),
    version_text: String,
    cluster: bool,
    policy: String,
    append_only: bool,
}

/// INFO tells all of it, also where CONFIG is forbidden.
async fn info(link: &Link, at: &str) -> Result<Info> {
    let answer = link.send(&redis::cmd("INFO")).await.map_err(|error| greeting(at, &error))?;
    let text = value::text(answer)?;
    let facts: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
    let fact = |name| facts.get(name).copied().unwrap_or_default();
    // A Valkey says which Redis it stands for, and its own version beside it.
    let valkey = facts.get("valkey_version").copied();
    let mut numbers = fact("redis_version").split('.').map(|part| part.parse().unwrap_or(0));
    Ok(Info {
        kind: if valkey.is_some() { "valkey" } else { "redis" },
        version: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
        version_text: valkey.unwrap_or(fact("redis_version")).to_owned(),
        cluster: fact("cluster_enabled") == "1",
        policy: fact("maxmemory_policy").to_owned(),
        append_only: fact("aof_enabled") == "1",
    })
}

fn greeting(at: &str, error: &RedisError) -> Error {
    match meaning(at, &"INFO", error) {
        // Something listens there, but it is not a Redis.
        Error::Unavailable { .. } if error.kind() == redis::ErrorKind::Parse => Error::Refused(format!(
            "what listens at {at} does not speak as Redis does: {}\n  hint: is it the right port, and one without TLS?",
            plain(error)
        )),
        other => other,
    }
}
