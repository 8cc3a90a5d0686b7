//! Every example beside the schemas is held against its schema: the valid ones pass, the invalid ones do not.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use tidemill_schema::Registry;
use tidemill_schema::admit::{AdmitOptions, admit};
use tidemill_testkit::root;

fn examples(folder: &Path) -> Vec<(String, Bytes)> {
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |path: std::path::PathBuf| (path.display().to_string(), Bytes::from(fs::read(&path).unwrap()));
    files.map(|file| read(file.unwrap().path())).collect()
}

#[test]
fn examples_are_what_they_claim_to_be() {
    let registry = Registry::load(&root().join("schemas")).unwrap_or_else(|errors| panic!("{errors:?}"));
    let terms = AdmitOptions { wants: &|_, _| true, key: &[], payload_bytes_max: 1 << 20 };
    let (mut valid, mut invalid) = (0, 0);
    for name in registry.names() {
        let folder = root().join("schemas/examples").join(name.to_string());
        for (path, bytes) in examples(&folder.join("valid")) {
            let event =
                admit(&registry, &bytes, &terms).unwrap_or_else(|refusal| panic!("{path} is refused: {refusal:?}"));
            assert_eq!(event.name(), name, "{path}");
            valid += 1;
        }
        for (path, bytes) in examples(&folder.join("invalid")) {
            assert!(admit(&registry, &bytes, &terms).is_err(), "{path} passes");
            invalid += 1;
        }
    }
    assert!(valid >= 16 && invalid >= 40, "{valid} valid and {invalid} invalid examples: are they all there?");
}
