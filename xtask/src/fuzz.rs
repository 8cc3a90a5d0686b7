//! `cargo xtask fuzz`: sets up and runs the fuzzer of `tests/fuzz/`.

use crate::run;

pub fn fuzz(options: &[String]) -> anyhow::Result<()> {
    run::guests()?;
    let mut fuzz = run::cargo(&["run", "--quiet", "--package", "tidemill-tests", "--bin", "fuzz", "--"]);
    run::passes(fuzz.args(options))
}
