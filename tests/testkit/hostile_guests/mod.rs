//! The hostile corpus: a row for each guest, with where and as what it has to be stopped. Each row is a test
//! (`tests/it/hostile.rs`), and what it costs the host and its neighbours is measured by `cargo xtask hostile`.

pub mod guests;

pub struct HostileGuest {
    pub name: &'static str,
    pub plugin: fn() -> Vec<u8>,
    /// The `data` of the event that it gets. `{service}` is the address of a service on this machine, which is open to
    /// it then; `{port}` is its port, and nothing is open.
    pub data: &'static str,
    /// Lines of its grants, besides `emit`, `state` and `timer`; with the same two places in them.
    pub grants: &'static str,
    pub stopped: Stopped,
}

impl HostileGuest {
    pub fn data(&self, service: &Service) -> String {
        filled(self.data, service)
    }

    pub fn grants(&self, service: &Service) -> String {
        filled(self.grants, service)
    }

    /// The networks that the operator has opened for it.
    pub fn open(&self) -> Vec<String> {
        if self.data.contains("{service}") { vec!["127.0.0.1/32".to_owned()] } else { Vec::new() }
    }
}

fn filled(text: &str, service: &Service) -> String {
    text.replace("{service}", &service.address.to_string()).replace("{port}", &service.address.port().to_string())
}

/// Where a hostile guest is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It is refused before its first event, with these words.
    AtLoad(&'static str),
    /// The attempt fails, with this class, or one of these: `deadline|failed`.
    InCall(&'static str),
    /// It is not: what it says too much is left out, which this limit counts, and the event commits.
    LeftOut(&'static str),
}

use Stopped::{AtLoad, InCall, LeftOut};

use crate::service::Service;
use guests::mischief;

const OK: &str = r#"{ "do": "ok" }"#;

macro_rules! hostile_guests {
    ($($name:literal: $plugin:expr, $data:expr $(, $grants:literal)? => $stopped:expr;)*) => {
        pub const HOSTILE_GUESTS: &[HostileGuest] = &[$(
            HostileGuest { name: $name, plugin: $plugin, data: $data, grants: concat!($($grants)?), stopped: $stopped }
        ),*];
    };
}

hostile_guests! {
    "endless-loop": mischief, r#"{ "do": "loop" }"# => InCall("deadline");
    "loop-in-start": guests::loop_in_start, OK => AtLoad("no instance of it can be made: deadline: ");
    "memory-bomb": mischief, r#"{ "do": "memory" }"# => InCall("memory");
    "memory-bomb-in-start": guests::memory_bomb_in_start, OK => AtLoad("no instance of it can be made: memory: ");
    "two-memories": guests::two_memories_that_grow, OK => InCall("memory");
    "many-memories": guests::many_memories, OK => AtLoad("memories");
    "table-bomb": guests::table_bomb, OK => InCall("table");
    "two-tables": guests::two_tables_that_grow, OK => InCall("table");
    "stack-bomb": guests::stack_bomb, OK => InCall("stack");
    "deep-recursion": mischief, r#"{ "do": "stack" }"# => InCall("stack");
    "million-emits": mischief, r#"{ "do": "emit-many", "count": 1000000, "stubborn": true }"# => InCall("emits");
    "attributes-without-end": guests::attributes_without_end, OK => InCall("event-bytes");
    "20-mb-return": mischief, r#"{ "do": "return-big", "bytes": 20000000 }"# => InCall("hostcall-bytes");
    "1-gb-return": guests::a_gigabyte_for_a_reason, OK => InCall("trap");
    "state-bomb": mischief, r#"{ "do": "state-big", "bytes": 4000000, "stubborn": true, "key": "k" }"# => InCall("state-bytes");
    "state-names": mischief, r#"{ "do": "state-delete-many", "count": 5000, "key": "k" }"# => InCall("state-bytes");
    "log-flood": mischief, r#"{ "do": "log-flood", "count": 9000 }"# => LeftOut("log-lines");
    "log-lines-of-1-mib": mischief, r#"{ "do": "log-then-trap", "count": 20, "bytes": 1000000 }"# => InCall("trap");
    "host-call-storm": guests::host_call_storm, OK => InCall("host-calls");
    "handles": guests::hoard_of_handles, OK => InCall("handles");
    "bad-utf8-reason": guests::bad_utf8_for_a_reason, OK => InCall("trap");
    "bad-utf8-emit": guests::bad_utf8_in_an_emit, OK => InCall("trap");
    "huge-data": guests::huge_data, OK => AtLoad("no instance of it can be made: memory: ");
    "wrong-world": guests::wrong_world, OK => AtLoad("does not export tidemill:plugin/handler@");
    "wrong-version": guests::wrong_version, OK => AtLoad("it is built for tidemill:plugin 0.9.0");
    "ungranted-import": guests::foreign_import, OK => AtLoad("it imports \"hostile:guests/foreign\"");
    "core-module": guests::core_module, OK => AtLoad("it is a core module");
    "compile-bomb": guests::compile_bomb, OK => AtLoad("compiling it ");
    "blocking-poll": guests::wasi_user, r#"{ "do": "sleep", "ms": 3600000, "count": 1 }"#,
        "wasi = [\"clocks\", \"random\", \"stdio\"]" => InCall("wasi-wait");
    "sleep-in-http": guests::caller, r#"{ "do": "pass-on", "url": "http://{service}/hang" }"#,
        "secrets = []\nhttp = [\"GET http://{service}/*\"]" => InCall("deadline|failed");
    "ssrf-by-address": guests::caller, r#"{ "do": "call", "url": "http://169.254.169.254/latest/meta-data/" }"#,
        "secrets = []\nhttp = [\"GET http://169.254.169.254/*\"]" => InCall("rejected");
    "ssrf-by-name": guests::caller, r#"{ "do": "call", "url": "http://localhost:{port}/status/200" }"#,
        "secrets = []\nhttp = [\"GET http://localhost:{port}/*\"]" => InCall("rejected");
    "ssrf-by-redirect": guests::caller, r#"{ "do": "pass-on", "url": "http://{service}/redirect/{service}" }"#,
        "secrets = []\nhttp = [\"GET http://{service}/redirect/*\"]" => InCall("rejected|failed");
}
