//! Dead letters on the command line: looked at in groups, replayed, edited, dropped and exported; pausing; and the
//! record of who did what.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_core::model::dead_letter::{Reason, ReasonClass};
use tidemill_core::model::delivery::{Body, Disposition, Replayed};
use tidemill_storage::{AUDIT_IDS_MAX, NewEntry, Operator, Settlement, SettlementEntry, Start};
use tidemill_testkit::world::{NO_RETRY, World, config, event};
use uuid::Uuid;

const EDIT: &str = "[dead_letters]\nedit = true";

/// A world whose configuration is a file, too: for commands that are processes of their own.
struct Fixture {
    folder: tempfile::TempDir,
    world: World,
}

impl Fixture {
    async fn new(url: &str, tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Another process cannot look into our memory.
        let file = format!("sqlite:{}", folder.path().join("dead.db").display());
        let url = if url == "sqlite::memory:" { &file } else { url };
        let world = World::with(url, NO_RETRY, tables).await;
        let suffix = world.asked.trim_start_matches("asked-").to_owned();
        let schemas = format!("path = \"{}\"", tidemill_testkit::root().join("tests/schemas").display());
        let text = config(url, &tidemill_testkit::guest("mischief"), &suffix, NO_RETRY, tables)
            .replace("path = \"tests/schemas\"", &schemas);
        std::fs::write(folder.path().join("tidemill.toml"), text).unwrap();
        Self { folder, world }
    }

    /// Asks for these one after the other, and lets the plugin handle them.
    async fn ask(&self, all: &[Value]) {
        for data in all {
            self.world.ask(data.clone()).await;
        }
        self.world.run().await;
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = tidemill_testkit::tidemill();
        command.args(args).current_dir(self.folder.path()).env("USER", "ada").env("HOSTNAME", "console");
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command that goes well prints: JSON Lines.
    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let output = self.run(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{text}"))).collect()
    }

    fn line(&self, args: &[&str]) -> Value {
        self.lines(args).remove(0)
    }

    async fn ids(&self) -> Vec<String> {
        let (subscription, letters) = (&self.world.subscription, self.world.dead().await);
        letters.iter().map(|letter| format!("{}/{}/{}", subscription.handler, subscription.stream, letter.id)).collect()
    }

    /// Refused: exit code 2, and these words.
    fn refuses(&self, args: &[&str], words: &str) {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{args:?}\nwanted {words}\n found {}", said(&output));
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn reject() -> Value {
    json!({ "do": "reject" })
}

crate::on_both_backends! {
    async fn letters_of_one_cause_are_one_group(url: &str) {
        let fixture = Fixture::new(url, "").await;
        fixture.world.put("nonsense").await;
        fixture.ask(&[json!({ "do": 1 }), json!({ "do": 2.5 }), json!({ "do": 300 }), reject(), reject()]).await;
        let groups = fixture.lines(&["dead", "ls"]);
        let counts: Vec<_> = groups.iter().map(|group| (&group["reason"], &group["count"])).collect();
        assert_eq!(counts, [(&json!("invalid"), &json!(3)), (&json!("rejected"), &json!(2)), (&json!("undecodable"), &json!(1))]);
        let ids = fixture.ids().await;
        let invalid = &groups[0];
        assert_eq!((&invalid["handler"], &invalid["example"]), (&json!("mischief"), &json!(ids[3])));
        assert!(invalid["text"].as_str().unwrap().starts_with("/data/do: 300 is not") && invalid["first_ms"].as_u64() <= invalid["last_ms"].as_u64());
        let table = said(&fixture.run(&["dead", "ls"]));
        assert!(table.lines().count() == 4 && table.contains(invalid["fingerprint"].as_str().unwrap()), "{table}");

        let flat = |args: &[&str]| -> Vec<String> {
            let lines = fixture.lines(&[&["dead", "ls", "--flat"], args].concat());
            lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(flat(&[]), ids);
        assert_eq!(flat(&["--fingerprint", invalid["fingerprint"].as_str().unwrap()]), ids[1..4]);
        assert_eq!(flat(&["--reason", "rejected"]), ids[4..]);
        assert_eq!(flat(&["--reason", "rejected", "--fingerprint", "00000000"]).len(), 0);
        assert_eq!(flat(&["--type", "Test.Thing.Asked"]), ids[1..]);
        assert_eq!((flat(&["--since", "1h"]).len(), flat(&["--until", "1h"]).len()), (6, 0));
        assert_eq!(flat(&["--until", "2100-01-01T00:00:00Z", "--since", "2020-01-01T00:00:00Z"]).len(), 6);
        assert_eq!(flat(&[&ids[2], &ids[0], &ids[2]]), [ids[2].clone(), ids[0].clone()]);
        assert_eq!(flat(&["--limit", "2"]).len(), 2);
        fixture.refuses(&["dead", "ls", "--handler", "stranger"], "there is no handler \"stranger\"\n  hint: mischief");
        fixture.refuses(&["dead", "ls", "--reason", "sad"], "hint: undecodable, invalid");
        fixture.refuses(&["dead", "ls", "--since", "yesterday"], "--since yesterday: not a time");
        fixture.refuses(&["dead", "ls", "mischief/nowhere/1-0"], "is not a dead letter");
    }

    async fn a_dry_run_changes_nothing(url: &str) {
        let fixture = Fixture::new(url, "").await;
        fixture.ask(&[reject(), reject()]).await;
        let before = fixture.world.dead().await;
        assert_eq!(fixture.line(&["dead", "replay", "--all", "--dry-run"]), json!({ "found": 2, "replayed": 0 }));
        assert_eq!(fixture.line(&["dead", "drop", "--reason", "rejected", "--dry-run"]), json!({ "found": 2, "dropped": 0 }));
        for verb in ["replay", "drop"] {
            fixture.refuses(&["dead", verb, "--all"], "nobody is there to ask");
            fixture.refuses(&["dead", verb, "--yes"], "name dead letters or a filter");
        }
        assert_eq!(fixture.world.dead().await, before);
        assert!(fixture.lines(&["dead", "audit"]).is_empty());
    }

    async fn a_bulk_replay_goes_by_its_filter_and_leaves_a_record(url: &str) {
        let fixture = Fixture::new(url, "").await;
        let count = AUDIT_IDS_MAX + 50;
        let rejected: Vec<NewEntry> = (0..count).map(|_| NewEntry { body: event(Uuid::new_v4(), reject()).to_string().into(), dedup_key: None }).collect();
        fixture.world.backend.publish(&fixture.world.asked, &rejected).await.unwrap();
        fixture.ask(&[json!({ "do": 1 })]).await;
        let output = fixture.run(&["dead", "replay", "--reason", "rejected", "--yes", "--rate", "1000"]);
        assert!(said(&output).contains("150 dead letters") && said(&output).contains("150 replayed"), "{}", said(&output));
        let status = fixture.world.status().await;
        assert_eq!((status.dead, status.redelivery), (1, count as u64));
        let records = fixture.lines(&["dead", "audit"]);
        assert_eq!(records.iter().map(|record| record["count"].as_u64().unwrap()).sum::<u64>(), count as u64);
        for record in &records {
            let words = ["who", "verb", "note", "handler"].map(|name| record[name].as_str().unwrap());
            assert_eq!(words, ["ada@console", "replay", "reason=rejected", "mischief"]);
            assert!(record["ids"].as_array().unwrap().len() <= AUDIT_IDS_MAX);
        }
        // Those die again while they are replayed, but each is replayed once.
        fixture.world.run().await;
        assert_eq!(fixture.line(&["dead", "replay", "--all", "--yes", "--rate", "0"])["replayed"], count + 1);
    }

    /// Reaches `AUDIT_IDS_MAX`.
    async fn an_audit_record_names_the_first_letters_of_many(url: &str) {
        let fixture = Fixture::new(url, "").await;
        let rejected: Vec<NewEntry> = (0..AUDIT_IDS_MAX + 20).map(|_| NewEntry { body: event(Uuid::new_v4(), reject()).to_string().into(), dedup_key: None }).collect();
        fixture.world.backend.publish(&fixture.world.asked, &rejected).await.unwrap();
        fixture.world.run().await;
        let ids: Vec<_> = fixture.world.dead().await.iter().map(|letter| letter.id).collect();
        let (backend, subscription) = (&fixture.world.backend, &fixture.world.subscription);
        assert_eq!(backend.drop_dead(subscription, &ids, &Operator::default()).await.unwrap(), ids.len());
        let records = backend.audit(subscription, None, 10).await.unwrap();
        assert_eq!((records[0].count, &records[0].ids[..]), (ids.len() as u64, &ids[..AUDIT_IDS_MAX]));
    }

    /// Row 49 of the faults.
    async fn replay_one_bulk_twice_in_parallel_and_edited(url: &str) {
        let fixture = Fixture::new(url, EDIT).await;
        fixture.ask(&[reject(), reject(), reject()]).await;
        let ids = fixture.ids().await;
        assert_eq!(fixture.line(&["dead", "replay", &ids[0], "--yes"])["replayed"], 1);
        assert_eq!(fixture.line(&["dead", "replay", &ids[0], "--yes"])["replayed"], 0, "it is gone");
        fixture.world.run().await;
        let letters = fixture.world.dead().await;
        let link = Replayed { letter: ids[0].rsplit_once('/').unwrap().1.parse().unwrap(), times: 1 };
        assert_eq!((letters.len(), letters[2].replayed), (3, Some(link)), "linked to the letter that it was");
        assert!(said(&fixture.run(&["dead", "show", &fixture.ids().await[2]])).contains("replayed 1 times"));

        let replay = || fixture.command(&["dead", "replay", "--all", "--yes", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let both = [replay(), replay()].map(|child| child.wait_with_output().unwrap());
        let counts = both.map(|output| serde_json::from_slice::<Value>(&output.stdout).unwrap()["replayed"].as_u64().unwrap());
        assert_eq!((counts[0] + counts[1], fixture.world.status().await.redelivery), (3, 3), "each by one of them");

        fixture.world.run().await;
        let last = fixture.ids().await.remove(0);
        std::fs::write(fixture.folder.path().join("new.json"), event(Uuid::new_v4(), json!({ "do": "ok" })).to_string()).unwrap();
        assert_eq!(fixture.line(&["dead", "edit", &last, "--file", "new.json", "--yes"])["edited"], true);
        fixture.refuses(&["dead", "edit", &last, "--file", "new.json", "--yes"], "there is no dead letter");
        fixture.world.run().await;
        let status = fixture.world.status().await;
        assert_eq!((status.committed, status.dead), (1, 2));
        let records = fixture.lines(&["dead", "audit"]);
        assert_eq!(records.iter().map(|record| record["count"].as_u64().unwrap()).sum::<u64>(), 5);
        assert_eq!((&records[0]["verb"], &records.last().unwrap()["verb"]), (&json!("replay"), &json!("edit")));
    }

    async fn editing_is_off_by_default(url: &str) {
        let fixture = Fixture::new(url, "").await;
        fixture.ask(&[reject()]).await;
        let id = fixture.ids().await.remove(0);
        std::fs::write(fixture.folder.path().join("new.json"), event(Uuid::new_v4(), json!({ "do": "ok" })).to_string()).unwrap();
        fixture.refuses(&["dead", "edit", &id, "--file", "new.json", "--yes"], "editing dead letters is not allowed here\n  hint: edit = true in [dead_letters]");
        assert_eq!(fixture.world.dead().await.len(), 1);
    }

    async fn an_edited_event_is_a_new_one_caused_by_the_old(url: &str) {
        let fixture = Fixture::new(url, EDIT).await;
        let old = fixture.world.ask(reject()).await;
        fixture.world.run().await;
        let id = fixture.ids().await.remove(0);
        let edit = |new: String, more: &[&str]| {
            std::fs::write(fixture.folder.path().join("new.json"), new).unwrap();
            fixture.run(&[&["dead", "edit", &id, "--file", "new.json", "--json"], more].concat())
        };
        let good = event(old, json!({ "do": "emit-many", "count": 1 })).to_string();
        for (new, words) in [
            ("nonsense".to_owned(), "the new event is no envelope"),
            (good.replace("Test.Thing.Asked", "Test.Thing.Done"), "/event_type: \"Test.Thing.Done\" was \"Test.Thing.Asked\""),
            (good.replace("\"emit-many\"", "7"), "the new event would die again: /data/do: 7 is not"),
        ] {
            let output = edit(new, &["--yes"]);
            assert!(output.status.code() == Some(2) && said(&output).contains(words), "wanted {words}\n found {}", said(&output));
        }
        assert!(edit(good.clone(), &["--dry-run"]).status.success());
        assert_eq!((fixture.ids().await, edit(good.clone(), &[]).status.code()), (vec![id.clone()], Some(2)), "nobody is there to ask");
        let output = edit(good, &["--yes"]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        let back = fixture.world.backend.fetch(&fixture.world.subscription, "looks", 1, Duration::from_secs(10)).await.unwrap().deliveries.remove(0);
        let Body::Event(bytes) = &back.body else { panic!("{back:?}") };
        let back: Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!((&back["event_id"], &back["causation_id"]), (&answer["event_id"], &json!(old)));
        let new: Uuid = answer["event_id"].as_str().unwrap().parse().unwrap();
        assert_eq!((new.get_version_num(), &back["data"]["do"]), (7, &json!("emit-many")));
    }

    async fn dropped_letters_are_gone_and_the_counters_balance(url: &str) {
        let fixture = Fixture::new(url, "").await;
        fixture.world.put("nonsense").await;
        fixture.ask(&[reject(), reject()]).await;
        assert_eq!(fixture.line(&["dead", "drop", "--reason", "rejected", "--yes"]), json!({ "found": 2, "dropped": 2 }));
        let status = fixture.world.status().await;
        assert_eq!((status.published, status.dead, status.dropped), (3, 1, 2));
        let handler = &fixture.line(&["status"])["handlers"][0];
        assert_eq!((&handler["dropped"], &handler["balanced"]), (&json!(2), &json!(true)));
        assert_eq!(fixture.line(&["dead", "audit"])["verb"], "drop");
    }

    async fn an_export_is_exact_to_the_byte(url: &str) {
        let fixture = Fixture::new(url, "").await;
        let bodies: [&[u8]; 4] = [b" {\"n\": 1.0e2,\r\n\t\"big\":9007199254740993}\0 ", "größe \u{1F30A}".as_bytes(), b"\xff\xfe\x00", b""];
        for body in bodies {
            fixture.world.put(Bytes::from_static(body)).await;
        }
        // More than a page.
        let many: Vec<NewEntry> = (0..250).map(|n| NewEntry { body: format!("nonsense {n}").into(), dedup_key: None }).collect();
        fixture.world.backend.publish(&fixture.world.asked, &many).await.unwrap();
        fixture.world.run().await;
        let exported = fixture.lines(&["dead", "export"]);
        let unhex = |text: &str| -> Vec<u8> { (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect() };
        let bytes: Vec<Vec<u8>> = exported.iter().map(|line| match line["event"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => unhex(line["event_hex"].as_str().unwrap()),
        }).collect();
        let published: Vec<Vec<u8>> = bodies.iter().map(|body| body.to_vec()).chain(many.iter().map(|entry| entry.body.to_vec())).collect();
        let sorted = |mut all: Vec<Vec<u8>>| { all.sort(); all };
        assert!(sorted(bytes) == sorted(published), "some bytes are not those that were published");
        assert_eq!(fixture.lines(&["dead", "export", &fixture.ids().await[1]]).len(), 1);
    }

    async fn a_paused_handler_rests_until_it_is_resumed(url: &str) {
        let fixture = Fixture::new(url, "").await;
        let flags = fixture.lines(&["plugin", "pause", "mischief", "--note", "a deploy"]);
        assert_eq!((flags.len(), &flags[0]["paused"]), (1, &json!(true)));
        for _ in 0..3 {
            fixture.world.ask(json!({ "do": "ok" })).await;
        }
        let run = fixture.run(&["run", "--until-idle"]);
        assert!(run.status.success() && said(&run).contains("idle but for what is paused"), "{}", said(&run));
        let status = fixture.world.status().await;
        assert_eq!((status.committed, status.lag), (0, 3));
        let handler = &fixture.line(&["status"])["handlers"][0];
        assert_eq!((&handler["paused"], &handler["streams"][0]["paused"]), (&json!(true), &json!(true)));
        fixture.line(&["plugin", "resume", "mischief"]);
        assert!(fixture.run(&["run", "--until-idle"]).status.success());
        assert_eq!(fixture.world.status().await.committed, 3);
        let records = fixture.lines(&["dead", "audit"]);
        let verbs: Vec<_> = records.iter().map(|record| (&record["verb"], &record["note"])).collect();
        assert_eq!(verbs, [(&json!("pause"), &json!("a deploy")), (&json!("resume"), &json!(""))]);
        fixture.refuses(&["plugin", "pause", "stranger"], "there is no handler \"stranger\"");
    }

    async fn a_running_host_obeys_a_pause(url: &str) {
        let fixture = Fixture::new(url, "").await;
        let mut host = Ended(fixture.command(&["run"]).env("NO_COLOR", "1").stderr(Stdio::piped()).spawn().unwrap());
        let mut log = BufReader::new(host.0.stderr.take().unwrap()).lines();
        let mut wait_for = |words: &str| while !log.next().unwrap().unwrap().contains(words) {};
        wait_for("host started");
        fixture.line(&["plugin", "pause", "mischief"]);
        wait_for("paused: nothing is fetched");
        // A fetch that was waiting then may still bring something; what comes later stays where it is.
        let mut put = 0;
        while fixture.world.status().await.lag < 5 {
            assert!(put < 100, "it goes on fetching");
            put += 1;
            fixture.world.ask(json!({ "do": "ok" })).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        fixture.line(&["plugin", "resume", "mischief"]);
        wait_for("resumed");
        let all = async { while fixture.world.status().await.committed < put { tokio::time::sleep(Duration::from_millis(50)).await } };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("it goes on");
    }
}

/// A child that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().expect("a child can be killed");
        self.0.wait().expect("and waited for");
    }
}

/// Reaches `GROUPS_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_groups_are_held_and_the_letters_of_others_are_counted() {
    const ALL: usize = 10_001;
    let fixture = Fixture::new("sqlite::memory:", "").await;
    let World { backend, subscription, .. } = &fixture.world;
    backend.ensure_group(subscription, Start::Beginning).await.unwrap();
    // Numbers make no difference to a cause; words do.
    let cause = |mut number: usize| {
        let mut word = String::new();
        (0..4).for_each(|_| {
            word.push(char::from(b'g' + (number % 20) as u8));
            number /= 20;
        });
        word
    };
    for from in (0..ALL).step_by(500) {
        let count = (ALL - from).min(500);
        let entry = || NewEntry { body: "x".into(), dedup_key: None };
        backend.publish(&subscription.stream, &(0..count).map(|_| entry()).collect::<Vec<_>>()).await.unwrap();
        let got = backend.fetch(subscription, "me", count, Duration::from_secs(10)).await.unwrap().deliveries;
        assert_eq!(got.len(), count);
        let dead = |(at, delivery)| {
            let reason = Reason { class: ReasonClass::Rejected, text: cause(from + at) };
            SettlementEntry {
                delivery,
                dedup_key: None,
                state: None,
                disposition: Disposition::DeadLetter { reason, record: None },
            }
        };
        let entries = got.into_iter().enumerate().map(dead).collect();
        let (consumer, plugin, token) = ("me".into(), "p".into(), Uuid::new_v4());
        let settlement = Settlement { subscription: subscription.clone(), consumer, plugin, token, entries };
        backend.settle(&settlement).await.unwrap();
    }
    let output = fixture.run(&["dead", "ls", "--json", "--limit", "20000"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), ALL - 1);
    assert!(said(&output).contains("1 letters of still other groups; a filter shows them"), "{}", said(&output));
}
