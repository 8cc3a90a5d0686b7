//! The Lua scripts: each is one atomic step. They lie beside this file and open with a table of their keys and
//! arguments; `common.lua` is put after the first line of each, and behind it `letters.lua` where dead letters come or
//! go, or `ids.lua` where entry ids are compared.

use std::sync::LazyLock;

use redis::Cmd;

pub(super) struct Script {
    code: String,
    sha: String,
}

macro_rules! scripts {
    ($($name:ident $file:literal $($with:literal)?)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file)), concat!($(include_str!(concat!("lua/", $with)))?)));)*
        #[cfg(test)]
        const FILES: &[(&str, &str)] = &[$(($file, include_str!(concat!("lua/", $file)))),*];
    };
}

scripts! {
    HEARTBEAT "heartbeat.lua"
    REAP_CONSUMERS "reap_consumers.lua"
    TAKEOVER "takeover.lua" "letters.lua"
    COUNT "count.lua"
    DROP "drop.lua" "letters.lua"
    ENSURE "ensure.lua" "ids.lua"
    DEREGISTER "deregister.lua"
    LOOK_UP "look_up.lua"
    PAUSE "pause.lua"
    PROMOTE "promote.lua"
    PUBLISH "publish.lua"
    RECLAIMER "reclaimer.lua"
    RELEASE "release.lua" "letters.lua"
    REPLAY "replay.lua" "letters.lua"
    DOCTOR_ACL "doctor_acl.lua"
    SETTLE "settle.lua" "letters.lua"
    SILENT "silent.lua"
    STATUS "status.lua"
    DOCTOR_STREAMS "doctor_streams.lua"
    TEND "tend.lua" "ids.lua"
    TRIM "trim.lua" "ids.lua"
}

/// Settling that asks for no room to speak of, and so goes on when the server's memory is full: acks and dead letters
/// are what empties it.
pub(super) static SETTLE_WHEN_FULL: LazyLock<Script> = LazyLock::new(|| {
    Script::with_flags("#!lua flags=allow-oom", include_str!("lua/settle.lua"), include_str!("lua/letters.lua"))
});

impl Script {
    fn new(file: &str, with: &str) -> Self {
        // The first line says which flags the script has, and has to stay the first.
        Self::with_flags(file.lines().next().unwrap_or_default(), file, with)
    }

    fn with_flags(flags: &str, file: &str, with: &str) -> Self {
        let (_, body) = file.split_once('\n').unwrap_or((file, ""));
        let code = format!("{flags}\n{}{with}{body}", include_str!("lua/common.lua"));
        let sha = redis::Script::new(&code).get_hash().to_owned();
        Self { code, sha }
    }

    /// A call with these keys; the arguments are still to be added.
    pub(crate) fn call<K: AsRef<[u8]>>(&self, keys: &[K]) -> Cmd {
        self.call_with_room(keys, 8, 256)
    }

    /// The same, with room for that many arguments and bytes.
    pub(crate) fn call_with_room<K: AsRef<[u8]>>(&self, keys: &[K], args: usize, bytes: usize) -> Cmd {
        let key_bytes: usize = keys.iter().map(|key| key.as_ref().len()).sum();
        let mut cmd = Cmd::with_capacity(3 + keys.len() + args, 64 + key_bytes + bytes);
        cmd.arg("EVALSHA").arg(&self.sha).arg(keys.len());
        for key in keys {
            cmd.arg(key.as_ref());
        }
        cmd
    }

    /// What makes the server know this script. It forgets all scripts when it restarts or fails over.
    pub(crate) fn load(&self) -> Cmd {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(&self.code);
        cmd
    }
}

#[cfg(test)]
mod tests {
    use super::FILES;
    use tidemill_core::model::dead_letter::ReasonClass;

    #[test]
    fn the_accounts_know_every_class_that_never_ran() {
        let text = include_str!("lua/letters.lua");
        let classes = ReasonClass::ALL.into_iter().filter(|class| !class.ran()).map(|class| format!("{class} = true"));
        let table = format!("NEVER_RAN = {{{}}}", classes.collect::<Vec<_>>().join(", "));
        assert!(text.contains(&table), "letters.lua has no {table}");
    }

    #[test]
    fn every_script_opens_with_flags_job_and_table() {
        for (name, text) in FILES {
            assert!(text.starts_with("#!lua"), "{name} has no flags");
            assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("-- ")), "{name} does not say its job");
            for row in ["-- KEYS", "-- ARGV", "-- returns"] {
                assert!(text.contains(row), "{name} has no row {row}");
            }
        }
    }
}
