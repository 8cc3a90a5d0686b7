//! What the benches share: the event that everything is measured with, a host with one handler for it, and the steps.

pub mod steps;

use std::path::{Path, PathBuf};

use tidemill_config::{Config, read};
use uuid::Uuid;

/// A `User.Created.v1` of about 400 bytes.
pub fn user_created(number: u64) -> String {
    let id = Uuid::from_u128(0x0191_d3a0_0000_7000_8000_0000_0000_0000 + u128::from(number));
    format!(
        r#"{{"event_id":"{id}","event_type":"User.Created","version":"1","timestamp":"2026-01-31T12:00:00.000Z","correlation_id":"{id}","data":{{"user_id":{number},"username":"user-{number:08}","email":"user-{number:08}@example.com","created_at":"2026-01-31T12:00:00.000Z","user_type":"customer","note":"a member that no schema declares, as real ones have"}}}}"#
    )
}

/// The guests that are measured, and what they are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Reads the event, asks for nothing.
    Stateless,
    /// One event emitted, checked against its schema.
    Emit,
    /// One value of the key's state read and written.
    Keyed,
}

impl Case {
    pub const ALL: [Self; 3] = [Self::Stateless, Self::Emit, Self::Keyed];

    pub fn name(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::Emit => "emit",
            Self::Keyed => "keyed",
        }
    }

    /// A configuration with this handler alone, reading the stream `bench-users`.
    pub fn config(self, url: &str, extra: &str) -> Config {
        self.config_with(url, &self.plugin(), extra)
    }

    pub fn plugin(self) -> PathBuf {
        tidemill_testkit::guest(match self {
            Self::Stateless => "bench-check",
            Self::Emit => "notification-service",
            Self::Keyed => "analytics-service",
        })
    }

    /// The same with another plugin, which is granted as much.
    pub fn config_with(self, url: &str, plugin: &Path, extra: &str) -> Config {
        let rest = match self {
            Self::Stateless => "",
            Self::Emit => "[handlers.bench.grants]\nemit = [\"Notification.Email.Queued\"]",
            Self::Keyed => "[handlers.bench.grants]\nstate = true",
        };
        let text = format!(
            r#"
            [backend]
            url = "{url}"
            [schemas]
            path = "schemas"
            [streams.bench-users]
            events = ["User.*"]
            [streams.bench-out]
            events = ["Notification.*"]
            [handlers.bench]
            plugin = "{}"
            events = ["User.Created"]
            key = "/data/user_id"
            {extra}
            {rest}
            "#,
            plugin.display()
        );
        read::parse(&text, "bench.toml".as_ref(), tidemill_testkit::root(), &[]).expect("a good configuration")
    }
}
