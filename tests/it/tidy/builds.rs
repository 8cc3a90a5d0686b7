//! Nothing is compiled twice: whatever is built, what is shared has one set of features.

use std::collections::BTreeSet;
use std::process::Command;

use super::source::{none, root};

/// What people build, and what `cargo xtask` builds for them.
const SELECTIONS: [&[&str]; 5] = [
    &["--package", "xtask"],
    &["--package", "tidemill"],
    &["--package", "tidemill", "--package", "tidemill-oracle"],
    &["--package", "tidemill", "--package", "tidemill-chaos"],
    &["--package", "tidemill", "--package", "tidemill-benches"],
];

/// Which packages are built together decides the features of what they share, so that a crate with more features in one
/// selection than in another is compiled for each of them, and all that uses it, wasmtime included.
#[test]
fn one_set_of_features() {
    let all = features(&["--workspace", "--edges", "normal,build,dev"]);
    let mut findings = Vec::new();
    for selection in SELECTIONS {
        for row in features(&[selection, &["--edges", "normal,build"]].concat()).difference(&all) {
            let name = row.split(' ').next().unwrap_or_default();
            let wide: Vec<&str> =
                all.iter().filter(|other| other.split(' ').next() == Some(name)).map(String::as_str).collect();
            findings.push(format!(
                "with {} it is {row}, with the whole workspace {}; name the missing features in Cargo.toml of what is built \
                 alone (`cargo tree --workspace --edges features --invert {name}` says who asks for them)",
                selection.join(" "),
                wide.join(" or ")
            ));
        }
    }
    none("every selection builds the same", &findings);
}

/// `name version [features]` of each package below a selection.
fn features(selection: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p} [{f}]"])
        .args(selection)
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are text");
    // A package that was listed before is marked with (*), and what is a path of ours is of no interest.
    let rows = text.lines().map(|line| line.trim_end_matches(" (*)").replace(" (proc-macro)", ""));
    rows.filter(|row| !row.is_empty() && !row.contains(" (/")).collect()
}
