//! `cargo xtask reload`: sets up and runs the swaps of `tests/reload/`.

use crate::{redis, run};

pub fn reload(options: &[String]) -> anyhow::Result<()> {
    let server = redis::find_or_install()?;
    run::guests()?;
    let mut reload = run::cargo(&["run", "--quiet", "--package", "tidemill-tests", "--bin", "reload", "--"]);
    run::passes(reload.args(options).env("TIDEMILL_REDIS_SERVER", server))
}
