//! `cargo xtask load`: sets up and runs the load harness of `benches/`.

use crate::{redis, run};

pub fn load(options: &[String]) -> anyhow::Result<()> {
    let server = redis::find_or_install()?;
    run::guests()?;
    let mut load = run::cargo(&["run", "--quiet", "--package", "tidemill-benches", "--bin", "load", "--"]);
    run::passes(load.args(options).env("TIDEMILL_REDIS_SERVER", server))
}
