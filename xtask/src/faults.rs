//! `cargo xtask faults`: sets up and runs the soak of `tests/soak/`.

use crate::{redis, run};

pub fn faults(options: &[String]) -> anyhow::Result<()> {
    let server = redis::find_or_install()?;
    run::guests()?;
    let mut faults = run::cargo(&["run", "--quiet", "--package", "tidemill-tests", "--bin", "faults", "--"]);
    run::passes(faults.args(options).env("TIDEMILL_REDIS_SERVER", server))
}
