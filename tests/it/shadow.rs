//! `tidemill plugin shadow`: what would be different with another version, found out without any effect.

use std::process::Output;

use serde_json::{Value, json};
use tidemill_testkit::beside::{ask, world};
use tidemill_testkit::world::World;
use tidemill_testkit::{edition, guest, tidemill};

/// A world whose backend another process can open, with its configuration in a file.
struct Shadowed {
    world: World,
    folder: tempfile::TempDir,
}

impl Shadowed {
    async fn new(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match url {
            "sqlite::memory:" => format!("sqlite:{}", folder.path().join("tidemill.db").display()),
            url => url.to_owned(),
        };
        let world = world(&url, "").await;
        let suffix = world.asked.strip_prefix("asked-").unwrap();
        let text = tidemill_testkit::world::config(&url, &guest("editions"), suffix, "", "");
        let text = text.replace("tests/schemas", &tidemill_testkit::root().join("tests/schemas").display().to_string());
        std::fs::write(folder.path().join("tidemill.toml"), text).unwrap();
        Self { world, folder }
    }

    fn run(&self, args: &[&str]) -> Output {
        let (file, all) = (self.folder.path().join("tidemill.toml"), ["plugin", "shadow"]);
        tidemill().args(all).args(args).arg("--config").arg(file).output().unwrap()
    }

    fn json(&self, edition: &std::path::Path, more: &[&str]) -> (i32, Value) {
        let output = self.run(&[&["mischief", "--json", "--plugin", &edition.display().to_string()], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or(json!(said)))
    }
}

crate::on_both_backends! {
    async fn shadow_shows_what_would_be_different_and_changes_nothing(url: &str) {
        let shadowed = Shadowed::new(url).await;
        let world = &shadowed.world;
        ask(world, 100, 10).await;
        world.run().await;
        let looks = async || {
            (world.status().await.committed, world.emitted().await.len(), world.backend.states(&world.subscription, None, 100).await.unwrap())
        };
        let before = looks().await;
        let rows = [
            ("same", 0, 0, json!({ "outcome": 0, "emits": 0, "writes": 0, "timers": 0 })),
            ("emit", 1, 100, json!({ "outcome": 0, "emits": 100, "writes": 0, "timers": 0 })),
            ("stat", 1, 100, json!({ "outcome": 0, "emits": 0, "writes": 100, "timers": 0 })),
            ("trap", 1, 100, json!({ "outcome": 100, "emits": 0, "writes": 0, "timers": 0 })),
        ];
        for (name, code, different, kinds) in rows {
            let (exit, said) = shadowed.json(&edition(name), &[]);
            assert_eq!((exit, &said["different"], &said["by_kind"]), (code, &json!(different), &kinds), "{name}: {said}");
            assert_eq!((&said["events"], &said["same"]), (&json!(100), &json!(100 - different)), "{name}");
            assert_eq!(said["differences"].as_array().unwrap().len(), different.min(10), "{name}");
        }
        assert_eq!(looks().await, before);
    }

    async fn the_state_goes_on_from_what_it_is_for_each_version_apart(url: &str) {
        let shadowed = Shadowed::new(url).await;
        let world = &shadowed.world;
        ask(world, 3, 1).await;
        world.run().await;
        let (_, said) = shadowed.json(&edition("stat"), &[]);
        let written = |side: &str| -> Vec<u64> {
            let all = said["differences"].as_array().unwrap().iter();
            all.map(|difference| difference[side]["writes"]["n"].as_u64().unwrap()).collect()
        };
        assert_eq!((written("current"), written("candidate")), (vec![4, 5, 6], vec![5, 7, 9]));
        // A version that fails writes nothing: its state stands still.
        let (_, said) = shadowed.json(&edition("some"), &[]);
        assert_eq!((&said["different"], &said["by_kind"]["writes"]), (&json!(3), &json!(2)), "{said}");
    }

    async fn only_the_last_entries_are_run_and_each_event_once(url: &str) {
        let shadowed = Shadowed::new(url).await;
        let world = &shadowed.world;
        ask(world, 120, 120).await;
        world.put("nonsense").await;
        let repeated = tidemill_testkit::world::event(uuid::Uuid::new_v4(), json!({ "do": "", "n": 5, "key": "k" })).to_string();
        world.put(repeated.clone()).await;
        world.put(repeated).await;
        let (exit, said) = shadowed.json(&edition("some"), &["--last", "8"]);
        // Entries 115 to 119, nonsense, the event and its repetition: n is 230, 232, 234, 236, 238, and 5.
        assert_eq!((exit, &said["events"], &said["skipped"], &said["different"]), (1, &json!(6), &json!(2), &json!(2)), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_shadowed_is_refused() {
    let shadowed = Shadowed::new("sqlite::memory:").await;
    let same = guest("editions").display().to_string();
    for (args, said) in [
        (vec!["stranger", "--plugin", &same], "stranger"),
        (vec!["mischief", "--plugin", "nowhere.wasm"], "nowhere.wasm"),
        (vec!["mischief", "--plugin", &same, "--stream", "other"], "reads no stream \"other\""),
    ] {
        let output = shadowed.run(&args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
    let output = shadowed.run(&["mischief", "--plugin", &same]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.starts_with("0 events: 0 the same, 0 different"), "{text}");
}
