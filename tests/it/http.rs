//! What leaves the sandbox over `http`, and what does not. The service is real: an HTTP server on this machine.

use serde_json::{Value, json};
use tidemill_testkit::service::Service;
use tidemill_testkit::world::{NO_RETRY, QUICK, World, refusal_of};

/// A world whose guest makes requests; `tables` begins inside of its grants. Loopback is open to it.
async fn world(extra: &str, tables: &str) -> World {
    let mut world = World::of(&tidemill_testkit::guest("caller"), "sqlite::memory:", extra, tables).await;
    world.config.host.http_private = vec!["127.0.0.1/32".to_owned().into()];
    world
}

/// The grant of everything on this service.
fn all(service: &Service) -> String {
    format!("http = [\"* {}\"]\nsecrets = []", service.url("/*"))
}

/// What the guest has told, in order.
async fn told(world: &World) -> Vec<i64> {
    world.emitted().await.iter().map(|event| event["data"]["n"].as_i64().expect("a number")).collect()
}

/// One event, one run; what the guest has told.
async fn call(world: &World, data: Value) -> Vec<i64> {
    world.ask(data).await;
    world.run().await;
    told(world).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_granted_request_is_made_and_answered() {
    let service = Service::start();
    let world = world(NO_RETRY, &format!("http = [\"POST {}\"]\nsecrets = []", service.url("/status/*"))).await;
    let data = json!({ "do": "call", "method": "POST", "url": service.url("/status/201?a=b"), "body": 9, "headers": [["X-Mine", "yes"]] });
    assert_eq!(call(&world, data).await, [201]);
    let [asked] = &service.asked()[..] else { panic!("{:?}", service.asked()) };
    assert_eq!((&*asked.line, asked.body, asked.header("x-mine")), ("POST /status/201?a=b", 9, Some("yes")));
    assert_eq!(asked.header("host"), Some(service.address.to_string().as_str()));
    assert!(asked.header("idempotency-key").is_some_and(|key| key.len() == 36), "{asked:?}");
    assert!(asked.header("user-agent").is_some_and(|agent| agent.starts_with("tidemill/")), "{asked:?}");
    let metrics = tidemill_runtime::observe::metrics::render(|_| {});
    assert!(metrics.contains("tidemill_http_requests_total{handler=\"mischief\",result=\"2xx\"}"), "{metrics}");
    assert!(metrics.contains("tidemill_http_request_seconds_count{handler=\"mischief\"}"), "{metrics}");
}

/// One request that is not allowed: what the dead letter says. The guest goes on as if nothing had happened, and tells.
async fn denied(service: &Service, tables: &str, data: Value) -> String {
    let world = world(NO_RETRY, tables).await;
    assert_eq!(call(&world, data).await, [0i64; 0], "nothing leaves");
    assert_eq!(service.asked().len(), 0, "nothing was sent");
    world.only_dead().await.1
}

/// Reaches `http::REASON_BYTES_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_words_of_a_refusal_are_bounded() {
    let service = Service::start();
    let tables = format!("http = [\"GET {}\"]\nsecrets = []", service.url("/a/*"));
    let words = async |more: usize| {
        let around =
            "GET  is not among the grants (hint: [handlers.mischief.grants] http)".len() + service.url("/").len();
        let url = service.url(&format!("/{}", "b".repeat(512 - around + more)));
        denied(&service, &tables, json!({ "do": "call", "url": url })).await
    };
    let (whole, cut) = (words(0).await, words(1).await);
    assert!(whole.ends_with("[handlers.mischief.grants] http)"), "{whole}");
    assert!(cut.len() == whole.len() && cut.ends_with("[handlers.mischief.grants] http"), "{cut}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_grant_names_is_never_sent() {
    let service = Service::start();
    let grants = format!("http = [\"GET {}\"]\nsecrets = []", service.url("/a/*"));
    let elsewhere = Service::start();
    let rows = [
        ("POST", service.url("/a/b"), "is not among the grants"),
        ("GET", service.url("/b"), "is not among the grants"),
        ("GET", elsewhere.url("/a/b"), "is not among the grants"),
        ("GET", service.url("/a/b").replace("http:", "https:"), "is not among the grants"),
        ("GET", service.url("/a/b").replace("127.0.0.1", "localhost"), "is not among the grants"),
        ("GET", service.url("/a/../b"), "a path cannot hold"),
        ("GET", service.url("/a/%2e%2e/b"), "a path cannot hold"),
        ("GET", service.url("/a/b").replace("http://", "http://user@"), "neither a user"),
        ("GET", service.url("/a/b c"), "a URL cannot hold ' '"),
        ("CONNECT", service.url("/a/b"), "is not one of the methods"),
        ("GET / HTTP/1.1\r\nX: ", service.url("/a/b"), "is not one of the methods"),
    ];
    for (method, url, wanted) in rows {
        let said = denied(&service, &grants, json!({ "do": "call", "method": method, "url": url })).await;
        assert!(said.starts_with("rejected: http: ") && said.contains(wanted), "{method} {url}\n {said}");
    }
    let said = denied(&service, "http = []\nsecrets = []", json!({ "do": "call", "url": service.url("/a/b") })).await;
    assert!(said.contains("is not among the grants (hint: [handlers.mischief.grants] http)"), "{said}");
    assert_eq!(elsewhere.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_public_internet_is_closed_until_the_operator_opens_it() {
    let service = Service::start();
    let port = service.address.port();
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost"] {
        let grants = format!("http = [\"* http://{host}:{port}/*\"]\nsecrets = []");
        let mut world = world(NO_RETRY, &grants).await;
        world.config.host.http_private.clear();
        let url = format!("http://{host}:{port}/status/200");
        assert_eq!(call(&world, json!({ "do": "call", "url": url })).await, [0i64; 0]);
        let said = world.only_dead().await.1;
        assert!(said.contains("which is loopback (hint: [host] http_private)"), "{said}");
    }
    assert_eq!(service.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (service, inside) = (Service::start(), Service::start());
    let world = world(NO_RETRY, &all(&service)).await;
    let location = service.url(&format!("/redirect/{}", inside.address));
    assert_eq!(call(&world, json!({ "do": "call", "url": location })).await, [302]);
    assert_eq!((service.asked().len(), inside.asked().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_are_the_hosts_to_set_are_refused() {
    let service = Service::start();
    for (name, value, wanted) in [
        ("Host", "evil.example.org", "is the host's to set"),
        ("Content-Length", "0", "is the host's to set"),
        ("Transfer-Encoding", "chunked", "is the host's to set"),
        ("Idempotency-Key", "mine", "is the host's to set"),
        ("X", "a\r\nHost: evil.example.org", "visible ASCII"),
        ("X\r\nHost", "a", "is no header"),
        ("X", "{{secret:none}}", "the handler has no secret \"none\""),
    ] {
        let data = json!({ "do": "call", "url": service.url("/status/200"), "headers": [[name, value]] });
        let said = denied(&service, &all(&service), data).await;
        assert!(said.contains(wanted), "{name:?}\n {said}");
    }
}

/// A file with a secret that only the owner can read.
fn secret_file(value: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{value}\n")).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_goes_out_in_a_header_and_only_a_granted_one_is_read() {
    let service = Service::start();
    let file = secret_file("hunter22");
    let table = format!("[handlers.mischief.secrets]\nkey = {{ file = \"{}\" }}", file.path().display());
    let closed = world(NO_RETRY, &format!("{}\n{table}", all(&service))).await;
    let headers = [["Authorization", "Bearer {{secret:key}}"]];
    let data = json!({ "do": "call", "url": service.url("/status/200"), "headers": headers });
    assert_eq!(call(&closed, data).await, [200]);
    assert_eq!(service.asked()[0].header("authorization"), Some("Bearer hunter22"));
    assert_eq!(call(&closed, json!({ "do": "secret", "name": "key" })).await, [200], "it tells no more");
    let said = closed.only_dead().await.1;
    assert!(said.contains("\"key\" is not among the secrets that may be read"), "{said}");

    let granted = all(&service).replace("secrets = []", "secrets = [\"key\"]");
    let open = world(NO_RETRY, &format!("{granted}\n{table}")).await;
    assert_eq!(call(&open, json!({ "do": "secret", "name": "key" })).await, [8]);
    open.ask(json!({ "do": "say-secret", "name": "key" })).await;
    open.run().await;
    let letter = format!("{:?}", open.only_dead().await);
    assert!(letter.contains("it is {{secret:key}}") && !letter.contains("hunter22"), "{letter}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_without_a_value_stops_the_host_from_starting() {
    let service = Service::start();
    let refused = |place: &str| {
        let grants = format!("emit = []\nstate = true\n{}\n[handlers.mischief.secrets]\nkey = {place}", all(&service));
        refusal_of(tidemill_testkit::guest("caller"), &grants)
    };
    let said = refused("{ env = \"TIDEMILL_TEST_NO_SUCH_SECRET\" }");
    let wanted = "secret \"key\": the environment variable TIDEMILL_TEST_NO_SUCH_SECRET is not set\n  hint: set";
    assert!(said.contains(wanted), "{said}");
    let said = refused("{ file = \"no/such/secret\" }");
    assert!(said.contains("cannot read") && said.contains("no/such/secret") && said.contains("chmod 600"), "{said}");
}

/// Reaches `HTTP_RESPONSE_BYTES` and `ANSWER_HEAD_BYTES_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_bounded_in_size_and_time() {
    let service = Service::start();
    let limits = "limits = { http_response_bytes = \"1KiB\" }\ndeadline = \"60s\"";
    for (path, timeout, wanted) in [
        ("/big/1024", None, 200),
        ("/big/1025", None, 4),
        ("/stream/1024", None, 200),
        ("/stream/1025", None, 4),
        ("/head/1000", None, 200),
        ("/head/40000", None, 4),
        ("/hang", Some(50), 3),
        ("/drip", Some(50), 3),
        ("/hang", Some(0), 3),
    ] {
        let world = world(&format!("{NO_RETRY}\n{limits}"), &all(&service)).await;
        let data = json!({ "do": "call", "url": service.url(path), "timeout_ms": timeout });
        assert_eq!(call(&world, data).await, [wanted], "{path}");
    }
    service.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_outlives_the_attempt() {
    let service = Service::start();
    let world = world(&format!("{NO_RETRY}\ndeadline = \"100ms\""), &all(&service)).await;
    // Without an end of its own, and with one that is far away.
    for timeout in [None, Some(3_600_000)] {
        world.ask(json!({ "do": "pass-on", "url": service.url("/hang"), "timeout_ms": timeout })).await;
    }
    world.run().await;
    let letters = world.dead().await;
    assert_eq!(letters.len(), 2, "{letters:?}");
    for letter in letters {
        let said = format!("{}: {}", letter.reason.class, letter.reason.text);
        assert!(said.contains("did not answer within") || said.contains("deadline"), "{said}");
    }
    assert_eq!(service.answered(), 0);
    service.release();
}

/// Reaches `HTTP_REQUESTS` and `HTTP_REQUEST_BYTES`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_bounded_in_number_and_size() {
    let service = Service::start();
    let limits = "limits = { http_requests = 2, http_request_bytes = \"1KiB\" }";
    let world = world(&format!("{NO_RETRY}\n{limits}"), &all(&service)).await;
    world.ask(json!({ "do": "call-many", "count": 3, "url": service.url("/status/200") })).await;
    world.ask(json!({ "do": "call-many", "count": 2, "url": service.url("/status/200") })).await;
    world.ask(json!({ "do": "call", "method": "POST", "url": service.url("/status/200"), "body": 1025 })).await;
    world.run().await;
    assert_eq!(told(&world).await, [200]);
    let mut said: Vec<_> = world.dead().await.into_iter().map(|letter| letter.reason.text).collect();
    said.sort_unstable();
    assert!(said[0].contains("http: a request may have 1024 bytes (limits.http_request_bytes)"), "{said:?}");
    assert!(said[1].contains("http: an attempt may make 2 requests (limits.http_requests)"), "{said:?}");
    assert_eq!(service.asked().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_fails_too_often_is_left_alone() {
    let service = Service::start();
    let breaker = "breaker = { failure_rate = 0.5, min_events = 3, open_for = \"1h\" }";
    let world = world(&format!("{NO_RETRY}\n{breaker}"), &all(&service)).await;
    let data = json!({ "do": "call-many", "count": 10, "url": service.url("/status/503") });
    assert_eq!(call(&world, data).await, [5], "busy");
    assert_eq!(service.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_repeated_bears_the_same_key() {
    let service = Service::start();
    let world = world(QUICK, &all(&service)).await;
    world.ask(json!({ "do": "call-then-fail", "url": service.url("/status/200") })).await;
    world.run().await;
    world.ask(json!({ "do": "call-many", "count": 2, "url": service.url("/status/200") })).await;
    world.run().await;
    let keys: Vec<String> =
        service.asked().iter().map(|asked| asked.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!((keys.len(), &keys[0]), (4, &keys[1]), "the same at the second attempt");
    assert!(keys[2] != keys[0] && keys[3] != keys[0], "another event has other keys");
    assert_ne!(keys[2], keys[3], "another request of one attempt has another key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_speaks_tls_and_takes_nothing_less() {
    let service = Service::start();
    let grants = format!("http = [\"* https://{}/*\"]\nsecrets = []", service.address);
    let world = world(NO_RETRY, &grants).await;
    let url = service.url("/status/200").replace("http:", "https:");
    assert_eq!(call(&world, json!({ "do": "call", "url": url, "timeout_ms": 500 })).await.len(), 1);
    assert!(matches!(told(&world).await[0], 2 | 3), "the service does not speak TLS");
    assert!(service.asked().iter().all(|asked| !asked.line.starts_with("GET")), "{:?}", service.asked());
}

#[test]
fn http_and_secrets_are_not_linked_without_their_grants() {
    let refused =
        |grants: &str| refusal_of(tidemill_testkit::guest("caller"), &format!("emit = []\nstate = true\n{grants}"));
    let said = refused("secrets = []");
    assert!(said.contains("asks for capability \"http\", which is not granted\n  hint: write `http = ["), "{said}");
    let said = refused("http = []");
    assert!(
        said.contains("asks for capability \"secrets\", which is not granted\n  hint: write `secrets = ["),
        "{said}"
    );
}
