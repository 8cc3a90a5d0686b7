//! A redis-server for the tests: the one that is there, or one from the system's package manager.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::bail;

/// Ways to install it, each tried where its first program is there.
const INSTALLERS: &[&[&str]] = &[
    &["apt-get", "install", "-y", "redis-server"],
    &["dnf", "install", "-y", "redis"],
    &["apk", "add", "redis"],
    &["pacman", "-S", "--noconfirm", "redis"],
    &["brew", "install", "redis"],
];

/// The path of a redis-server; `TIDEMILL_REDIS_SERVER` names another one.
pub(crate) fn find_or_install() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEMILL_REDIS_SERVER").map(PathBuf::from) {
        return Ok(path);
    }
    if let Some(found) = find("redis-server") {
        return Ok(found);
    }
    for installer in INSTALLERS.iter().filter(|installer| find(installer[0]).is_some()) {
        eprintln!("installing redis-server: {}", installer.join(" "));
        if installer[0] == "apt-get" {
            quietly(&["apt-get", "update"]);
        }
        quietly(installer);
        if let Some(found) = find("redis-server") {
            return Ok(found);
        }
    }
    bail!("there is no redis-server\n  hint: install Redis 7.0 or later, or name one with TIDEMILL_REDIS_SERVER")
}

/// Runs an installer; not as root, with sudo if that asks for no password. Whether it helped is seen by looking again.
fn quietly(command: &[&str]) {
    let with_sudo = ["sudo", "-n"].iter().chain(command).copied().collect::<Vec<_>>();
    for words in [command, &with_sudo] {
        let status = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).status();
        if status.is_ok_and(|status| status.success()) {
            return;
        }
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.is_file())
}
