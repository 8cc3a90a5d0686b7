//! What a server must be before it is used: new enough, a single primary, and one that evicts nothing.

use std::collections::HashMap;

use redis::RedisError;

use super::error::{meaning, plain};
use super::link;
use super::link::Link;
use super::value;
use tidemill_core::model::backend_url::BackendUrl;
use tidemill_storage::{Error, Result};

/// Scripts with flags and the lag of groups came with 7.0.
const OLDEST: [u32; 2] = [7, 0];
/// The one policy that evicts nothing.
pub(super) const SAFE_POLICY: &str = "noeviction";
pub(super) const POLICY_HINT: &str = "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf";

/// Reads the URL. Neither the result nor the error contains the password.
pub(super) fn client(url: &BackendUrl) -> Result<redis::Client> {
    let refused = |what: String, hint: &str| {
        Error::Permanent(format!("backend url {url} cannot be used: {what}\n  hint: {hint}"))
    };
    if let Some(what) = url.unencoded() {
        let hint = "in user and password write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A and % as %25";
        return Err(refused(what, hint));
    }
    link::client(url).map_err(|error| {
        let hint = "write redis://USER:PASSWORD@HOST:PORT/DB, with what is not a letter or a digit in USER and \
                    PASSWORD as %XX; TLS (rediss://) is not built in, put a proxy in between";
        refused(plain(&error), hint)
    })
}

/// Refuses a server that would lose data or does not know the commands.
pub(super) async fn check(link: &Link, at: &str) -> Result<()> {
    let info = Info::read(link, at).await.map_err(|error| match error {
        Error::Unavailable { cause, .. } => Error::Unavailable { what: format!("cannot reach redis at {at}"), cause },
        other => other,
    })?;
    let refuse = |what: String, hint: &str| Err(Error::Permanent(format!("redis at {at} {what}\n  hint: {hint}")));
    // Every Valkey reports a Redis version that is new enough.
    let version = Version::parse(info.fact("redis_version"), false);
    if version.numbers[..2] < OLDEST[..] {
        return refuse(format!("is version {}", version.text), "Redis 7.0 or newer, or any Valkey, is needed");
    }
    if info.fact("cluster_enabled") == "1" {
        return refuse("runs in cluster mode".into(), "a single primary is needed (cluster-enabled no)");
    }
    let policy = info.fact("maxmemory_policy");
    // One that does not report it is accepted: `doctor` warns of it.
    if !policy.is_empty() && policy != SAFE_POLICY {
        return refuse(
            format!("may throw data away when its memory is full: maxmemory-policy is {policy}"),
            POLICY_HINT,
        );
    }
    Ok(())
}

/// `redis 7.0.15 at 127.0.0.1:6379, append-only file on`
pub(super) async fn describe(link: &Link, at: &str) -> Result<String> {
    let info = Info::read(link, at).await?;
    let (version, aof) = (info.version(), if info.fact("aof_enabled") == "1" { "on" } else { "off" });
    Ok(format!("{} {} at {at}, append-only file {aof}", version.kind(), version.text))
}

/// All memory that the server uses, for whatever.
pub(super) async fn size_bytes(link: &Link, at: &str) -> Result<u64> {
    let answer = link.send(redis::cmd("INFO").arg("memory")).await.map_err(|error| greeting(at, &error))?;
    let text = value::text(answer)?;
    let number = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
    number.ok_or_else(|| super::error::odd_answer("used_memory"))
}

/// A Valkey reports a compatible Redis version, and its own version beside it.
pub(super) struct Version {
    pub(crate) valkey: bool,
    pub text: String,
    pub numbers: [u32; 3],
}

impl Version {
    pub(crate) fn parse(text: &str, valkey: bool) -> Self {
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Self { valkey, text: text.to_owned(), numbers: [next(), next(), next()] }
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.valkey { "valkey" } else { "redis" }
    }
}

/// What INFO reports, which has all that matters also where CONFIG is forbidden.
pub(super) struct Info(HashMap<String, String>);

impl Info {
    pub(crate) async fn read(link: &Link, at: &str) -> Result<Self> {
        let answer = link.send(&redis::cmd("INFO")).await.map_err(|error| greeting(at, &error))?;
        Ok(Self::of(&value::text(answer)?))
    }

    /// Of the text that the server answers.
    pub(crate) fn of(text: &str) -> Self {
        let facts = text.lines().filter_map(|line| line.split_once(':'));
        Self(facts.map(|(name, fact)| (name.to_owned(), fact.to_owned())).collect())
    }

    /// Empty if it is missing.
    pub(crate) fn fact(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Zero if it is missing.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.fact(name).parse().unwrap_or(0)
    }

    pub(crate) fn version(&self) -> Version {
        match self.fact("valkey_version") {
            "" => Version::parse(self.fact("redis_version"), false),
            version => Version::parse(version, true),
        }
    }
}

fn greeting(at: &str, error: &RedisError) -> Error {
    match meaning(at, &"INFO", error) {
        // Something listens there, but it is not a Redis.
        Error::Unavailable { .. } if error.kind() == redis::ErrorKind::Parse => Error::Permanent(format!(
            "what listens at {at} does not speak as Redis does: {}\n  hint: is it the right port, and one without TLS?",
            plain(error)
        )),
        other => other,
    }
}
