//! Passwords and secrets: nobody sees them, wherever they were put, right or wrong. Every command, every route, the log at
//! its most talkative.

use std::process::Output;

use crate::site::{self, ROUTES, Site, ask, said};
use serde_json::json;
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::service::Service;
use tidemill_testkit::world::{NO_RETRY, config, event};
use uuid::Uuid;

/// What must be seen nowhere. It is a good password, and a good part of a URL.
const CANARY: &str = "c4n4ry-hunter2";
const SECOND: &str = "c4n4ry-second";
/// What both have.
const SEEN: &str = "c4n4ry";

/// A configuration with this guest; `tables` begins inside of its grants.
fn text_of(guest: &str, url: &str, tables: &str) -> String {
    let schemas = format!("path = \"{}\"", tidemill_testkit::root().join("tests/schemas").display());
    config(url, &tidemill_testkit::guest(guest), "x", NO_RETRY, tables).replace("path = \"tests/schemas\"", &schemas)
}

#[track_caller]
fn shows_nothing(what: &str, text: &str) {
    let at = text
        .find(SEEN)
        .map(|at| text[text.floor_char_boundary(at.saturating_sub(200))..].chars().take(300).collect::<String>());
    assert_eq!(at, None, "{what}");
}

#[track_caller]
fn nothing(what: &str, output: &Output) {
    shows_nothing(what, &said(output));
}

/// Every command, with each of these lists of arguments, and the log at its most talkative.
fn all_commands(what: &str, site: &Site, extras: &[&[&str]]) {
    site.write("events.jsonl", event(Uuid::new_v4(), json!({ "do": "ok" })).to_string());
    let plugin = tidemill_testkit::guest("caller");
    let mut commands = site::commands("mischief/asked-x/1-0", &plugin);
    commands.push(vec!["run", "--until-idle"]);
    for command in commands {
        for extra in extras {
            let args = [&command[..], extra].concat();
            let output = site.command(&args).env("RUST_LOG", "trace").output().unwrap();
            nothing(&format!("{what}: {args:?}"), &output);
            assert!(!said(&output).contains("panicked"), "{what}: {args:?}: {}", said(&output));
        }
    }
}

/// Configurations that are refused, whichever command reads them.
#[test]
fn a_password_in_the_wrong_place_is_not_repeated() {
    let good = "sqlite:site.db";
    for (what, from, to) in [
        ("an unknown scheme", good, format!("valkey://ada:{CANARY}@127.0.0.1:1/0")),
        ("a bad port", good, format!("redis://ada:{CANARY}@127.0.0.1:port")),
        ("a bad database", good, format!("redis://ada:pw@127.0.0.1:1/{CANARY}")),
        ("what is not encoded", good, format!("redis://ada:a/{CANARY}@127.0.0.1:1/0")),
        ("no @", good, format!("redis://ada:{CANARY}")),
        ("no scheme", good, format!("ada:{CANARY}@127.0.0.1")),
        ("no text", "url = \"sqlite:site.db\"", format!("url = {{ a = \"redis://:{CANARY}@h\" }}")),
        ("no quote", "url = \"sqlite:site.db\"", format!("url = \"redis://:{CANARY}@h")),
        ("no table", "[backend]\n        url = \"sqlite:site.db\"", format!("backend = \"redis://:{CANARY}@h\"")),
        ("a secret's value", "{ env = \"BANK_KEY\" }", format!("\"{CANARY}\"")),
        ("a secret's value as a variable", "{ env = \"BANK_KEY\" }", format!("{{ env = \"{CANARY}\" }}")),
        ("a secret's value under another key", "{ env = \"BANK_KEY\" }", format!("{{ value = \"{CANARY}\" }}")),
    ] {
        let secrets = "[handlers.mischief.secrets]\nbank = { env = \"BANK_KEY\" }";
        let text = text_of("mischief", good, secrets);
        assert!(text.contains(from), "{from}");
        let mut site = Site::new(&text.replace(from, &to));
        site.variable("BANK_KEY", CANARY);
        all_commands(what, &site, &[&["--json"]]);
    }
}

#[test]
fn a_password_on_the_command_line_or_in_the_environment_is_not_repeated() {
    let url = format!("Redis://ada:{CANARY}@127.0.0.1:1");
    let mut site = Site::new(&text_of("mischief", "sqlite:site.db", ""));
    for args in [
        &[&*url][..],
        &["status", &url],
        &["--backend", &url],
        &["status", "--brokr", &url],
        &["status", &format!("--brokr={url}")],
        &["demo", "--redis", &format!("valkey://ada:{CANARY}@127.0.0.1")],
        &["status", "--backend", &format!("ada:{CANARY}@127.0.0.1")],
    ] {
        let output = site.run(args);
        assert!(output.status.code().is_some_and(|code| code == 1 || code == 2), "{args:?}: {output:?}");
        nothing(&format!("{args:?}"), &output);
    }
    site.variable("TIDEMILL__BACKEND", &format!("redis://:{CANARY}@h"));
    let output = site.run(&["status"]);
    assert!(
        said(&output).contains("environment variable TIDEMILL__BACKEND: invalid type: string"),
        "{}",
        said(&output)
    );
    nothing("a variable", &output);
}

/// What a person has to do is said all the same.
#[test]
fn what_is_not_encoded_is_told_with_its_code() {
    let site = Site::new(&text_of("mischief", "sqlite:site.db", ""));
    for (url, words) in [
        ("redis://ada:a/b@127.0.0.1:1/0", "user or password hold a \"/\", which has to be written as %2F\n  hint: "),
        ("redis://ada:a#b@127.0.0.1:1", "hold a \"#\", which has to be written as %23"),
        ("redis://ada:100%@127.0.0.1:1", "a \"%\" itself is written as %25"),
        (
            "redis://ada:pw@127.0.0.1:1/zero",
            "redis://***@*** cannot be used: Invalid database number\n  hint: write redis://USER",
        ),
        ("valkey://ada:pw@127.0.0.1:1", "\"valkey://***@127.0.0.1:1\" names no backend\n  hint: "),
    ] {
        let output = site.run(&["status", "--backend", url]);
        assert!(output.status.code() == Some(1) && said(&output).contains(words), "{}", said(&output));
    }
}

/// A server that repeats the arguments of a command that it does not know, as Redis does, and that does not know AUTH.
#[test]
fn a_password_that_the_server_repeats_is_not_shown() {
    let server = RedisServer::start(&["--save", "", "--rename-command", "AUTH", ""]);
    for login in [format!("ada:{CANARY}"), format!(":{CANARY}")] {
        let site = Site::new(&text_of("mischief", &format!("redis://{login}@127.0.0.1:{}", server.port), ""));
        for command in [&["status"][..], &["doctor"], &["run", "--until-idle"]] {
            let output = site.command(command).env("RUST_LOG", "trace").output().unwrap();
            assert!(output.status.code() == Some(1), "{}", said(&output));
            nothing(&format!("{command:?}"), &output);
        }
    }
}

/// A host at work with a password in its URL and a secret in a request; then another password in the file.
#[test]
fn a_host_shows_neither_its_password_nor_a_secret_nor_what_they_are_changed_to() {
    let server = RedisServer::start(&["--save", ""]);
    for password in [CANARY, SECOND] {
        server.ask::<()>(&["ACL", "SETUSER", "ada", "on", &format!(">{password}"), "~*", "&*", "+@all"]);
    }
    let url = |password: &str| format!("redis://ada:{password}@127.0.0.1:{}", server.port);
    let service = Service::start();
    let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let tables = |to: &str| {
        format!(
            "http = [\"* {}\"]\nsecrets = [\"bank\"]\n[handlers.mischief.secrets]\nbank = {{ env = \"BANK_KEY\" }}\n\
             [http]\nlisten = \"{http}\"\n[host]\nhttp_private = [\"127.0.0.1/32\"]{to}",
            service.url("/*")
        )
    };
    // The host's table is there already.
    let text = |password: &str| {
        text_of("caller", &url(password), &tables("")).replacen("[host]\n        payload_bytes_max = \"256KiB\"", "", 1)
    };
    let mut site = Site::new(&text(CANARY));
    site.variable("BANK_KEY", &format!("{CANARY}-bank"));
    let mut host = site.host("trace", &[]);
    host.until("the host is up", |log| log.contains("host started"));
    let headers = json!([["authorization", "Bearer {{secret:bank}}"], ["x-bad", "{{secret:bank}}\n"]]);
    let call = json!({ "do": "call", "url": service.url("/status/200"), "headers": [headers[0]] });
    let bad = json!({ "do": "call", "url": service.url("/status/200"), "headers": headers });
    let said_it = json!({ "do": "say-secret", "name": "bank" });
    let lines = [call, bad, said_it].map(|data| event(Uuid::new_v4(), data).to_string()).join("\n");
    site.write("calls.jsonl", lines);
    assert!(site.run(&["publish", "calls.jsonl"]).status.success());
    host.until("two of the events are refused", |log| log.matches("dead letter").count() >= 2);
    let asked = service.asked();
    assert_eq!(asked[0].header("authorization"), Some(&*format!("Bearer {CANARY}-bank")), "it is sent where it has to");
    let shown = said(&site.run(&["dead", "ls", "--flat"]));
    assert!(shown.contains("{{secret:bank}}"), "{shown}");
    all_commands("a good configuration", &site, &[&["--log-json"], &["--json"]]);

    site.write("tidemill.toml", text(SECOND));
    host.until("the change is refused", |log| log.contains("what is not shown of redis://***@127.0.0.1"));
    for (method, path) in ROUTES {
        let answer = ask(&http, &site.token(), method, path);
        assert!(answer.starts_with("HTTP/1.1 "), "{method} {path}: {answer}");
        shows_nothing(&format!("{method} {path}"), &answer);
    }
    assert!(ask(&http, &site.token(), "GET", "/api/plugins").contains("what is not shown of redis://***@"));
    let reload = site.run(&["reload"]);
    assert!(reload.status.code() == Some(2) && said(&reload).contains("takes a restart"), "{}", said(&reload));
    all_commands("a changed password", &site, &[&[]]);
    site.write("tidemill.toml", text(SECOND).replace("redis://ada", "valkey://ada"));
    let reload = site.run(&["reload"]);
    assert!(reload.status.code() == Some(2) && said(&reload).contains("from \"redis://***@"), "{}", said(&reload));
    nothing("reload", &reload);
    shows_nothing("the host's log", &host.log());
    host.stop();
}

#[test]
fn what_a_programmer_prints_has_no_password_either() {
    let text = text_of("mischief", &format!("redis://ada:{CANARY}@127.0.0.1:1/0"), "");
    let config = tidemill_config::read::parse(&text, "t.toml".as_ref(), "".into(), &[]).unwrap();
    let shown = format!("{config:?} {:#?} {} {:?}", config, config.backend_url(), config.backend.url);
    assert!(shown.contains("redis://***@127.0.0.1:1/0"), "{shown}");
    shows_nothing("Debug", &shown);
}
