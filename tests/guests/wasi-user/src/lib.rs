//! A guest that uses WASI as its event's data says. It needs no WASI toolchain: it imports the few functions that it
//! calls by itself, in a version that is older than the host's.
//!
//! | `do` | does | reads |
//! |---|---|---|
//! | `wall` | emits {"n": seconds since 1970} | |
//! | `monotonic` | emits {"n": nanoseconds between two looks} | |
//! | `random` | emits {"n": how many of two numbers and two lists of bytes differ from each other} | `bytes` |
//! | `insecure` | fails, may be retried, with all insecure randomness as the reason | |
//! | `sleep` | waits for a pollable that often, then emits {"n": how often} | `ms`, `count` |
//! | `poll` | polls a list that holds one pollable that often, and emits {"n": how many are ready} | `ms`, `count` |
//! | `print` | writes the text to standard output and error, then fails for good | `text` |
//! | `zeroes` | writes that many zeroes at once, then fails for good | `bytes` |
//! | `print-flood` | writes that many lines | `count` |
//! | `surroundings` | emits {"n": arguments, variables, folders, and bytes to read, in all} | |
//! | `exit` | ends the process, as it thinks | |
//! | `leak` | opens that many handles and drops none, emits {"n": how often this instance was asked} | `count` |

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use tidemill_sdk::prelude::*;
use wasi::cli::{environment, exit, stderr, stdin, stdout};
use wasi::clocks::{monotonic_clock, wall_clock};
use wasi::filesystem::preopens;
use wasi::io::poll::poll;
use wasi::random::{insecure, insecure_seed, random};

wit_bindgen::generate!({
    inline: r#"
        package test:wasi-user;

        world wasi-user {
            import wasi:io/poll@0.2.3;
            import wasi:io/streams@0.2.3;
            import wasi:clocks/wall-clock@0.2.3;
            import wasi:clocks/monotonic-clock@0.2.3;
            import wasi:random/random@0.2.3;
            import wasi:random/insecure@0.2.3;
            import wasi:random/insecure-seed@0.2.3;
            import wasi:cli/environment@0.2.3;
            import wasi:cli/exit@0.2.3;
            import wasi:cli/stdin@0.2.3;
            import wasi:cli/stdout@0.2.3;
            import wasi:cli/stderr@0.2.3;
            import wasi:filesystem/preopens@0.2.3;
        }

        package wasi:io@0.2.3 {
            interface error {
                resource error { to-debug-string: func() -> string; }
            }
            interface poll {
                resource pollable { block: func(); }
                poll: func(in: list<borrow<pollable>>) -> list<u32>;
            }
            interface streams {
                use error.{error};
                variant stream-error { last-operation-failed(error), closed }
                resource input-stream { blocking-read: func(len: u64) -> result<list<u8>, stream-error>; }
                resource output-stream {
                    blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
                    blocking-write-zeroes-and-flush: func(len: u64) -> result<_, stream-error>;
                }
            }
        }
        package wasi:clocks@0.2.3 {
            interface wall-clock {
                record datetime { seconds: u64, nanoseconds: u32 }
                now: func() -> datetime;
            }
            interface monotonic-clock {
                use wasi:io/poll@0.2.3.{pollable};
                now: func() -> u64;
                subscribe-duration: func(when: u64) -> pollable;
            }
        }
        package wasi:random@0.2.3 {
            interface random {
                get-random-bytes: func(len: u64) -> list<u8>;
                get-random-u64: func() -> u64;
            }
            interface insecure {
                get-insecure-random-bytes: func(len: u64) -> list<u8>;
                get-insecure-random-u64: func() -> u64;
            }
            interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
        }
        package wasi:cli@0.2.3 {
            interface environment {
                get-environment: func() -> list<tuple<string, string>>;
                get-arguments: func() -> list<string>;
                initial-cwd: func() -> option<string>;
            }
            interface exit { exit: func(status: result); }
            interface stdin { use wasi:io/streams@0.2.3.{input-stream}; get-stdin: func() -> input-stream; }
            interface stdout { use wasi:io/streams@0.2.3.{output-stream}; get-stdout: func() -> output-stream; }
            interface stderr { use wasi:io/streams@0.2.3.{output-stream}; get-stderr: func() -> output-stream; }
        }
        package wasi:filesystem@0.2.3 {
            interface types { resource descriptor; }
            interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
        }
    "#,
    generate_all,
});

handler!(handle);

#[derive(Deserialize)]
struct Data {
    r#do: String,
    #[serde(default)]
    ms: u64,
    #[serde(default)]
    count: usize,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    text: String,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let data: Data = event.json()?;
    let n = match data.r#do.as_str() {
        "wall" => wall_clock::now().seconds as i64,
        "monotonic" => {
            let first = monotonic_clock::now();
            monotonic_clock::now() as i64 - first as i64
        }
        "random" => {
            let numbers = random::get_random_u64() != random::get_random_u64();
            let bytes = random::get_random_bytes(data.bytes) != random::get_random_bytes(data.bytes);
            i64::from(numbers) + i64::from(bytes)
        }
        "insecure" => return Err(Failure::retry(all_insecure())),
        "sleep" => sleep(data.ms, data.count),
        "poll" => {
            let pollable = monotonic_clock::subscribe_duration(data.ms.saturating_mul(1_000_000));
            poll(&vec![&pollable; data.count]).len() as i64
        }
        "print" => {
            print(&stdout::get_stdout(), &data.text);
            print(&stderr::get_stderr(), &data.text);
            return Err(Failure::reject("printed"));
        }
        "zeroes" => {
            let _ = stdout::get_stdout().blocking_write_zeroes_and_flush(data.bytes); // as in `print`
            return Err(Failure::reject("printed"));
        }
        "print-flood" => {
            (0..data.count).for_each(|n| print(&stdout::get_stdout(), &format!("{n}\n")));
            data.count as i64
        }
        "surroundings" => surroundings(),
        "exit" => {
            exit::exit(Ok(()));
            0
        }
        "leak" => {
            (0..data.count).for_each(|_| std::mem::forget(stdout::get_stdout()));
            remember()
        }
        unknown => return Err(Failure::reject(format!("nothing is called {unknown:?}"))),
    };
    emit("Test.Thing.Done.v1", &json!({ "n": n })).map(drop)
}

fn all_insecure() -> String {
    let (seed, number) = (insecure_seed::insecure_seed(), insecure::get_insecure_random_u64());
    format!("{seed:?} {number} {:?}", insecure::get_insecure_random_bytes(40))
}

fn sleep(ms: u64, count: usize) -> i64 {
    for _ in 0..count {
        monotonic_clock::subscribe_duration(ms.saturating_mul(1_000_000)).block();
    }
    count as i64
}

fn print(stream: &wasi::io::streams::OutputStream, text: &str) {
    let _ = stream.blocking_write_and_flush(text.as_bytes()); // what a guest prints may be dropped
}

fn surroundings() -> i64 {
    let read = stdin::get_stdin().blocking_read(100).map_or(0, |bytes| bytes.len());
    let folders = preopens::get_directories().len() + usize::from(environment::initial_cwd().is_some());
    (read + folders + environment::get_arguments().len() + environment::get_environment().len()) as i64
}

/// What no handler should do: a static outlives the event, as long as its instance does.
fn remember() -> i64 {
    static ASKED: AtomicI64 = AtomicI64::new(0);
    ASKED.fetch_add(1, Relaxed) + 1
}
