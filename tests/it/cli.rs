//! The command line, as a person or a script meets it: what it prints, where, and its exit codes.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tidemill_testkit::server::RedisServer;

/// A folder with a project in it, as `tidemill init` makes it, with its plugin built.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        let made = project.run(&["init"]);
        assert!(made.status.success(), "{}", text(&made));
        project
    }

    /// As `new`, with the compiled plugin of another one: building takes a while.
    fn built() -> Self {
        static BUILT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let wasm = BUILT.get_or_init(|| {
            let project = Self::new();
            let built = project.run(&["plugin", "build", "plugins"]);
            assert!(built.status.success(), "{}", text(&built));
            std::fs::read(project.path("plugins/dist/order-service.wasm")).unwrap()
        });
        let project = Self::new();
        std::fs::create_dir(project.path("plugins/dist")).unwrap();
        std::fs::write(project.path("plugins/dist/order-service.wasm"), wasm).unwrap();
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        tidemill_testkit::tidemill().args(args).current_dir(self.0.path()).output().unwrap()
    }

    fn edit(&self, from: &str, to: &str) {
        let path = self.path("tidemill.toml");
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(before.contains(from), "{from}");
        std::fs::write(path, before.replace(from, to)).unwrap();
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

#[test]
fn the_first_five_minutes() {
    let project = Project::built();
    let published = project.run(&["publish", "events.jsonl", "--json"]);
    assert_eq!((code(&published), json(&published)["published"].clone()), (2, 2.into()), "{}", text(&published));
    let said = String::from_utf8_lossy(&published.stderr);
    assert!(said.starts_with("line 3: ") && said.contains("/data/amount: -1"), "{said}");
    let run = project.run(&["run", "--until-idle"]);
    assert_eq!(code(&run), 0, "{}", text(&run));
    let status = json(&project.run(&["status", "--json"]));
    let handler = &status["handlers"][0];
    assert_eq!((&handler["committed"], &handler["balanced"]), (&2.into(), &true.into()), "{status}");
    let state = json(&project.run(&["state", "order-service", "--json"]));
    assert_eq!((&state["key"], &state["values"]["orders"]), (&"ada".into(), &2.into()), "{state}");
}

#[test]
fn plugin_build_writes_the_manifest_of_cargo_toml() {
    let line = json(&Project::built().run(&["plugin", "ls", "--json"]));
    assert_eq!((&line["name"], &line["version"]), (&"order-service".into(), &"0.1.0".into()), "{line}");
    assert_eq!((&line["sdk"], &line["refused"]), (&"rust 0.1.0".into(), &Value::Null), "{line}");
    assert_eq!(line["capabilities"][0]["asked"], "Order.Confirmed", "{line}");
}

#[test]
fn init_leaves_what_is_there_alone() {
    let project = Project::new();
    let again = project.run(&["init"]);
    assert_eq!(code(&again), 2);
    assert!(text(&again).contains("holds README.md, .gitignore"), "{}", text(&again));
}

#[test]
fn publishing_twice_finds_duplicates() {
    let project = Project::built();
    let event = r#"{"event_id":"0191d3a0-0000-7000-8000-000000000001","correlation_id":"0191d3a0-0000-7000-8000-000000000001","timestamp":"2026-01-31T12:00:00Z","event_type":"Order.Placed","version":"1","data":{"order_id":1,"customer":"ada","amount":1}}"#;
    std::fs::write(project.path("one.jsonl"), event).unwrap();
    let counts =
        |output: &Output| ["published", "duplicates", "refused"].map(|name| json(output)[name].as_u64().unwrap());
    assert_eq!(counts(&project.run(&["publish", "one.jsonl", "--json"])), [1, 0, 0]);
    assert_eq!(counts(&project.run(&["publish", "one.jsonl", "--json"])), [0, 1, 0]);
    std::fs::write(project.path("one.jsonl"), event.replace("\"ada\"", "\"bob\"")).unwrap();
    let conflict = project.run(&["publish", "one.jsonl", "--json"]);
    assert_eq!((code(&conflict), counts(&conflict)), (2, [0, 0, 1]));
    assert!(text(&conflict).contains("another event with this event_id"), "{}", text(&conflict));
}

#[test]
fn dead_letters_can_be_listed_shown_and_replayed() {
    let project = Project::built();
    project.edit("emit = [\"Order.Confirmed\"]", "emit = []");
    assert_eq!(code(&project.run(&["publish", "events.jsonl"])), 2);
    assert_eq!(code(&project.run(&["run", "--until-idle"])), 0);
    let listed = project.run(&["dead", "ls", "--flat", "--json"]);
    let lines: Vec<Value> =
        String::from_utf8_lossy(&listed.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{}", text(&listed));
    let id = lines[0]["id"].as_str().unwrap();
    let shown = text(&project.run(&["dead", "show", id]));
    assert!(
        shown.contains("rejected: emit: Order.Confirmed.v1 is not among the grants")
            && shown.contains("\"amount\":12.50"),
        "{shown}"
    );
    assert_eq!(code(&project.run(&["dead", "replay", "--all"])), 2, "nobody is there to ask");
    assert_eq!(json(&project.run(&["dead", "replay", "--all", "--dry-run", "--json"]))["found"], 2);
    project.edit("emit = []", "emit = [\"Order.Confirmed\"]");
    assert_eq!(json(&project.run(&["dead", "replay", "--all", "--yes", "--json"]))["replayed"], 2);
    assert_eq!(code(&project.run(&["run", "--until-idle"])), 0);
    assert_eq!(json(&project.run(&["status", "--json"]))["handlers"][0]["committed"], 2);
    assert_eq!(code(&project.run(&["dead", "show", id])), 2);
}

#[test]
fn wrong_configuration_is_refused_with_place_and_hint() {
    for (from, to, said) in [
        (
            "url = \"sqlite:tidemill.db\"",
            "ulr = \"x\"",
            "tidemill.toml:2: unknown key \"ulr\"\n  hint: did you mean \"url\"?",
        ),
        (
            "events = [\"Order.Placed\"]",
            "events = [\"Order.Plced\"]",
            "\"Order.Plced\" has no schema\n  hint: did you mean \"Order.Placed\"?",
        ),
        ("state = true", "state = 1", "tidemill.toml:16: invalid type"),
        (
            "[backend]",
            "[routing]\n\"Order.Placed\" = [\"nobody\"]\n[backend]",
            "tidemill.toml:2: routing.\"Order.Placed\": service \"nobody\" has no handler",
        ),
        ("state = true", "", "asks for capability \"state\", which is not granted"),
        ("order-service.wasm", "other.wasm", "other.wasm: No such file or directory"),
    ] {
        let project = Project::built();
        project.edit(from, to);
        for command in [&["config", "check"][..], &["run", "--until-idle"]] {
            let output = project.run(command);
            assert!(text(&output).contains(said), "wanted {said}\n found {}", text(&output));
            assert_eq!(code(&output), 2);
        }
    }
}

#[test]
fn a_busy_port_is_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let project = Project::built();
    project.edit("[schemas]", &format!("[http]\nlisten = \"{}\"\n[schemas]", taken.local_addr().unwrap()));
    let output = project.run(&["run", "--until-idle"]);
    assert_eq!(code(&output), 1);
    assert!(
        text(&output).contains("cannot listen on 127.0.0.1:") && text(&output).contains("another program has the port"),
        "{}",
        text(&output)
    );
}

#[test]
fn an_absent_redis_is_waited_for_and_then_one_clear_line() {
    let project = Project::built();
    let output = project.run(&["status", "--backend", "redis://127.0.0.1:1"]);
    assert_eq!(code(&output), 1);
    let said = text(&output);
    assert!(said.contains("error: ") && said.contains("127.0.0.1:1") && said.contains("onnection refused"), "{said}");
}

#[test]
fn an_evicting_redis_is_refused() {
    let server = RedisServer::start(&["--save", "", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let output = Project::built().run(&["status", "--backend", &server.url()]);
    assert_ne!(code(&output), 0);
    assert!(text(&output).contains("noeviction"), "{}", text(&output));
}

#[test]
fn environment_variables_lie_over_the_file() {
    let project = Project::built();
    let elsewhere = project.path("elsewhere.db");
    let output = tidemill_testkit::tidemill()
        .args(["publish", "events.jsonl"])
        .current_dir(project.0.path())
        .env("TIDEMILL__BACKEND__URL", format!("sqlite:{}", elsewhere.display()))
        .output()
        .unwrap();
    assert_eq!((code(&output), elsewhere.exists(), project.path("tidemill.db").exists()), (2, true, false));
}

#[test]
fn a_small_demo_accounts_for_every_event_on_both_backends() {
    for redis in [None, Some(RedisServer::start(&["--save", ""]))] {
        let folder = tempfile::tempdir().unwrap();
        let shop = shop(folder.path());
        let mut command = tidemill_testkit::tidemill();
        command.args(["demo", "--events", "1500", "--seed", "7", "--json", "--config"]).arg(shop);
        if let Some(server) = &redis {
            command.args(["--redis", &server.url()]);
        }
        let output = command.output().unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output));
        let report = json(&output);
        assert_eq!(report["differences"], serde_json::json!([]));
        assert!(report["handlers"].as_array().unwrap().iter().all(|handler| handler["balanced"] == true), "{report}");
    }
}

/// The shop of the repository, with its files in a folder of its own.
fn shop(folder: &Path) -> PathBuf {
    let root = tidemill_testkit::root();
    let text = std::fs::read_to_string(root.join("tidemill.toml")).unwrap();
    let text = text
        .replace("plugins/dist", &root.join("plugins/dist").display().to_string())
        .replace("path = \"schemas\"", &format!("path = \"{}\"", root.join("schemas").display()));
    let file = folder.join("tidemill.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn completions_are_printed() {
    let output = tidemill_testkit::tidemill().args(["completions", "bash"]).output().unwrap();
    assert!(output.status.success() && text(&output).contains("_tidemill()"));
}
