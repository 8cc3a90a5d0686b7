//! `cargo xtask strangers`: sets up and runs the hostile corpus of `tests/strangers/`.

use crate::{redis, run};

pub fn strangers(options: &[String]) -> anyhow::Result<()> {
    let server = redis::find_or_install()?;
    run::guests()?;
    let mut strangers = run::cargo(&["run", "--quiet", "--package", "tidemill-tests", "--bin", "strangers", "--"]);
    run::passes(strangers.args(options).env("TIDEMILL_REDIS_SERVER", server))
}
