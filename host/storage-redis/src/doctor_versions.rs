//! Bugs of servers that matter to Tidemill's guarantees, and the versions that fix them.

use super::server::Version;
use tidemill_storage::{Finding, finding};

struct Bug {
    what: &'static str,
    hint: &'static str,
    /// The first fixed version of each branch; later branches have the fix from the start. Empty: none is known.
    redis: &'static [[u32; 3]],
    valkey: &'static [[u32; 3]],
    /// Bad only while the append-only file is on.
    append_only: bool,
}

/// `aof-load-truncated no` is a cure for the first: see `doctor`.
const BUGS: [Bug; 3] = [
    Bug {
        what: "a power cut in the middle of a script can leave it torn in the append-only file: what is written after \
               the restart is then lost at the next one. Hosts have the file rewritten after each start of the server, \
               before they write; other programs may not",
        hint: "CONFIG SET aof-load-truncated no (and in the configuration file), or redis-check-aof --fix before each \
               start of the server; Valkey 8.0.11, 8.1.10, 9.0.6 and 9.1.2 have it mended",
        redis: &[],
        valkey: &[[8, 0, 11], [8, 1, 10], [9, 0, 6], [9, 1, 2]],
        append_only: true,
    },
    Bug {
        what: "CVE-2025-49844: whoever may run scripts can take over the server",
        hint: "update the server (Redis 7.2.11, 7.4.6, 8.0.4, 8.2.2; Valkey 7.2.11, 8.0.6, 8.1.4), or see whether \
               your distribution has mended its build",
        redis: &[[7, 2, 11], [7, 4, 6], [8, 0, 4], [8, 2, 2]],
        valkey: &[[7, 2, 11], [8, 0, 6], [8, 1, 4]],
        append_only: false,
    },
    Bug {
        what: "CVE-2025-62507: whoever may run XACKDEL can take over the server",
        hint: "update to Redis 8.2.3, or forbid the command: ACL SETUSER .. -xackdel (Tidemill does not use it)",
        redis: &[[7, 0, 0], [7, 2, 0], [7, 4, 0], [8, 0, 0], [8, 2, 3]],
        valkey: &[[7, 2, 0]],
        append_only: false,
    },
];

/// `torn_possible`: the append-only file is on and a torn end of it is truncated when it is loaded.
pub(super) fn known(version: &Version, torn_possible: bool) -> Vec<Finding> {
    let kind = if version.valkey { "valkey" } else { "redis" };
    let hit = BUGS.iter().filter(|bug| {
        let mended = if version.valkey { bug.valkey } else { bug.redis };
        !is_mended(version.numbers, mended) && (torn_possible || !bug.append_only)
    });
    hit.map(|bug| finding::warning("known bugs", format!("{kind} {}: {}", version.text, bug.what), bug.hint)).collect()
}

fn is_mended(version: [u32; 3], mended: &[[u32; 3]]) -> bool {
    let same_branch = mended.iter().find(|first| first[..2] == version[..2]);
    match same_branch {
        Some(first) => version >= *first,
        None => mended.last().is_some_and(|last| version > *last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bugs(text: &str, valkey: bool, torn_possible: bool) -> String {
        let version = Version::parse(text, valkey);
        known(&version, torn_possible).iter().map(|finding| format!("{}\n", finding.text)).collect()
    }

    #[test]
    fn a_bug_is_told_until_the_branch_has_it_mended() {
        for (text, valkey, torn, script, ackdel) in [
            ("7.0.15", false, true, true, false),
            ("7.2.11", false, true, false, false),
            ("8.2.1", false, true, true, true),
            ("8.2.3", false, true, false, false),
            ("8.10.1", false, true, false, false),
            ("8.0.1", true, true, true, false),
            ("8.0.11", true, false, false, false),
            ("9.0.5", true, true, false, false),
            ("9.1.2", true, false, false, false),
            ("10.0.0", true, false, false, false),
        ] {
            let said = bugs(text, valkey, true);
            let found = (said.contains("torn"), said.contains("49844"), said.contains("62507"));
            assert_eq!(found, (torn, script, ackdel), "{text}, valkey: {valkey}\n{said}");
        }
        assert!(!bugs("7.0.15", false, false).contains("torn"), "without an append-only file nothing can be torn");
    }
}
