//! The Lua scripts: each is one atomic step. They lie beside this file and open with a table of what they take and
//! return.
//!
//! `scripts!` lists the keys and arguments of each by name, once. It makes a struct with these names of it, from which
//! a call is made, and the same names are locals of the script. What comes in any number has no names and follows
//! behind them: the script finds it from `MORE_KEYS` and `MORE_ARGS` on. Before these locals stands `common.lua`, and
//! where it is named the library of dead letters (`letters.lua`) or of entry ids (`ids.lua`); behind them the parts of
//! the script that have a file of their own, then itself.
//!
//! An answer of several fields has their names with them, and is read by [`super::value::Fields`]. Those of the
//! scripts that run for every batch have not: `settle.lua` answers a letter for each entry and `publish.lua` an id,
//! which are lists of one kind; `look_up.lua` two such lists, where a map would cost a lookup and tell nothing.

use std::sync::LazyLock;

use redis::Cmd;

use super::record::{WrittenBounds, WrittenId};

pub(super) struct Script {
    code: String,
    sha: String,
}

/// A call that is ready to be sent; more arguments may be added.
pub(super) struct ScriptCall {
    pub script: &'static Script,
    pub cmd: Cmd,
}

/// What a script is called with, by name.
pub(super) trait Arguments: Sized {
    const KEYS: &'static [&'static str];
    const ARGS: &'static [&'static str];

    fn script() -> &'static Script;
    fn keys(&self) -> Vec<&[u8]>;
    fn add_to(&self, cmd: &mut Cmd);

    fn call(&self) -> ScriptCall {
        self.call_with::<&str>(&[], 8, 256)
    }

    /// With keys behind those that have names, and room for that many more arguments and bytes.
    fn call_with<K: AsRef<[u8]>>(&self, more_keys: &[K], args: usize, bytes: usize) -> ScriptCall {
        self.call_as(Self::script(), more_keys, args, bytes)
    }

    /// The same, of the script with other flags.
    fn call_as<K: AsRef<[u8]>>(
        &self,
        script: &'static Script,
        more_keys: &[K],
        args: usize,
        bytes: usize,
    ) -> ScriptCall {
        let mut keys = self.keys();
        keys.extend(more_keys.iter().map(AsRef::as_ref));
        let key_bytes: usize = keys.iter().map(|key| key.len()).sum();
        let mut cmd = Cmd::with_capacity(3 + keys.len() + Self::ARGS.len() + args, 64 + key_bytes + bytes);
        cmd.arg("EVALSHA").arg(&script.sha).arg(keys.len());
        for key in keys {
            cmd.arg(key);
        }
        self.add_to(&mut cmd);
        ScriptCall { script, cmd }
    }
}

macro_rules! scripts {
    ($(
        $name:ident $(<$life:lifetime>)? $file:literal $(with $library:literal)? $(after $($part:literal),+)?
        keys($($key:ident),*) args($($arg:ident: $type:ty),*)
    )*) => {
        $(
            pub(super) struct $name $(<$life>)? {
                $(pub $key: String,)*
                $(pub $arg: $type,)*
            }

            impl $(<$life>)? Arguments for $name $(<$life>)? {
                const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];
                const ARGS: &'static [&'static str] = &[$(stringify!($arg)),*];

                fn script() -> &'static Script {
                    static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
                        let library = concat!($(include_str!(concat!("lua/", $library)))?);
                        let parts = concat!($($(include_str!(concat!("lua/", $part))),+)?);
                        let file = include_str!(concat!("lua/", $file));
                        Script::new(library, &prelude($name::KEYS, $name::ARGS), parts, file)
                    });
                    &SCRIPT
                }

                fn keys(&self) -> Vec<&[u8]> {
                    vec![$(self.$key.as_bytes()),*]
                }

                fn add_to(&self, _cmd: &mut Cmd) {
                    $(_cmd.arg(&self.$arg);)*
                }
            }
        )*

        #[cfg(test)]
        const FILES: &[File] = &[$(File {
            name: $file,
            text: include_str!(concat!("lua/", $file)),
            others: &[
                include_str!("lua/common.lua"),
                $(include_str!(concat!("lua/", $library)),)?
                $($(include_str!(concat!("lua/", $part)),)+)?
            ],
            keys: $name::KEYS,
            args: $name::ARGS,
            script: $name::script,
        }),*];
    };
}

scripts! {
    CountArgs "count.lua" keys(stream) args(after: WrittenId, page: u64)
    DeregisterArgs<'a> "deregister.lua"
        keys(stream, redelivery, wishes)
        args(group: &'a str, consumer: &'a str, wish_ttl_ms: u64)
    DoctorAclArgs "doctor_acl.lua" keys() args()
    DoctorStreamsArgs "doctor_streams.lua" keys(stream) args(consumers_max: usize)
    DropArgs<'a> "drop.lua" with "letters.lua"
        keys(dead, stats, audit_log)
        args(operator: &'a str, reason: &'a str, records_max: usize, ids_max: usize)
    EnsureArgs<'a> "ensure.lua" with "ids.lua"
        keys(stream, redelivery, due, dead, stats, timers, position, inbox, audit_log)
        args(
            operator: &'a str, reason: &'a str, records_max: usize, ids_max: usize,
            group: &'a str, start: &'a str, window_ms: u64, remembered: &'a str, place: &'a str
        )
    HeartbeatArgs<'a> "heartbeat.lua"
        keys(heartbeat, hosts)
        args(consumer: &'a str, ttl_ms: u64, report: &'a str)
    IdleConsumersArgs<'a> "idle_consumers.lua"
        keys(stream, redelivery)
        args(group: &'a str, lease_ms: u64, max: u64)
    LookUpArgs "look_up.lua" keys(inbox) args(window_ms: u64, bytes_max: usize)
    PauseArgs<'a> "pause.lua"
        keys(stream, stats, audit_log)
        args(
            operator: &'a str, reason: &'a str, records_max: usize, ids_max: usize,
            group: &'a str, verb: &'a str
        )
    PromoteArgs<'a> "promote.lua"
        keys(redelivery, due, due_bodies, timers, stats)
        args(max: usize, told_ms: &'a str, passed_ms: u64)
    PublishArgs "publish.lua" keys(stream, inbox) args(window_ms: u64)
    ReapConsumersArgs<'a> "reap_consumers.lua" keys(stream, redelivery) args(group: &'a str)
    ReclaimerArgs<'a> "reclaimer.lua" keys(reclaimer) args(consumer: &'a str, ttl_ms: u64)
    ReleaseArgs<'a> "release.lua" with "letters.lua"
        keys(queue, dead, stats)
        args(group: &'a str, consumer: &'a str, max: usize, letter_bounds: WrittenBounds)
    ReplayArgs<'a> "replay.lua" with "letters.lua"
        keys(dead, redelivery, audit_log, stats)
        args(
            operator: &'a str, reason: &'a str, records_max: usize, ids_max: usize,
            verb: &'a str, body: &'a [u8]
        )
    SettleArgs<'a> "settle.lua" with "letters.lua" after "fence.lua", "effects.lua", "outcomes.lua"
        keys(stream, redelivery, due, due_bodies, dead, crashes, stats, inbox, state_index, receipt, timers)
        args(
            group: &'a str, consumer: &'a str, window_ms: u64, letter_bounds: WrittenBounds,
            state_prefix_len: usize, ops: String,
            stream_ids: String, stream_low: WrittenId, stream_high: WrittenId,
            redelivery_ids: String, redelivery_low: WrittenId, redelivery_high: WrittenId,
            dedup_keys: &'a [u8], shapes: Vec<u8>, crashed: u8, timers_max: u64,
            plugin: &'a str, versions_max: usize, plain: String
        )
    SilentArgs "silent.lua" keys() args(longest_ms: u64)
    StatusArgs<'a> "status.lua"
        keys(stream, redelivery, due, dead, stats, timers)
        args(group: &'a str, far_ms: u64)
    TakeoverArgs<'a> "takeover.lua" with "letters.lua"
        keys(queue, crashes, dead, stats)
        args(
            group: &'a str, consumer: &'a str, holder: &'a [u8], lease_ms: u64, max: usize,
            queue_name: &'a str, letter_bounds: WrittenBounds, note: &'a str,
            crash_window_ms: u64, crashes_max: u32, crashed_weight: usize
        )
    TendArgs<'a> "tend.lua" with "ids.lua"
        keys(stream, redelivery, due, dead, stats, timers, position, wishes)
        args(
            group: &'a str, consumer: &'a str, wish: &'a str, ttl_ms: u64,
            pending_max: usize, every_ms: u64, ended_ttl_ms: u64
        )
    TrimArgs<'a> "trim.lua" with "ids.lua"
        keys(stream)
        args(length_max: &'a str, age_max_ms: &'a str, drop: u8, stats_prefix: &'a str, caller_ms: u64)
}

/// Settling that asks for no room to speak of, and so goes on when the server's memory is full: acks and dead letters
/// are what empties it.
pub(super) static SETTLE_WHEN_FULL: LazyLock<Script> =
    LazyLock::new(|| SettleArgs::script().with_flags("#!lua flags=allow-oom"));

impl Script {
    fn new(library: &str, names: &str, parts: &str, file: &str) -> Self {
        // The first line says which flags the script has, and has to stay the first.
        let (flags, body) = file.split_once('\n').unwrap_or((file, ""));
        Self::of(format!("{flags}\n{}{library}{names}{parts}{body}", include_str!("lua/common.lua")))
    }

    fn with_flags(&self, flags: &str) -> Self {
        let (_, rest) = self.code.split_once('\n').unwrap_or_default();
        Self::of(format!("{flags}\n{rest}"))
    }

    fn of(code: String) -> Self {
        let sha = redis::Script::new(&code).get_hash().to_owned();
        Self { code, sha }
    }

    /// What makes the server know this script. It forgets all scripts when it restarts or fails over.
    pub(crate) fn load(&self) -> Cmd {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(&self.code);
        cmd
    }
}

/// The lines that give keys and arguments their names. They stand as far back as they can: each function takes the
/// locals that it uses from a list that begins with the last ones.
fn prelude(keys: &[&str], args: &[&str]) -> String {
    let mut lines = String::new();
    for (list, names) in [("KEYS", keys), ("ARGV", args)] {
        if !names.is_empty() {
            let values: Vec<String> = (1..=names.len()).map(|number| format!("{list}[{number}]")).collect();
            lines += &format!("local {} = {}\n", names.join(", "), values.join(", "));
        }
    }
    lines += &format!("local MORE_KEYS, MORE_ARGS = {}, {}\n", keys.len() + 1, args.len() + 1);
    // Globals are slower to reach.
    lines + "local redis, KEYS, ARGV = redis, KEYS, ARGV\n"
}

#[cfg(test)]
struct File {
    name: &'static str,
    text: &'static str,
    /// The libraries and parts that stand before it.
    others: &'static [&'static str],
    keys: &'static [&'static str],
    args: &'static [&'static str],
    script: fn() -> &'static Script,
}

/// The scripts that a server does not know yet.
#[cfg(test)]
pub(super) async fn unknown_to(connection: &mut redis::aio::MultiplexedConnection) -> Vec<&'static str> {
    let mut ask = redis::cmd("SCRIPT");
    ask.arg("EXISTS");
    FILES.iter().for_each(|file| _ = ask.arg(&(file.script)().sha));
    let known: Vec<bool> = ask.query_async(connection).await.expect("SCRIPT EXISTS");
    FILES.iter().zip(known).filter(|(_, known)| !known).map(|(file, _)| file.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::model::dead_letter::ReasonClass;

    /// What fits on a screen.
    const LUA_FUNCTION_LINES: usize = 70;

    #[test]
    fn the_accounts_know_every_class_that_never_ran() {
        let text = include_str!("lua/letters.lua");
        let classes = ReasonClass::ALL.into_iter().filter(|class| !class.ran()).map(|class| format!("{class} = true"));
        let table = format!("NEVER_RAN = {{{}}}", classes.collect::<Vec<_>>().join(", "));
        assert!(text.contains(&table), "letters.lua has no {table}");
    }

    #[test]
    fn every_script_opens_with_flags_job_and_table() {
        for File { name, text, keys, args, .. } in FILES {
            assert!(text.starts_with("#!lua"), "{name} has no flags");
            assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("-- ")), "{name} does not say its job");
            for row in ["-- KEYS", "-- ARGV", "-- returns"] {
                assert!(text.contains(row), "{name} has no row {row}");
            }
            let table = text.split("-- returns").next().unwrap_or_default();
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            for known in keys.iter().chain(*args) {
                assert!(table.split(|c| !is_word(c)).any(|word| word == *known), "the table of {name} has no {known}");
            }
        }
    }

    /// A function of the same name would hide it from the script.
    #[test]
    fn no_key_or_argument_is_named_like_a_function() {
        for File { name, text, others, keys, args, .. } in FILES {
            for known in keys.iter().chain(*args) {
                for part in others.iter().chain([text]) {
                    assert!(!part.contains(&format!("function {known}(")), "{name}: {known} is a function, too");
                }
            }
        }
    }

    #[test]
    fn functions_fit_on_a_screen() {
        for File { name, text, others, .. } in FILES {
            for part in others.iter().chain([text]) {
                let mut begun = None;
                for (number, line) in part.lines().enumerate() {
                    if line.starts_with("local function ") {
                        begun = Some((number, line));
                    }
                    if let Some((first, head)) = begun.filter(|_| line == "end") {
                        let lines = number - first + 1;
                        assert!(lines <= LUA_FUNCTION_LINES, "{name}: {head} has {lines} lines");
                        begun = None;
                    }
                }
            }
        }
    }
}
