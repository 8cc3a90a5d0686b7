//! `cargo xtask instructions`: sets up and runs the counting of `benches/instructions/`.

use crate::run;

pub fn instructions(options: &[String]) -> anyhow::Result<()> {
    run::guests()?;
    let mut instructions =
        run::cargo(&["run", "--quiet", "--package", "tidemill-benches", "--bin", "instructions", "--"]);
    run::passes(instructions.args(options))
}
