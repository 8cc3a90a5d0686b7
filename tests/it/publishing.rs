//! `tidemill publish`, as producers use it: the same file again, a pipe that pauses, a backend that goes, files that are not
//! JSON Lines.

use std::io::Write;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use crate::site::{Site, said};
use serde_json::{Value, json};
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::{World, config};
use uuid::Uuid;

/// No step should take this long, on a busy machine either.
const STEP_MAX: Duration = Duration::from_secs(60);

struct Fixture {
    site: Site,
    world: World,
}

impl Fixture {
    async fn new(url: &str) -> Self {
        let site = Site::new("");
        let file = format!("sqlite:{}", site.path("site.db").display());
        let url = if url == "sqlite::memory:" { &file } else { url };
        let world = World::new(url, "").await;
        let suffix = world.asked.trim_start_matches("asked-").to_owned();
        let schemas = format!("path = \"{}\"", tidemill_testkit::root().join("tests/schemas").display());
        let text = config(url, &tidemill_testkit::guest("mischief"), &suffix, "", "");
        site.write("tidemill.toml", text.replace("path = \"tests/schemas\"", &schemas));
        Self { site, world }
    }

    /// What it counts: published, known already, refused.
    fn publish(&self, text: &str) -> ([u64; 3], Output) {
        self.site.write("events.jsonl", text);
        let output = self.site.run(&["publish", "events.jsonl", "--json"]);
        let counts: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        (["published", "duplicates", "refused"].map(|name| counts[name].as_u64().unwrap()), output)
    }

    /// `publish -`, with a pipe into it.
    fn pipe(&self) -> Child {
        let mut command = self.site.command(&["publish", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    async fn entries(&self) -> usize {
        self.world.backend.entries(&self.world.asked, None, 1000).await.unwrap().len()
    }

    async fn until_there_are(&self, wanted: usize) {
        let give_up = Instant::now() + STEP_MAX;
        while self.entries().await < wanted {
            assert!(Instant::now() < give_up, "{} of {wanted}", self.entries().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// An event without these members.
fn without(members: &[&str]) -> Value {
    let mut event = json!({
        "event_id": Uuid::new_v4(), "event_type": "Test.Thing.Asked", "version": "1", "timestamp": "2026-01-31T12:00:00Z",
        "correlation_id": Uuid::new_v4(), "data": { "do": "ok" },
    });
    members.iter().for_each(|member| _ = event.as_object_mut().unwrap().remove(*member));
    event
}

crate::on_both_backends! {
    /// What was filled in differs each time; it is the same event.
    async fn the_same_file_twice_is_known_already(url: &str) {
        let fixture = Fixture::new(url).await;
        let events = [without(&[]), without(&["timestamp"]), without(&["correlation_id"]), without(&["timestamp", "correlation_id"])];
        let text = events.each_ref().map(Value::to_string).join("\n");
        assert_eq!(fixture.publish(&text).0, [4, 0, 0]);
        assert_eq!(fixture.publish(&text).0, [0, 4, 0]);
        assert_eq!(fixture.publish(&format!("  {}  ", text.replace('\n', " \r\n  "))).0, [0, 4, 0], "white space around it");
        let other = text.replace("\"ok\"", "\"other\"");
        let (counts, output) = fixture.publish(&other);
        assert_eq!(counts, [0, 0, 4], "another event under the same id");
        assert!(said(&output).contains("another event with this event_id"), "{}", said(&output));
        fixture.world.run().await;
        assert_eq!(fixture.world.status().await.committed, 4);
    }

    /// Reaches `LINGER_MAX`.
    async fn what_was_read_is_published_when_the_input_pauses(url: &str) {
        let fixture = Fixture::new(url).await;
        let mut publish = fixture.pipe();
        let mut input = publish.stdin.take().unwrap();
        for count in 1..=3 {
            // The second half of a line comes later.
            let line = format!("{}\n", without(&[]));
            let (first, second) = line.split_at(30);
            input.write_all(first.as_bytes()).unwrap();
            input.flush().unwrap();
            input.write_all(second.as_bytes()).unwrap();
            fixture.until_there_are(count).await;
        }
        drop(input);
        let output = publish.wait_with_output().unwrap();
        assert!(output.status.success() && said(&output).contains("3 published"), "{}", said(&output));
    }

    async fn who_is_interrupted_has_sent_what_was_read(url: &str) {
        let fixture = Fixture::new(url).await;
        let mut publish = fixture.pipe();
        let mut input = publish.stdin.take().unwrap();
        // So that it is known to be up.
        input.write_all(format!("{}\n", without(&[])).as_bytes()).unwrap();
        fixture.until_there_are(1).await;
        let lines: String = (0..200).map(|_| format!("{}\n", without(&[]))).collect();
        input.write_all(lines.as_bytes()).unwrap();
        input.write_all(b"{\"event_id\":").unwrap();
        // Read, and perhaps not sent.
        fixture.until_there_are(2).await;
        std::process::Command::new("kill").args(["-INT", &publish.id().to_string()]).status().unwrap();
        let output = publish.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", said(&output));
        let (text, sent) = (said(&output), fixture.entries().await);
        assert!(text.contains(&format!("{sent} published")) && text.contains(&format!("stopped after line {sent}\n")), "{sent}: {text}");
        drop(input);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_says_what_went_out() {
    let server = RedisServer::start(&["--save", ""]);
    let fixture = Fixture::new(&server.url()).await;
    let mut publish = fixture.pipe();
    let mut input = publish.stdin.take().unwrap();
    input.write_all(format!("{}\nnonsense\n{}\n", without(&[]), without(&[])).as_bytes()).unwrap();
    fixture.until_there_are(2).await;
    server.config_set("maxmemory", "1");
    input.write_all(format!("{}\n", without(&[])).as_bytes()).unwrap();
    drop(input);
    let output = publish.wait_with_output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(
            "error: after 2 published, 0 known already, 1 refused: lines 4 to 4 may have been published or not: "
        ),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_json_lines_gets_a_hint_once() {
    let fixture = Fixture::new("sqlite::memory:").await;
    let hints = |output: &Output| said(output).matches("(hint: one event a line").count();
    let pretty = serde_json::to_string_pretty(&without(&[])).unwrap();
    let (counts, output) = fixture.publish(&pretty);
    assert!(counts[0] == 0 && hints(&output) == 1 && said(&output).contains("line 1: "), "{}", said(&output));
    let (_, output) = fixture.publish(&format!("[{},{}]", without(&[]), without(&[])));
    assert!(said(&output).contains("(hint: one event a line, and no array around them)"), "{}", said(&output));
    let (_, output) = fixture.publish(&format!("{{\"event_id\":1}}\n{}", without(&[])));
    assert_eq!(hints(&output), 0, "{}", said(&output));
}

/// The column is that of the line in the file: neither of `data`, nor of the event with what was filled in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_count_from_the_beginning_of_the_line() {
    let fixture = Fixture::new("sqlite::memory:").await;
    for members in [&[][..], &["event_id", "timestamp", "correlation_id"]] {
        for (in_place, by) in [("\"ok\"", "1e999"), ("\"ok\"", "\"\\ud800\""), ("{\"do\":\"ok\"}", "{\"do\" 1}")] {
            let line = format!("   {}", without(members).to_string().replace(in_place, by));
            let (_, output) = fixture.publish(&line);
            let text = said(&output);
            let column: usize =
                text.split("line 1 column ").nth(1).unwrap().split([' ', '\n', '(']).next().unwrap().parse().unwrap();
            let from = line.find(by).unwrap();
            assert!((from + 1..=from + by.len()).contains(&column), "{column}, {from}: {text}");
        }
    }
}

/// A handler's configuration is text in the end, and so it is from the beginning.
#[test]
fn a_plugins_setting_from_the_environment_is_kept_as_it_is() {
    let text = "[handlers.a-b]\nplugin = \"a.wasm\"\n[handlers.a-b.config]\nkept = 1.10\n";
    for value in ["1.10", "0x1F", "\"abc\"#def", "abc # def", "[1", "true", "", "1e3", "2026-01-31", "a\nb = 2"] {
        let variables = [("TIDEMILL__HANDLERS__A_B__CONFIG__X".to_owned(), value.to_owned())];
        let config = tidemill_config::read::parse(text, "t.toml".as_ref(), "".into(), &variables).unwrap();
        assert_eq!(config.handlers["a-b"].config["x"], value);
    }
    // Elsewhere a value is read as TOML, the whole of it or not at all.
    let variables = [("TIDEMILL__BACKEND__URL".to_owned(), "\"sqlite:a\"#b.db".to_owned())];
    let config = tidemill_config::read::parse(text, "t.toml".as_ref(), "".into(), &variables).unwrap();
    assert_eq!(config.backend.url.expose(), "\"sqlite:a\"#b.db");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_published_into_a_database_that_ends_with_the_command() {
    let fixture = Fixture::new("sqlite::memory:").await;
    fixture.site.write("events.jsonl", without(&[]).to_string());
    let into_memory = |args: &[&str]| {
        fixture.site.run(&[&["--backend", "sqlite::memory:", "publish", "events.jsonl"], args].concat())
    };
    let refused = into_memory(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("hint: give a file"), "{}", said(&refused));
    assert!(into_memory(&["--dry-run"]).status.success());
}
