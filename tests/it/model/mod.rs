//! Random steps, taken on a backend and on a model of the contract side by side (`reference` is the one to read first).
//! After each step both must show the same. A case that fails is made as short as it gets before it is told.
//!
//! `TIDEMILL_CASES=2000` runs more of them; `TIDEMILL_SEED=..` begins with the case that a failure names.

mod forms;
mod look;
mod reference;
mod run;
mod settling;
mod steps;
mod tracked;

use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tidemill_storage::Options;
use tidemill_testkit::server::RedisServer;

/// Few, so that some are dropped.
const DEAD_LETTERS_MAX: usize = 2;
/// So many cases meet everything that the census knows of, many times over.
const CASES_FOR_ALL: u64 = 150;
const SHRINK_STEPS_MAX: u32 = 3000;

fn options() -> Options {
    Options {
        inbox_window: Duration::from_secs(7 * 24 * 3600),
        dead_letters_max: DEAD_LETTERS_MAX as u64,
        // Bodies are a few bytes: this one is not met.
        dead_letters_bytes_max: 256 << 20,
        timers_max: 1000,
        ..Options::default()
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Runs `TIDEMILL_CASES` (or as many as said) on this backend; `after` cleans up behind each.
fn compare(name: &str, cases: u64, url: &str, after: impl Fn()) {
    let cases = number_from_env("TIDEMILL_CASES").unwrap_or(cases);
    let first = number_from_env("TIDEMILL_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let backend = tokio.block_on(tidemill::backends::open(url, options())).expect("a backend");
    let (began, mut steps, mut census) = (Instant::now(), 0, run::census());
    eprintln!("{name}: {cases} cases from TIDEMILL_SEED={first}");
    for seed in (first..).take(usize::try_from(cases).expect("a number of cases")) {
        if let Err(failure) = case(seed, |list| {
            steps += list.len();
            let result = tokio.block_on(run::run(&*backend, DEAD_LETTERS_MAX, list, &mut census));
            after();
            result
        }) {
            panic!("{name}: TIDEMILL_SEED={seed} TIDEMILL_CASES=1 fails with these steps:\n{failure}");
        }
    }
    eprintln!("{name}: {cases} cases with {steps} steps in {:.1} s: {census:?}", began.elapsed().as_secs_f64());
    let never: Vec<_> = census.iter().filter(|(_, count)| **count == 0).map(|(what, _)| what).collect();
    assert!(cases < CASES_FOR_ALL || never.is_empty(), "these never came about: {never:?}");
}

/// One case. If it fails: the shortest list of steps that does.
fn case(seed: u64, mut run: impl FnMut(&[steps::Step]) -> anyhow::Result<()>) -> Result<(), String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { cases: 1, max_shrink_iters: SHRINK_STEPS_MAX, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let run = std::cell::RefCell::new(&mut run);
    let test =
        |list: Vec<steps::Step>| run.borrow_mut()(&list).map_err(|error| TestCaseError::fail(format!("{error:#}")));
    runner.run(&steps::steps(), test).map_err(|error| match error {
        TestError::Fail(reason, _) => reason.message().to_owned(),
        TestError::Abort(reason) => format!("given up: {reason}"),
    })
}

#[test]
fn sqlite_in_memory_does_what_the_model_says() {
    compare("SQLite in memory", 250, "sqlite::memory:", || {});
}

#[test]
fn sqlite_on_disk_does_what_the_model_says() {
    let folder = tempfile::tempdir().expect("a folder");
    compare("SQLite on disk", 60, &format!("sqlite:{}", folder.path().join("model.db").display()), || {});
}

#[test]
fn redis_does_what_the_model_says() {
    // A server of its own: it is emptied after each case.
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let client = redis::Client::open(server.url()).expect("a client");
    let mut connection = client.get_connection().expect("a connection");
    let connection = std::cell::RefCell::new(&mut connection);
    compare("Redis", 200, &server.url(), || {
        redis::cmd("FLUSHDB").exec(&mut connection.borrow_mut()).expect("an empty database");
    });
}
