//! What is found in configurations that are wrong.

use super::*;
use tidemill_core::policy::canary::CanaryPolicy;

const TEXT: &str = r#"
[streams.orders]
events = ["Order.*"]

[handlers.payment-service]
plugin = "a.wasm"
deadline = "0s"
[handlers.payment-service.grants]
emit = ["Payment.Order.Paid"]

[routing]
"Order.Created" = ["payment-service", "paiment-service", "stranger"]
"#;

fn findings(text: &str) -> Vec<String> {
    let mut schemas = Registry::default();
    schemas.add("Order.Created.v1", "{}").unwrap();
    let path = Path::new("t.toml");
    let config = crate::read::parse(text, path, "".into(), &[]).unwrap();
    check(&config, &schemas).iter().map(|finding| describe(finding, path, text)).collect()
}

#[test]
fn everything_that_is_wrong_is_said_with_its_line() {
    assert_eq!(
        findings(TEXT),
        [
            "error: t.toml:12: routing.\"Order.Created\": service \"paiment-service\" has no handler\n  hint: did you mean \"payment-service\"?",
            "error: t.toml:12: routing.\"Order.Created\": service \"stranger\" has no handler\n  hint: add [handlers.stranger], or take the service out of the route",
            "error: t.toml:9: handlers.payment-service.grants.emit: no stream takes \"Payment.Order.Paid\"\n  hint: add it to the events of a [streams.NAME]",
            "error: t.toml:9: handlers.payment-service.grants.emit: no schema fits \"Payment.Order.Paid\"\n  hint: every emitted event is checked: add its schema to [schemas] path",
            "error: t.toml:7: handlers.payment-service.deadline: out of range\n  hint: 1ms to 5m",
        ]
    );
}

#[test]
fn limits_that_the_host_could_not_keep_are_refused() {
    let text = "[plugins]\nstack = \"32MiB\"\n[handlers.a]\nplugin = \"a\"\nlimits = { memory = \"1GiB\", tables = 100001, hostcall_bytes = \"65MiB\" }\n";
    let said = findings(text).join("\n");
    for key in
        ["handlers.a.limits.memory", "handlers.a.limits.tables", "handlers.a.limits.hostcall_bytes", "plugins.stack"]
    {
        assert!(said.contains(&format!("{key}: ")), "{key}: {said}");
    }
}

#[test]
fn a_canary_out_of_range_is_refused() {
    let wrong = "{ share = 1.5, failure_rate = nan, slower = 0.5, min_events = 0 }";
    let of = |canary| {
        let head = "[streams.s]\nevents=[\"*\"]\n[handlers.a]\nplugin=\"a\"\nevents=[\"Order.Created\"]\n";
        findings(&format!("{head}canary = {canary}\n"))
    };
    assert_eq!(of("{}"), [""; 0], "the defaults are good");
    let said = of(wrong);
    for (key, line) in ["share", "failure_rate", "slower", "min_events"].iter().zip(&said) {
        assert!(line.contains(&format!("handlers.a.canary.{key}: out of range")), "{line}");
    }
    assert_eq!(said.len(), 4, "{said:?}");
}

#[test]
fn each_key_of_a_canary_reaches_its_judge() {
    let keys = r#"share = 0.3, min_events = 7, failure_rate = 0.2, slower = 1.5, min_time = "9s""#;
    let text = format!("[handlers.a]\nplugin=\"a\"\ncanary = {{ {keys} }}\n");
    let config = crate::read::parse(&text, Path::new("t.toml"), "".into(), &[]).unwrap();
    let CanaryPolicy { share, min_events, failure_rate, slower, min_time } =
        config.handlers["a"].canary.as_ref().unwrap();
    assert_eq!((*share, *min_events, *failure_rate, *slower, min_time.as_secs()), (0.3, 7, 0.2, 1.5, 9));
}

#[test]
fn a_type_without_a_schema_is_said() {
    let said =
        findings("[streams.s]\nevents=[\"*\"]\n[handlers.a]\nplugin=\"a\"\nevents=[\"Order.Creatd\"]\n").join("\n");
    assert!(said.contains("\"Order.Creatd\" has no schema\n  hint: did you mean \"Order.Created\"?"), "{said}");
}

/// Reaches `DEAD_LETTER_EXTRA_BYTES`.
#[test]
fn bounds_that_would_lose_dead_letters_are_refused() {
    let said = |host: &str| findings(&format!("[host]\n{host}\n")).join("\n");
    let none = said("dead_letters_max = 0");
    assert!(none.contains("t.toml:2: host.dead_letters_max: half of it is for events that never ran"), "{none}");
    assert!(none.contains("hint: at least 2; the default is 100000"), "{none}");
    let small = said("payload_bytes_max = \"2MiB\"\ndead_letters_bytes_max = \"4223KiB\"");
    assert!(small.contains("t.toml:3: host.dead_letters_bytes_max: 4.1 MiB may be too small"), "{small}");
    assert!(small.contains("twice host.payload_bytes_max and 64.0 KiB for its reason and attempts"), "{small}");
    let good = said("payload_bytes_max = \"2MiB\"\ndead_letters_max = 2\ndead_letters_bytes_max = \"4224KiB\"");
    assert!(!good.contains("host."), "{good}");
}

#[test]
fn retries_have_a_bound() {
    let said = |max| findings(&format!("[handlers.a]\nplugin = \"a\"\nretry = {{ max = {max} }}\n")).join("\n");
    assert!(said(1001).contains("handlers.a.retry.max: out of range\n  hint: 0 to 1000"), "{}", said(1001));
    assert!(!said(1000).contains("retry"), "{}", said(1000));
}

#[test]
fn a_finding_names_the_line_of_its_key_however_the_key_is_written() {
    let line = |text: &str, key: &str| line_of(text, key);
    let inline =
        "[handlers.a]\nplugin = \"a\"\nlimits = { memory = \"1GiB\", tables = 1 }\n[handlers.a.grants]\nstate = true\n";
    assert_eq!(line(inline, "handlers.a.limits.memory"), Some(3));
    assert_eq!(line(inline, "handlers.a.grants.emit"), Some(4), "the table, where the key is missing");
    assert_eq!(line(inline, "handlers.a.deadline"), Some(1));
    let over_lines = "[handlers]\na = { plugin = \"a\", limits = {\n  # memory = 1\n  memory = \"1GiB\",\n} }\n";
    assert_eq!(line(over_lines, "handlers.a.limits.memory"), Some(4));
    assert_eq!(line("handlers.a.limits.memory = 1\n\nhandlers.a.plugin = \"a\"\n", "handlers.a.plugin"), Some(3));
    let dotted = "[streams.\"a.b\"]\nmaxlen = 0\n[streams.a]\nmaxlen = 1\n[routing]\n\"Order.Created\" = []\n";
    assert_eq!((line(dotted, "streams.a.b.maxlen"), line(dotted, "streams.a.maxlen")), (Some(2), Some(4)));
    assert_eq!(line(dotted, "routing.\"Order.Created\""), Some(6));
    assert_eq!((line(dotted, "host.batch"), line("no toml", "host.batch")), (None, None));
}
