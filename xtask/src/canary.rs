//! `cargo xtask canary`: sets up and runs the measurement of `tests/canary/`.

use crate::{redis, run};

pub fn canary(options: &[String]) -> anyhow::Result<()> {
    let server = redis::find_or_install()?;
    run::guests()?;
    let mut canary = run::cargo(&["run", "--quiet", "--package", "tidemill-tests", "--bin", "canary", "--"]);
    run::passes(canary.args(options).env("TIDEMILL_REDIS_SERVER", server))
}
