//! A host outlives its own log: a reader of stderr that goes away, a disk that is full, a pipe that nobody empties.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::{Place, Running};

/// Events that become dead letters at once, with a line of log for each.
fn reject(place: &Place, count: usize) {
    let body = format!("{{\"event_id\": \"{}\"}}", "x".repeat(1500));
    place.put_bodies(vec![body; count]);
}

/// It has worked all of it off, knows what it could not say, and ends when it is told to.
fn works_on(place: &Place, mut host: Running, cause: &str, dead: u64) {
    place.until(&host, |status| status.dead == dead && status.waiting() == 0);
    place.works(&host);
    let lost = host.metric(&format!("tidemill_log_lines_lost_total{{cause=\"{cause}\"}}"));
    assert!(lost > 0, "{}", host.get("/metrics").1);
    let (status, text) = host.get("/readyz");
    assert!(status == 200 && text.contains("log lines lost since the start: "), "{status} {text}");
    host.stops();
}

#[test]
fn the_reader_of_the_log_goes_away() {
    let place = Place::on_sqlite();
    let child = place.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut host = Running { child, log: place.folder.path().join("none"), port: place.port };
    let said = BufReader::new(host.child.stderr.take().unwrap());
    let started = said.lines().any(|line| line.is_ok_and(|line| line.contains("host started")));
    assert!(started, "its log begins with that");
    reject(&place, 20);
    works_on(&place, host, "unwritable", 20);
}

#[test]
fn the_disk_under_the_log_is_full() {
    let place = Place::on_sqlite();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = place.command(&["run"]).stderr(full).spawn().unwrap();
    let host = Running { child, log: place.folder.path().join("none"), port: place.port };
    reject(&place, 20);
    works_on(&place, host, "unwritable", 20);
}

/// Reaches `LOG_QUEUE_BYTES_MAX` and `LOG_FLUSH_MAX`.
#[test]
fn nobody_empties_the_pipe_of_the_log() {
    let place = Place::on_sqlite();
    let mut child = place.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let pipe = child.stderr.take().unwrap();
    let host = Running { child, log: place.folder.path().join("none"), port: place.port };
    let mut dead = 0;
    while host.metric("tidemill_log_lines_lost_total{cause=\"queue-full\"}") == 0 {
        reject(&place, 1000);
        dead += 1000;
        place.until(&host, |status| status.dead == dead);
        assert!(dead < 50_000, "so much has room nowhere: {}", host.get("/metrics").1);
    }
    works_on(&place, host, "queue-full", dead);
    drop(pipe);
}

/// What was said before a good end is written, also into a pipe that is read slowly.
#[test]
fn the_last_lines_are_written() {
    let place = Place::on_sqlite();
    let mut host = place.start(&["run"], &[]);
    host.says("host started");
    host.stops();
    assert!(host.said().trim_end().lines().last().is_some_and(|line| line.contains("host stopped")), "{}", host.said());
}

/// Panics are lines of the log, whatever its form.
#[test]
fn a_panic_is_a_line_of_the_log() {
    let place = Place::on_sqlite();
    let mut host = place.start(&["run", "--log-json"], &[("TIDEMILL_PANIC", "janitor:1")]);
    host.says("it died, and is started again");
    for line in host.said().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    host.stops();
}
