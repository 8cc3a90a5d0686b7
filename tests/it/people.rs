//! What people see: text of strangers on a terminal and in a log, results whose reader has gone.

use std::process::Stdio;

use crate::site::{self, COMMANDS, Site, said};
use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::{NO_RETRY, World, config, event};
use uuid::Uuid;

/// Clears a screen, writes into a clipboard, rings, begins an escape with one character, turns what follows around, is
/// there without a width, goes back to the line's beginning, and forges a line.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}]52;c;aGk=\u{7}\u{9b}31m\u{202e}\u{200b}\u{2028}\u{feff}\r\nERROR forged";

/// What a terminal obeys, written down once more: the host's own list is what is tested.
fn is_obeyed(c: char) -> bool {
    let dedup_keys =
        ['\u{200b}', '\u{200e}', '\u{202a}', '\u{202e}', '\u{2028}', '\u{2029}', '\u{2066}', '\u{2069}', '\u{feff}'];
    ('\u{0}'..' ').contains(&c) && c != '\n' || ('\u{7f}'..='\u{9f}').contains(&c) || dedup_keys.contains(&c)
}

#[track_caller]
fn is_fit(what: &str, text: &str) {
    let bad = text.char_indices().find(|(_, c)| is_obeyed(*c));
    let around =
        |at: usize| text[text.floor_char_boundary(at.saturating_sub(80))..].chars().take(120).collect::<String>();
    assert!(bad.is_none(), "{what}: {:?} in {:?}", bad, bad.map(|(at, _)| around(at)));
    assert!(!text.lines().any(|line| line.trim_start().starts_with("ERROR forged")), "{what}: {text}");
}

/// A site whose stream, events, state, letters, records and files hold hostile text; and the id of a letter.
async fn hostile_site(url: &str) -> (Site, String, String) {
    let puppet = tidemill_testkit::guest("puppet");
    let mut site = Site::new("");
    let file = format!("sqlite:{}", site.path("site.db").display());
    let url = if url == "sqlite::memory:" { &file } else { url };
    let world = World::of(&puppet, url, NO_RETRY, "").await;
    let suffix = world.asked.trim_start_matches("asked-").to_owned();
    let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let tables = format!(
        "[http]\nlisten = \"{http}\"\n[dead_letters]\nedit = true\n[streams.{}]\nevents = [\"Test.Entry.Booked\"]",
        json!(format!("other-{suffix}\u{1b}[2J"))
    );
    let schemas = format!("path = \"{}\"", tidemill_testkit::root().join("tests/schemas").display());
    let text = config(url, &puppet, &suffix, NO_RETRY, &tables).replace("path = \"tests/schemas\"", &schemas);
    site.write("tidemill.toml", text);
    site.variable("USER", HOSTILE);
    let scripted =
        |key: &str, steps: Value| event(Uuid::new_v4(), json!({ "do": "x", "key": key, "steps": steps })).to_string();
    let mut wrong_version = event(Uuid::new_v4(), json!({ "do": "x" }));
    wrong_version["version"] = HOSTILE.into();
    let mut long_type = event(Uuid::new_v4(), json!({ "do": "x" }));
    long_type["event_type"] = format!("{HOSTILE}{}", "x".repeat(200_000)).into();
    let mut no_uuid = event(Uuid::new_v4(), json!({ "do": "x" }));
    no_uuid["correlation_id"] = HOSTILE.into();
    let events = [
        HOSTILE.to_owned(),
        wrong_version.to_string(),
        long_type.to_string(),
        no_uuid.to_string(),
        scripted(HOSTILE, json!([{ "set": ["n", HOSTILE] }, { "log": [3, HOSTILE, HOSTILE] }])),
        scripted("k", json!([{ "log": [4, HOSTILE, HOSTILE] }, { "reject": HOSTILE }])),
        scripted("k", json!([{ "panic": HOSTILE }])),
        "{\"a\":\t1,\n\"b\": \"\u{9b}31m\u{202e}\"\r\n}".to_owned(),
    ];
    for text in &events {
        world.put(Bytes::from(text.clone())).await;
    }
    site.write("events.jsonl", events.join("\n"));
    let mut host = site.host("trace", &[]);
    // The one with the long type is nobody's, the one with state commits.
    host.until("the events are dealt with", |log| log.matches("dead letter").count() >= 6);
    let of_host = host.log();
    is_fit("the host's log", &of_host);
    assert!(of_host.lines().all(|line| line.len() < 20_000), "a line of log is bounded");
    assert!(of_host.lines().all(|line| line.starts_with("20")), "a line of log is one line");
    assert!(of_host.contains(r"a\u{1b}[2J\u{1b}]52;c;aGk=\u{7}\u{9b}31m\u{202e}"), "it says what was there");
    host.stop();
    let letter = world.dead().await.remove(0);
    let id = format!("{}/{}/{}", world.subscription.handler, world.subscription.stream, letter.id);
    (site, id, http)
}

/// Each line is JSON, and says exactly what there is.
fn is_exact(command: &[&str], output: &str) {
    for line in output.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{command:?}: {error}: {line}"));
        if command[..] == ["dead", "export"] && value["reason"] == "undecodable" && value["event"].is_string() {
            let event = value["event"].as_str().unwrap();
            assert!(event == HOSTILE || event.contains("\u{9b}31m\u{202e}"), "{event:?}");
        }
        if command[0] == "state" && value["key"] != "k" {
            assert_eq!((&value["key"], &value["values"]["n"]), (&json!(HOSTILE), &json!(HOSTILE)), "{line}");
        }
    }
}

crate::on_both_backends! {
    /// Every command, for people and as JSON, and the log of a host as JSON.
    async fn nothing_of_a_strangers_is_obeyed_by_a_terminal_or_looks_like_a_line_of_ours(url: &str) {
        let (site, letter, _) = hostile_site(url).await;
        let plugin = tidemill_testkit::guest("puppet");
        for command in site::commands(&letter, &plugin) {
            for extra in [&[][..], &["--json"]] {
                let output = site.run(&[&command[..], extra].concat());
                let text = said(&output);
                is_fit(&format!("{command:?}"), &text);
                assert!(!text.contains("panicked") && output.status.code().is_some_and(|code| code < 3), "{command:?}: {text}");
                let result = String::from_utf8_lossy(&output.stdout);
                match extra {
                    [] => assert!(command.starts_with(&["dead", "show"]) || result.lines().all(|line| line.len() < 20_000)),
                    _ if ["init", "completions"].contains(&command[0]) || command.contains(&"stamp") => {}
                    _ => is_exact(&command, &result),
                }
            }
        }
        let shown = said(&site.run(&["dead", "show", &letter]));
        assert!(shown.contains("| ERROR forged") && shown.contains(r"| a\u{1b}[2J"), "{shown}");
        let audit = said(&site.run(&["dead", "audit"]));
        assert!(audit.contains(r"a\u{1b}[2Jb") && audit.contains("pause "), "{audit}");
        let mut host = site.host("trace", &["--log-json"]);
        host.until("the host is up", |log| log.contains("host started"));
        is_fit("the host's log in JSON", &host.log());
        host.stop();
    }
}

/// A row of README's table of commands whose command is not tried would be a hole in the tests that try all.
#[test]
fn the_list_of_commands_has_all_that_there_are() {
    let readme = std::fs::read_to_string(tidemill_testkit::root().join("README.md")).unwrap();
    let table = readme.split_once("<!-- rows: host/tidemill/src/cli/mod.rs -->").unwrap().1;
    let rows = table.lines().skip(3).take_while(|line| line.starts_with("| `"));
    let names: Vec<Vec<&str>> = rows
        .map(|row| {
            row.split('`')
                .nth(1)
                .unwrap()
                .split(' ')
                .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
                .collect()
        })
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names.iter().filter(|name| name[..] != ["run"]) {
        assert!(COMMANDS.iter().any(|command| command.starts_with(name)), "{name:?} is not in tests/it/site.rs");
    }
}

/// A pipe whose reader has gone, as that of `| head` does.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_ends_a_command_quietly() {
    /// What a shell says of SIGPIPE.
    const PIPE: i32 = 141;
    let (site, letter, _) = hostile_site("sqlite::memory:").await;
    let plugin = tidemill_testkit::guest("puppet");
    let mut ended_so = 0;
    for command in site::commands(&letter, &plugin) {
        for extra in [&[][..], &["--json"]] {
            let args = [&command[..], extra].concat();
            let output = site.command(&args).stdout(gone()).output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!words.contains("panicked") && !words.contains("roken pipe"), "{args:?}: {words}");
            let code = output.status.code().unwrap();
            assert!(code == PIPE || code < 3, "{args:?}: {code}");
            ended_so += u32::from(code == PIPE);
            let output = site.command(&args).stderr(gone()).output().unwrap();
            assert!(output.status.code().is_some_and(|code| code < 3), "{args:?}: {output:?}");
        }
    }
    assert!(ended_so > 30, "{ended_so}");
    let help = site.command(&["--help"]).stdout(gone()).output().unwrap();
    assert_eq!((help.status.code(), help.stderr.len()), (Some(PIPE), 0));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = site.command(&["status"]).stdout(full).output().unwrap();
    assert!(
        output.status.code() == Some(1) && said(&output).starts_with("error: cannot write the result: "),
        "{output:?}"
    );
}

/// Fields of an entry that no producer of ours wrote: names and values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_fields_are_shown_fit_for_a_terminal() {
    let server = RedisServer::shared();
    let (site, _, _) = hostile_site(&server.url()).await;
    let world_stream = said(&site.run(&["dead", "ls", "--flat", "--json"]));
    let first: Value = serde_json::from_str(world_stream.lines().next().unwrap()).unwrap();
    let stream = first["stream"].as_str().unwrap();
    let mut redis = server.client().await;
    redis::cmd("XADD").arg(stream).arg("*").arg(HOSTILE).arg(HOSTILE).query_async::<String>(&mut redis).await.unwrap();
    let output = site.run(&["run", "--until-idle"]);
    assert!(output.status.success(), "{}", said(&output));
    is_fit("run --until-idle", &said(&output));
    let all = said(&site.run(&["dead", "ls", "--flat", "--json"]));
    let last: Value = serde_json::from_str(all.lines().last().unwrap()).unwrap();
    assert_eq!(last["fields"], json!([[HOSTILE, HOSTILE]]));
    let shown = said(&site.run(&["dead", "show", last["id"].as_str().unwrap()]));
    is_fit("dead show", &shown);
    assert!(shown.contains(r"a\u{1b}[2J"), "{shown}");
}
