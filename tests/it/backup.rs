//! Files: whose they are when they are made, copies of the database and their way back, and paths that are none.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidemill_conformance::options;
use tidemill_storage::{Backend, NewEntry};
use tidemill_testkit::server::RedisServer;

const CLOSED_WITHIN: Duration = Duration::from_secs(60);

/// A folder with a configuration; commands run in it.
struct Project(tempfile::TempDir);

impl Project {
    fn new(url: &str) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        let schemas = tidemill_testkit::root().join("tests/schemas");
        let text = format!(
            "[backend]\nurl = \"{url}\"\n[schemas]\npath = \"{}\"\n[streams.asked]\nevents = [\"Test.Thing.Asked\"]\n",
            schemas.display()
        );
        std::fs::write(project.path("tidemill.toml"), text).unwrap();
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Under a umask that forbids nothing.
    fn run(&self, args: &[&str]) -> Output {
        let program = tidemill_testkit::tidemill();
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"umask 0; exec "$@""#, "sh"]).arg(program.get_program());
        shell.args(args).current_dir(self.0.path()).output().unwrap()
    }

    async fn open(&self) -> std::sync::Arc<dyn Backend> {
        tidemill::backends::open(&format!("sqlite:{}", self.path("a.db").display()), options()).await.unwrap()
    }

    /// Waits until the last connection has gone, and the log with it.
    fn is_closed(&self) {
        let end = Instant::now() + CLOSED_WITHIN;
        while self.path("a.db-wal").exists() {
            assert!(Instant::now() < end, "the log is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn entries(&self) -> usize {
        self.open().await.entries("asked", None, 1000).await.unwrap().len()
    }
}

fn said(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o7777
}

async fn publish(backend: &dyn Backend, times: usize) {
    let entries = vec![NewEntry { body: vec![b'x'; 2000].into(), dedup_key: None }; times];
    backend.publish("asked", &entries).await.unwrap();
}

/// Database and log as a host that was killed leaves them.
fn crashed(project: &Project, into: &Project) {
    for name in ["a.db", "a.db-wal"] {
        std::fs::copy(project.path(name), into.path(name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_database_is_its_owner_s_alone_and_an_open_one_is_warned_of() {
    let project = Project::new("sqlite:a.db");
    assert_eq!(said(&project.run(&["status"])).0, 0);
    assert_eq!(mode(&project.path("a.db")), 0o600, "whatever the umask");
    let open = project.open().await;
    publish(&*open, 3).await;
    assert_eq!(["-wal", "-shm"].map(|end| mode(&project.path(&format!("a.db{end}")))), [0o600, 0o600]);
    drop(open);
    let (_, text) = said(&project.run(&["doctor"]));
    assert!(!text.contains("file modes"), "{text}");
    std::fs::set_permissions(project.path("a.db"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = said(&project.run(&["doctor"]));
    assert!(code == 0 && text.contains("warning  file modes") && text.contains("(mode 0644)"), "{text}");
    assert_eq!(mode(&project.path("a.db")), 0o644, "what is there is its owner's to change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_made_while_hosts_work_and_brings_back_what_was_there() {
    let project = Project::new("sqlite:a.db");
    let at_work = project.open().await;
    publish(&*at_work, 100).await;
    let output = project.run(&["backup", "copy.db", "--json"]);
    let told: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", said(&output)));
    let copy = project.path("copy.db");
    assert_eq!((mode(&copy), told["bytes"].as_u64()), (0o600, Some(copy.metadata().unwrap().len())));
    publish(&*at_work, 50).await;
    let (code, text) = said(&project.run(&["backup", "copy.db"]));
    assert!(code == 2 && text.contains("there is a file already"), "{text}");
    let (code, text) = said(&project.run(&["backup", "no/such/copy.db"]));
    assert!(code == 2 && text.contains("hint: "), "{text}");
    let names = std::fs::read_dir(project.0.path()).unwrap().flatten().map(|entry| entry.file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "nothing is left beside it");
    // The way back, with all of the old database's files away.
    let elsewhere = Project::new("sqlite:a.db");
    std::fs::copy(&copy, elsewhere.path("a.db")).unwrap();
    assert_eq!(elsewhere.entries().await, 100);
    assert_eq!(at_work.entries("asked", None, 1000).await.unwrap().len(), 150, "it went on meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_beside_another_database_s_log_is_refused_and_nothing_is_touched() {
    let project = Project::new("sqlite:a.db");
    let at_work = project.open().await;
    publish(&*at_work, 20).await;
    assert_eq!(said(&project.run(&["backup", "ours.db"])).0, 0);
    let copies = rusqlite::Connection::open(project.path("a.db")).unwrap();
    copies.execute("VACUUM INTO ?1", [project.path("vacuum.db").to_str().unwrap()]).unwrap();
    // A copy of the bare file, from before the last start.
    let before = Project::new("sqlite:a.db");
    crashed(&project, &before);
    drop(before.open().await);
    before.is_closed();
    std::fs::copy(before.path("a.db"), project.path("bare.db")).unwrap();
    for _ in 0..2 {
        before.entries().await;
        // Else the next one goes on with the same log, which then may be the copy's.
        before.is_closed();
    }
    let later = before.open().await;
    publish(&*later, 5).await;
    publish(&*at_work, 30).await;
    for (name, log) in [("ours.db", &project), ("vacuum.db", &project), ("bare.db", &before)] {
        let restored = Project::new("sqlite:a.db");
        crashed(log, &restored);
        std::fs::copy(project.path(name), restored.path("a.db")).unwrap();
        let files = || ["a.db", "a.db-wal"].map(|name| std::fs::read(restored.path(name)).unwrap());
        let before = files();
        for args in [&["status"][..], &["backup", "again.db"], &["doctor"]] {
            let (code, text) = said(&restored.run(args));
            assert!(
                code > 0 && text.contains("is another database's") && text.contains("backup.md"),
                "{name}, {args:?}: {text}"
            );
        }
        assert!(files() == before, "{name}: the files are as they were");
        std::fs::remove_file(restored.path("a.db-wal")).unwrap();
        assert_eq!(restored.entries().await, 20, "{name}");
    }
}

/// So that `cp` is good after it.
#[test]
fn a_clean_end_leaves_no_log() {
    let project = Project::new("sqlite:a.db");
    let events: String = (0..200)
        .map(|_| {
            format!(
                "{}\n",
                tidemill_testkit::world::event(uuid::Uuid::new_v4(), serde_json::json!({ "do": "nothing" }))
            )
        })
        .collect();
    std::fs::write(project.path("events.jsonl"), events).unwrap();
    for _ in 0..5 {
        for args in [&["publish", "events.jsonl"][..], &["run", "--until-idle"], &["dead", "ls"]] {
            let (code, text) = said(&project.run(args));
            assert_eq!(code, 0, "{args:?}: {text}");
            let log = std::fs::metadata(project.path("a.db-wal")).map_or(0, |log| log.len());
            assert_eq!(log, 0, "after {args:?}");
        }
    }
}

/// What is refused above must not be refused here: a log is the only place where the last events are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_taken_for_its_own_database_in_every_state() {
    let project = Project::new("sqlite:a.db");
    let mut hosts = vec![project.open().await];
    let stranger = rusqlite::Connection::open(project.path("a.db")).unwrap();
    stranger.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    let mut published = 0;
    for step in 0..40 {
        match step % 8 {
            0 if step % 16 == 0 => hosts.push(project.open().await),
            0 => drop(hosts.remove(0)),
            3 => _ = stranger.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())),
            5 => _ = stranger.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())),
            6 => _ = stranger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())),
            7 => _ = stranger.execute_batch("VACUUM"),
            _ => {
                publish(&**hosts.last().unwrap(), step).await;
                published += step;
            }
        }
        let copy = Project::new("sqlite:a.db");
        crashed(&project, &copy);
        assert_eq!(copy.entries().await, published, "step {step}");
    }
}

#[test]
fn what_is_no_path_of_a_file_is_refused_by_name() {
    let project = Project::new("sqlite:a.db");
    let status = |path: &str| said(&project.run(&["status", "--backend", &format!("sqlite:{path}")]));
    for path in
        ["file:x.db?mode=memory", "file:x.db", "x.db?mode=memory&cache=shared", "//x.db", ":memory:?cache=shared", ""]
    {
        let (code, text) = status(path);
        assert!(code == 2 && text.contains("names no file") && text.contains("hint: "), "{path}: {text}");
        let text = std::fs::read_to_string(project.path("tidemill.toml"))
            .unwrap()
            .replace("sqlite:a.db", &format!("sqlite:{path}"));
        std::fs::write(project.path("odd.toml"), text).unwrap();
        let (code, text) = said(&project.run(&["publish", "-", "--config", "odd.toml"]));
        assert!(code == 2 && text.contains("names no file"), "{path}: {text}");
    }
    std::fs::create_dir(project.path("folder")).unwrap();
    symlink("nowhere", project.path("link")).unwrap();
    assert!(Command::new("mkfifo").arg(project.path("pipe")).status().unwrap().success());
    for (path, why) in [
        ("folder", "this is a folder"),
        ("pipe", "not a file but a pipe"),
        ("link", "a link that leads nowhere"),
        ("no/such/a.db", "there is no folder"),
        ("/dev/null", "not a file but a pipe"),
    ] {
        let (code, text) = status(path);
        assert!(code > 0 && text.contains(why) && text.contains("hint: "), "{path}: {text}");
    }
    // A link leads to a database, and its log lies beside that.
    assert_eq!(status("a.db").0, 0);
    symlink("a.db", project.path("to")).unwrap();
    assert_eq!(status("to").0, 0);
    assert_eq!(status("x y?.db").0, 0, "an odd path is a path");
    assert!(project.path("x y?.db").is_file() && !project.path("to-wal").exists());
}

#[test]
fn only_a_file_is_backed_up() {
    let server = RedisServer::shared();
    let project = Project::new(&server.url());
    let (code, text) = said(&project.run(&["backup", "copy.db"]));
    assert!(code == 2 && text.contains("only a SQLite file") && text.contains("backup.md"), "{text}");
    for (url, why) in [("sqlite::memory:", "in memory"), ("sqlite:none.db", "there is no such file")] {
        let (code, text) = said(&project.run(&["backup", "copy.db", "--backend", url]));
        assert!(code == 2 && text.contains(why), "{url}: {text}");
    }
    assert!(!project.path("none.db").exists() && !project.path("copy.db").exists());
}
