//! The HTTP side as a stranger on the same machine meets it: what answers without a token, by which names it may be called, and
//! how long and with how many connections somebody may keep it busy.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use tidemill_server::serve::{CONNECTIONS_MAX, HEAD_BYTES_MAX, HEADERS_MAX};
use tidemill_testkit::reload::{GOOD, Rig};
use tidemill_testkit::server::RedisServer;

/// Longer than any of these stories takes on a busy machine.
const STORY_MAX: Duration = Duration::from_secs(120);

/// A host that works; the server goes with it.
fn started(server: &RedisServer) -> (Rig, tidemill_testkit::ledger::host::Host) {
    let rig = Rig::new(server);
    rig.put(&rig.version(GOOD[0]));
    let mut host = rig.ledger.host(None);
    host.wait_for_consumer();
    assert!(rig.wait(|plugin| plugin["generation"] == 1).is_some(), "the host answers to its token");
    (rig, host)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(STORY_MAX)).unwrap();
    stream
}

/// All that is answered to these bytes until the host hangs up.
fn said(port: u16, bytes: &[u8]) -> String {
    let mut stream = connect(port);
    // A host that has heard enough may hang up before the end.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn request(port: u16, method: &str, path: &str, headers: &str) -> String {
    said(port, format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n").as_bytes())
}

#[test]
fn without_the_token_only_three_routes_answer() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let (rig, _host) = started(&server);
    let port = rig.api;
    assert_eq!(std::fs::metadata(rig.token()).unwrap().mode() & 0o7777, 0o600);
    let token = std::fs::read_to_string(rig.token()).unwrap().trim().to_owned();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status(&request(port, "GET", path, "")), 200, "{path}");
    }
    for (method, path) in [
        ("GET", "/api/status"),
        ("GET", "/api/plugins"),
        ("POST", "/api/reload"),
        ("POST", "/api/plugins/ledger/reload"),
        ("POST", "/api/plugins/ledger/rollback"),
        ("GET", "/"),
        ("GET", "/no/such/thing"),
        ("GET", "/healthz/"),
        ("GET", "//healthz"),
        ("GET", "/api/../healthz"),
    ] {
        let wrong = format!("Authorization: Bearer {}\r\n", "0".repeat(64));
        let basic = format!("Authorization: Basic {token}\r\n");
        for headers in ["", "X-Tidemill: 1\r\n", &wrong, &basic] {
            let answer = request(port, method, path, headers);
            assert_eq!(status(&answer), 401, "{method} {path} {headers}: {answer}");
            assert!(
                answer.to_lowercase().contains("www-authenticate: bearer") && answer.contains("\"hint\":\""),
                "{answer}"
            );
        }
    }
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let answer = request(port, "POST", "/api/plugins/ledger/reload", &(bearer.clone() + "Content-Length: 0\r\n"));
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(status(&request(port, "GET", "/no/such/thing", &bearer)), 404);
    // Another token in the file counts from the next request on, and one that others may read does not count.
    std::fs::write(rig.token(), "another-token-of-this-host\n").unwrap();
    assert_eq!(status(&request(port, "GET", "/api/status", &bearer)), 401);
    assert_eq!(rig.ask("GET", "/api/status").0, 200);
    std::fs::set_permissions(rig.token(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(rig.ask("GET", "/api/status").0, 401);
    let log = rig.ledger.said();
    assert!(log.contains("a token for the API was made") && !log.contains(&token), "{log}");
}

#[test]
fn every_route_answers_to_this_machine_s_names_alone() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let (rig, _host) = started(&server);
    let port = rig.api;
    for path in ["/healthz", "/readyz", "/metrics", "/api/status", "/nothing"] {
        let of = |head: &str| status(&said(port, format!("GET {head}\r\n\r\n").as_bytes()));
        assert_eq!(of(&format!("{path} HTTP/1.1\r\nHost: evil.example:{port}")), 403, "{path}: rebinding");
        assert_eq!(
            of(&format!("{path} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example")),
            400,
            "{path}: two of them"
        );
        assert_eq!(of(&format!("{path} HTTP/1.1")), 400, "{path}: none");
        assert_eq!(of(&format!("http://evil.example{path} HTTP/1.1\r\nHost: localhost")), 403, "{path}: in its line");
    }
    for host in ["127.0.0.1", "LOCALHOST:1", "localhost.", "[::1]:7070"] {
        assert_eq!(
            status(&said(port, format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())),
            200,
            "{host}"
        );
    }
    assert_eq!(status(&said(port, b"GET /healthz HTTP/1.0\r\n\r\n")), 200, "a probe without Host");
}

/// Reaches `HEAD_BYTES_MAX`, `serve::HEADERS_MAX` and `HEAD_WAIT_MAX`.
#[test]
fn heads_that_are_too_long_or_never_end_are_refused() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let (rig, _host) = started(&server);
    let port = rig.api;
    let long = format!("X: {}\r\n", "x".repeat(HEAD_BYTES_MAX));
    assert_eq!(status(&request(port, "GET", "/healthz", &long)), 431);
    let many: String = (0..HEADERS_MAX).map(|number| format!("X-{number}: 1\r\n")).collect();
    assert_eq!(status(&request(port, "GET", "/healthz", &many)), 431);
    let fits: String = (0..HEADERS_MAX - 1).map(|number| format!("X-{number}: 1\r\n")).collect();
    assert_eq!(status(&request(port, "GET", "/healthz", &fits)), 200);
    // A byte now and then would keep a connection for ever; the host hangs up on it.
    let mut slow = connect(port);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
    let mut reading = slow.try_clone().unwrap();
    let drip = move || {
        let give_up = Instant::now() + STORY_MAX;
        while slow.write_all(b"x").is_ok() {
            assert!(Instant::now() < give_up, "it is listened to for ever");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let dripping = std::thread::Builder::new().name("dripping".to_owned()).spawn(drip).unwrap();
    let mut rest = Vec::new();
    let _ = reading.read_to_end(&mut rest);
    let _ = reading.shutdown(Shutdown::Both);
    dripping.join().unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "), "{rest:?}");
}

/// Reaches `CONNECTIONS_MAX`.
#[test]
fn connections_that_say_nothing_do_not_keep_others_out() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let (rig, _host) = started(&server);
    let port = rig.api;
    let silent: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| connect(port)).collect();
    // It waits until the host has hung up on one of them, and no longer.
    assert_eq!(status(&request(port, "GET", "/healthz", "")), 200);
    for mut stream in silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || status(&String::from_utf8_lossy(&rest)) == 408, "{rest:?}");
    }
    // A request that announces a body is answered without it, and one connection bears one request.
    let answer = said(port, b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n");
    assert_eq!(status(&answer), 405, "{answer}");
    let two = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(said(port, two).matches("HTTP/1.1 200").count(), 1);
}
