//! Whose plugin is it, what does it ask for, and which version is it of: told before any of it runs.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use tidemill_config::read;
use tidemill_runtime::build;
use tidemill_sandbox::component::manifest::{Manifest, RequestedPermissions, stamp};
use tidemill_sandbox::component::trust::Trust;
use tidemill_testkit::world::{self, NO_RETRY, World};
use tidemill_testkit::{guest, root, tidemill};

/// Plugins that were compiled with old versions of the interfaces, a folder each.
const CORPUS: &str = "tests/it/corpus";

fn corpus(version: &str, name: &str) -> PathBuf {
    root().join(CORPUS).join(version).join(format!("{name}.wasm"))
}

/// Loads a plugin with these keys of its handler and of `[plugins]`; whose key it is signed with, or the refusal.
fn load(plugin: &Path, handler: &str, keys: &str) -> Result<Option<PathBuf>, String> {
    let text = world::config("sqlite::memory:", plugin, "x", handler, &format!("[plugins]\n{keys}"));
    let config = read::parse(&text, "plugins.toml".as_ref(), root(), &[]).map_err(|error| error.to_string())?;
    let checked = build::check(&config).map_err(|error| error.to_string())?;
    let plugins = build::plugins(&config, &checked).map_err(|error| error.to_string())?;
    Ok(plugins.all[0].origin.signed_by.clone())
}

/// A folder with a plugin, and keys to sign it with.
struct Signing {
    folder: tempfile::TempDir,
    keys: [minisign::KeyPair; 2],
}

impl Signing {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(guest("mischief"), folder.path().join("plugin.wasm")).unwrap();
        let keys = [0, 1].map(|_| minisign::KeyPair::generate_unencrypted_keypair().unwrap());
        for (number, pair) in keys.iter().enumerate() {
            let text = pair.pk.to_box().unwrap().to_string();
            std::fs::write(folder.path().join(format!("{number}.pub")), text).unwrap();
        }
        Self { folder, keys }
    }

    fn plugin(&self) -> PathBuf {
        self.folder.path().join("plugin.wasm")
    }

    fn key(&self, number: usize) -> String {
        self.folder.path().join(format!("{number}.pub")).display().to_string()
    }

    fn sign(&self, number: usize) {
        let wasm = std::fs::read(self.plugin()).unwrap();
        let pair = &self.keys[number];
        let signature = minisign::sign(Some(&pair.pk), &pair.sk, std::io::Cursor::new(wasm), None, None).unwrap();
        std::fs::write(self.folder.path().join("plugin.wasm.minisig"), signature.to_string()).unwrap();
    }
}

#[test]
fn a_signature_by_one_of_the_keys_is_good_and_every_other_is_refused() {
    let signing = Signing::new();
    let keys = format!("keys = [\"{}\", \"{}\"]", signing.key(0), signing.key(1));
    let first = format!("keys = [\"{}\"]", signing.key(0));
    signing.sign(1);
    assert_eq!(load(&signing.plugin(), "", &keys), Ok(Some(signing.key(1).into())));
    let refused = load(&signing.plugin(), "", &first).unwrap_err();
    assert!(
        refused.contains("none of the keys has made it for these bytes") && refused.contains("hint: "),
        "{refused}"
    );
    let mut wasm = std::fs::read(signing.plugin()).unwrap();
    wasm.push(0);
    std::fs::write(signing.plugin(), wasm).unwrap();
    assert!(
        load(&signing.plugin(), "", &keys).unwrap_err().contains("none of the keys"),
        "changed after it was signed"
    );
    std::fs::write(signing.folder.path().join("plugin.wasm.minisig"), "nonsense").unwrap();
    assert!(load(&signing.plugin(), "", &keys).unwrap_err().contains("it cannot be read"));
}

#[test]
fn require_signature_refuses_what_has_none() {
    let signing = Signing::new();
    let keys = format!("keys = [\"{}\"]", signing.key(0));
    assert_eq!(load(&signing.plugin(), "", &keys), Ok(None), "not required");
    let required = format!("{keys}\nrequire_signature = true");
    let refused = load(&signing.plugin(), "", &required).unwrap_err();
    assert!(refused.contains("it needs a signature") && refused.contains("minisign -S"), "{refused}");
    signing.sign(0);
    assert_eq!(load(&signing.plugin(), "", &required), Ok(Some(signing.key(0).into())));
    let refused = load(&signing.plugin(), "", "require_signature = true").unwrap_err();
    assert!(refused.contains("plugins.require_signature: there is no key to check with"), "{refused}");
    let refused = load(&signing.plugin(), "", "keys = [\"no/such.pub\"]").unwrap_err();
    assert!(refused.contains("cannot use the key") && refused.contains("no/such.pub"), "{refused}");
}

#[test]
fn a_pinned_digest_takes_one_file_and_no_other() {
    let signing = Signing::new();
    let found = load(&signing.plugin(), &format!("digest = \"sha256:{}\"", "0".repeat(64)), "").unwrap_err();
    let digest = found.split("has the digest ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    assert!(digest.len() == 71 && found.contains(&format!("write `digest = \"{digest}\"`")), "{found}");
    let pin = format!("digest = \"{digest}\"");
    assert_eq!(load(&signing.plugin(), &pin, ""), Ok(None));
    let mut wasm = std::fs::read(signing.plugin()).unwrap();
    wasm.extend_from_slice(b"\0\x02\x01x");
    std::fs::write(signing.plugin(), wasm).unwrap();
    assert!(load(&signing.plugin(), &pin, "").unwrap_err().contains("pinned is"), "an empty custom section more");
    for pin in ["sha256:12", "md5:00", &digest.to_uppercase()] {
        let refused = load(&signing.plugin(), &format!("digest = \"{pin}\""), "").unwrap_err();
        assert!(refused.contains("handlers.mischief.digest: not a digest"), "{refused}");
    }
}

/// `mischief` with a manifest that asks for this.
fn asking(folder: &Path, permissions: RequestedPermissions) -> PathBuf {
    let path = folder.join("mischief.wasm");
    let manifest =
        Manifest { name: Some("mischief".to_owned()), permissions: Some(permissions), ..Manifest::default() };
    std::fs::write(&path, stamp(&std::fs::read(guest("mischief")).unwrap(), &manifest).unwrap()).unwrap();
    path
}

#[test]
fn an_import_that_the_manifest_does_not_ask_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused =
        load(&asking(folder.path(), RequestedPermissions { state: true, ..RequestedPermissions::default() }), "", "")
            .unwrap_err();
    assert!(refused.contains("imports tidemill:plugin/emit, and its manifest does not ask for \"emit\""), "{refused}");
    let permissions =
        RequestedPermissions { state: true, timer: true, emit: Some(Vec::new()), ..RequestedPermissions::default() };
    assert_eq!(load(&asking(folder.path(), permissions), "", ""), Ok(None), "an empty list asks for the interface");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_the_manifest_does_not_ask_for_is_refused_though_it_is_granted() {
    let folder = tempfile::tempdir().unwrap();
    for (asked, commits) in [("Test.Other.*", false), ("Test.Thing.*", true)] {
        let permissions = RequestedPermissions {
            state: true,
            timer: true,
            emit: Some(vec![asked.to_owned()]),
            ..RequestedPermissions::default()
        };
        let world = World::of(&asking(folder.path(), permissions), "sqlite::memory:", NO_RETRY, "").await;
        world.ask(json!({ "do": "emit-many", "count": 1, "stubborn": true })).await;
        world.run().await;
        assert_eq!((world.status().await.committed, world.emitted().await.len()), (commits.into(), commits.into()));
        if !commits {
            let (_, said) = world.only_dead().await;
            assert!(said.contains("Test.Thing.Done.v1 is not in the plugin's manifest"), "{said}");
        }
    }
}

// ---- versions

#[test]
fn the_interfaces_of_0_1_0_are_frozen() {
    let path = root().join("wit/0.1.0/handler.wit");
    let origin = Trust::default().check(&path, &std::fs::read(&path).unwrap(), None, "wit").unwrap();
    assert_eq!(
        origin.sha256, "b2d793a617917845e7d07d2f15a3a32d1a5983f6fdaafcb2a0faf937731dcbef",
        "add a folder instead"
    );
    assert_eq!(std::fs::read_dir(root().join("wit/0.1.0")).unwrap().count(), 1);
}

/// The blocks of a WIT file without comments and spaces: `interface emit` -> its items. An item ends with `;` or `}`.
fn blocks(version: &str) -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(root().join("wit").join(version).join("handler.wit")).unwrap();
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + " ").collect();
    let (mut found, mut name, mut item, mut depth) = (Vec::new(), String::new(), String::new(), 0);
    for c in code.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match (c, depth) {
            ('{', 1) => found.push((std::mem::take(&mut name).trim().to_owned(), Vec::new())),
            ('}', 0) => item.clear(),
            (_, 0) if c == ';' => name.clear(),
            (_, 0) => name.push(c),
            _ => {
                item.extend((!c.is_whitespace()).then_some(c));
                if depth == 1 && (c == ';' || c == '}') {
                    // `use types.{event};`: the brace ends nothing.
                    if c == ';' || !item.starts_with("use") {
                        found.last_mut().unwrap().1.push(std::mem::take(&mut item));
                    }
                }
            }
        }
    }
    found
}

/// What is exported or a type has to stay as it is; an imported interface may get more functions.
#[test]
fn a_newer_version_of_a_line_only_adds() {
    let mut versions: Vec<String> = std::fs::read_dir(root().join("wit")).unwrap().map(name_of).collect();
    versions.sort();
    assert_eq!(versions, tidemill_sandbox::abi::VERSIONS, "each folder is a version that the host speaks");
    for pair in versions.windows(2) {
        let (old, new) = (blocks(&pair[0]), blocks(&pair[1]));
        assert!(old.len() >= 8, "{old:?}");
        for (name, items) in &old {
            let now = &new.iter().find(|(other, _)| other == name).unwrap_or_else(|| panic!("{name} is gone")).1;
            let same = ["interface types", "interface handler"].contains(&name.as_str());
            assert!(!same || now == items, "{name} has changed:\n{items:#?}\n{now:#?}");
            for item in items {
                assert!(now.contains(item), "{name}: {item} is gone or changed in {}", pair[1]);
            }
        }
    }
}

fn name_of(entry: std::io::Result<std::fs::DirEntry>) -> String {
    entry.unwrap().file_name().to_string_lossy().into_owned()
}

/// The corpus was compiled before there was a later version, and must run for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_of_old_versions_run() {
    for version in std::fs::read_dir(root().join(CORPUS)).unwrap().map(name_of) {
        let world = World::of(&corpus(&version, "mischief"), "sqlite::memory:", NO_RETRY, "").await;
        for data in [json!({ "do": "emit-many", "count": 2 }), json!({ "do": "reject" })] {
            world.ask(data).await;
        }
        for _ in 0..3 {
            world.ask(json!({ "do": "state-count", "key": "k" })).await;
        }
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.committed, world.emitted().await.len()), (4, 2), "{version}");
        assert_eq!(world.count("k").await, Some(3.into()), "{version}");
        assert_eq!(world.only_dead().await.1, "rejected: as told", "{version}");
    }
}

#[test]
fn the_shop_runs_with_services_of_0_1_0() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(root().join("tidemill.toml")).unwrap();
    let mut text = text.replace("path = \"schemas\"", &format!("path = \"{}\"", root().join("schemas").display()));
    for name in ["payment-service", "inventory-service"] {
        let old = corpus("0.1.0", name).display().to_string();
        text = text.replace(&format!("plugins/dist/{name}.wasm"), &old);
    }
    let text = text.replace("\"plugins/dist", &format!("\"{}", root().join("plugins/dist").display()));
    let file = folder.path().join("tidemill.toml");
    std::fs::write(&file, text).unwrap();
    let output =
        tidemill().args(["demo", "--events", "300", "--seed", "7", "--json", "--config"]).arg(file).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["differences"], json!([]), "{report}");
}

// ---- the commands

/// Runs a command in a folder with `plugin.wasm` (the corpus's payment service) and a configuration for it.
struct Shelf(tempfile::TempDir);

impl Shelf {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(corpus("0.1.0", "payment-service"), folder.path().join("plugin.wasm")).unwrap();
        let text = format!(
            "[schemas]\npath = \"{}\"\n[streams.s]\nevents = [\"*\"]\n[handlers.pay]\nplugin = \"plugin.wasm\"\n\
             events = [\"Order.Created\"]\n[handlers.pay.grants]\nemit = [\"Payment.*\"]\nstate = true\n",
            root().join("schemas").display()
        );
        std::fs::write(folder.path().join("tidemill.toml"), text).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, Output) {
        let output = tidemill().args(args).current_dir(self.0.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said, output)
    }
}

#[test]
fn plugin_ls_shows_asked_and_granted_side_by_side() {
    let shelf = Shelf::new();
    let (code, said, _) = shelf.run(&["plugin", "ls"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("pay: plugin.wasm\n  (no manifest), 69 621 bytes, sha256:"), "{said}");
    assert!(said.contains("wit 0.1.0, no signature checked\n"), "{said}");
    let words: Vec<&str> = said.split_whitespace().collect();
    let rows = "capability asked granted emit any (no manifest says less) Payment.* state no yes";
    assert!(words.join(" ").ends_with(rows), "{said}");
    shelf.write("m.toml", "name = \"pay\"\nversion = \"1.2.3\"\n[permissions]\nemit = [\"Payment.Order.Paid\"]\n");
    assert_eq!(shelf.run(&["plugin", "stamp", "plugin.wasm", "--manifest", "m.toml"]).0, Some(0));
    let (_, _, output) = shelf.run(&["plugin", "ls", "--json"]);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&line["name"], &line["version"], &line["wit"]), (&"pay".into(), &"1.2.3".into(), &"0.1.0".into()));
    let emit = json!({ "capability": "emit", "asked": "Payment.Order.Paid", "granted": "Payment.*" });
    assert_eq!((&line["capabilities"][0], &line["refused"]), (&emit, &Value::Null), "{line}");
    shelf.write("m.toml", "[permissions]\nstate = true\n");
    assert_eq!(shelf.run(&["plugin", "stamp", "plugin.wasm", "--manifest", "m.toml"]).0, Some(0));
    let (code, said, _) = shelf.run(&["plugin", "ls"]);
    assert!(code == Some(2) && said.contains("refused: ") && said.contains("does not ask for \"emit\""), "{said}");
}

#[test]
fn plugin_check_says_what_a_component_is_or_why_it_is_refused() {
    let shelf = Shelf::new();
    let (code, said, _) = shelf.run(&["plugin", "check", "plugin.wasm"]);
    assert!(code == Some(0) && said.starts_with("good: (no manifest), 69 621 bytes"), "{said}");
    assert!(said.contains("exports tidemill:plugin/handler@0.1.0") && said.contains("compiled in "), "{said}");
    let (_, _, output) = shelf.run(&["plugin", "check", "plugin.wasm", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["ok"] == true && value["compile_ms"].as_u64() > Some(0) && value["memories"] == 1, "{value}");
    shelf.write("text.wasm", "hello");
    let (code, said, _) = shelf.run(&["plugin", "check", "text.wasm"]);
    assert!(code == Some(2) && said.contains("is not a WebAssembly component"), "{said}");
    shelf.write("tidemill.toml", "[plugins]\ncompile_wall = \"1ms\"\n");
    let (code, said, _) = shelf.run(&["plugin", "check", "plugin.wasm"]);
    assert!(code == Some(2) && said.contains("compiling it took longer than 1ms"), "{said}");
}

#[test]
fn plugin_stamp_refuses_what_is_no_manifest() {
    let shelf = Shelf::new();
    let before = std::fs::read(shelf.0.path().join("plugin.wasm")).unwrap();
    for (text, refused) in [
        ("nmae = \"pay\"", "m.toml: unknown keys: nmae"),
        ("[permissions]\nemit = [\"a b\"]", "m.toml: permissions.emit: "),
        ("name = 1", "m.toml: invalid type"),
    ] {
        shelf.write("m.toml", text);
        let (code, said, _) = shelf.run(&["plugin", "stamp", "plugin.wasm", "--manifest", "m.toml"]);
        assert!(code == Some(2) && said.contains(refused), "wanted {refused}\n found {said}");
    }
    assert_eq!(std::fs::read(shelf.0.path().join("plugin.wasm")).unwrap(), before);
}
