//! `cargo xtask load`: sets up and runs the load harness of `benches/`, as a release build; `--dev` takes the dev profile.

use crate::{redis, run};

const BINARIES: [&str; 6] = ["build", "--workspace", "--bin", "tidemill", "--bin", "load"];

pub fn load(options: &[String]) -> anyhow::Result<()> {
    let server = redis::find_or_install()?;
    let (dev, options): (Vec<&String>, Vec<&String>) = options.iter().partition(|option| *option == "--dev");
    let profile = if dev.is_empty() { "release" } else { "debug" };
    if dev.is_empty() {
        run::passes(run::cargo(&BINARIES).arg("--release"))?;
        run::plugins(profile)?;
    } else {
        run::guests()?;
    }
    run::passes(run::built(profile, "load").args(options).env("TIDEMILL_REDIS_SERVER", server))
}
