//! What is measured: a backlog, and hosts with handlers that drain it; as a configuration file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tidemill_benches::{Case, user_created};
use uuid::Uuid;

/// The stream that is drained, and the one that is emitted to.
pub(crate) const STREAM: &str = "bench-users";
pub(crate) const OUT: &str = "bench-out";

/// The events that wait when a drain begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backlog {
    pub events: u64,
    /// Of one event; none = `User.Created` of 400 bytes.
    pub bytes: Option<usize>,
}

pub(crate) struct Setup {
    pub backlog: Backlog,
    pub case: Case,
    /// One for each handler.
    pub plugins: Vec<PathBuf>,
    pub instance_events_max: u32,
    pub hosts: usize,
}

impl Backlog {
    pub(crate) fn of(events: u64) -> Self {
        Self { events, bytes: None }
    }

    pub(crate) fn event(&self, number: u64) -> String {
        match self.bytes {
            None => user_created(number),
            Some(bytes) => placed(number, bytes),
        }
    }

    fn kind(&self) -> &'static str {
        if self.bytes.is_none() { "User.Created" } else { "Bench.Placed" }
    }
}

/// The schema of events of any size: orders with many lines, each of which is looked at.
const PLACED: &str = r#"{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "properties": {
    "event_id": {"type": "string", "format": "uuid"},
    "event_type": {"const": "Bench.Placed"},
    "version": {"const": "1"},
    "timestamp": {"type": "string", "format": "date-time"},
    "correlation_id": {"type": "string", "format": "uuid"},
    "data": {
      "type": "object",
      "properties": {
        "email": {"type": "string"},
        "lines": {"type": "array", "items": {
          "type": "object",
          "properties": {
            "sku": {"type": "string", "maxLength": 40},
            "quantity": {"type": "integer"},
            "unit_price": {"type": "number"}
          },
          "required": ["sku", "quantity", "unit_price"]
        }}
      },
      "required": ["email"]
    }
  },
  "required": ["event_id", "event_type", "version", "timestamp", "correlation_id", "data"]
}"#;

/// A `Bench.Placed` of at least so many bytes, and less than a line more.
fn placed(number: u64, bytes: usize) -> String {
    let id = Uuid::from_u128(0x0191_d3a0_0000_7000_8000_0000_0000_0000 + u128::from(number));
    let mut event = format!(
        r#"{{"event_id":"{id}","event_type":"Bench.Placed","version":"1","timestamp":"2026-01-31T12:00:00.000Z","correlation_id":"{id}","data":{{"email":"a@example.com""#
    );
    let mut separator = r#","lines":["#;
    let mut line = 0;
    while event.len() + r#"]}}"#.len() < bytes {
        event += separator;
        event += &format!(r#"{{"sku":"85123A-{line:06}","quantity":{},"unit_price":{}.55}}"#, line % 12 + 1, line % 9);
        (separator, line) = (",", line + 1);
    }
    event += if line > 0 { "]}}" } else { "}}" };
    event
}

impl Setup {
    /// One host with one handler.
    pub(crate) fn new(events: u64, case: Case, instance_events_max: u32) -> Self {
        Self { backlog: Backlog::of(events), case, plugins: vec![case.plugin()], instance_events_max, hosts: 1 }
    }

    /// The names of the handlers.
    pub(crate) fn handlers(&self) -> Vec<String> {
        (1..=self.plugins.len()).map(|number| format!("bench-{number}")).collect()
    }

    /// Writes the configuration of a host into the folder; its path. Compiled plugins are kept there, too.
    pub(crate) fn write(&self, folder: &Path, url: &str, http: u16) -> anyhow::Result<PathBuf> {
        let schemas = match self.backlog.bytes {
            None => tidemill_testkit::root().join("schemas"),
            Some(_) => folder.join("schemas"),
        };
        if self.backlog.bytes.is_some() {
            std::fs::create_dir_all(&schemas)?;
            std::fs::write(schemas.join("Bench.Placed.v1.json"), PLACED)?;
        }
        let kind = self.backlog.kind();
        let mut text = format!(
            "[backend]\nurl = \"{url}\"\n[schemas]\npath = \"{}\"\n[host]\ncache = \"{}\"\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n\
             [streams.{STREAM}]\nevents = [\"{kind}\"]\n",
            schemas.display(),
            folder.join("cache").display(),
        );
        if self.case == Case::Emit {
            text += &format!("[streams.{OUT}]\nevents = [\"Notification.*\"]\n");
        }
        for (name, plugin) in self.handlers().iter().zip(&self.plugins) {
            text += &format!(
                "[handlers.{name}]\nplugin = \"{}\"\nevents = [\"{kind}\"]\nkey = \"/data/user_id\"\n\
                 instance_events_max = {}\n",
                plugin.display(),
                self.instance_events_max,
            );
            text += &match self.case {
                Case::Stateless => String::new(),
                Case::Emit => format!("[handlers.{name}.grants]\nemit = [\"Notification.Email.Queued\"]\n"),
                Case::Keyed => format!("[handlers.{name}.grants]\nstate = true\n"),
            };
        }
        let file = folder.join(format!("host-{http}.toml"));
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}
