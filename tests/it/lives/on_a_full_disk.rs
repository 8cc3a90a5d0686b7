//! Commands that only look write nothing: they work on a full disk, and beside a file that another program holds.

use std::process::Command;

use serde_json::json;

use super::Place;

const LOOKING: [&[&str]; 6] =
    [&["status"], &["doctor"], &["state", "caller"], &["dead", "ls"], &["dead", "audit"], &["status", "--json"]];

/// A place with a committed event in it.
fn used() -> Place {
    let place = Place::on_sqlite();
    place.put(&json!({ "do": "ok" }), 1);
    assert_eq!(place.start(&["run", "--until-idle"], &[]).ends(), Some(0));
    place
}

#[test]
fn looking_works_where_nothing_can_be_written() {
    let place = used();
    let before = std::fs::read(place.database()).unwrap();
    for args in LOOKING {
        let command = place.command(args);
        // No file may grow in this shell, which is what a full disk looks like to a program.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"trap "" XFSZ; ulimit -f 0; exec "$@""#, "sh"]).arg(command.get_program());
        let output = shell.args(command.get_args()).env("NO_COLOR", "1").output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    }
    assert_eq!(std::fs::read(place.database()).unwrap(), before, "nothing was written");
}

#[test]
fn looking_works_beside_a_file_that_is_held() {
    let place = used();
    let held = rusqlite::Connection::open(place.database()).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    for args in LOOKING {
        let output = place.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    held.execute_batch("ROLLBACK").unwrap();
}

/// What writes says whose fault it is.
#[test]
fn what_writes_says_that_the_file_is_held() {
    let place = used();
    let held = rusqlite::Connection::open(place.database()).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let output = place.command(&["plugin", "pause", "caller"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("database is locked"), "{said}");
}
