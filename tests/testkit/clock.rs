//! A wall clock that a test moves while the programs that go by it run: a redis-server, or a host. It is a shared library that
//! stands before the system's own functions (`clock.c`); the C compiler that Rust links with compiles it, so nothing has to
//! be installed. Linux only.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub struct Clock {
    file: tempfile::NamedTempFile,
}

impl Clock {
    /// It is right at first.
    pub fn new() -> Self {
        let clock = Self { file: tempfile::NamedTempFile::new().expect("a file") };
        clock.set(0);
        clock
    }

    /// From now on it is ahead by so much.
    pub fn ahead(&self, by: Duration) {
        self.set(by.as_millis() as i64);
    }

    /// From now on it is behind by so much.
    pub fn behind(&self, by: Duration) {
        self.set(-(by.as_millis() as i64));
    }

    pub fn right(&self) {
        self.set(0);
    }

    fn set(&self, shift_ms: i64) {
        // All at once: whoever looks sees the old one or the new one.
        self.file.as_file().write_all_at(&shift_ms.to_le_bytes(), 0).expect("written");
    }

    /// Has the program go by this clock, and what it starts.
    pub fn of(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("TIDEMILL_TEST_CLOCK", self.file.path());
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Compiled beside the tests, once in a process.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let subscription = crate::root().join("tests/testkit/clock.c");
        let own = std::env::current_exe().expect("a running program has a file");
        let library = own.with_file_name("libtestclock.so");
        let fresh = own.with_file_name(format!("libtestclock-{}.so", std::process::id()));
        let mut compile = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&fresh).arg(&subscription);
        let compiled = compile.status().expect("a C compiler is there: Rust links with it");
        assert!(compiled.success(), "{} does not compile", subscription.display());
        File::open(&fresh).and_then(|file| file.sync_all()).expect("a library");
        std::fs::rename(&fresh, &library).expect("renamed");
        library
    })
}
