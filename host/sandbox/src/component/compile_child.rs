//! The child process that compiles one component. A hostile component may cost the compiler any amount of memory and
//! time, which is no fault of wasmtime's; so it is spent where it can be taken away.
//!
//! ```text
//! host: component --stdin--> child: own limits first, then compile --stdout--> code, or words on stderr
//! ```
//!
//! The child is this very program under another first argument, with an empty environment.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};

use crate::engine;
use tidemill_config::PluginsConfig;
use tidemill_core::limits;
use tidemill_core::model::plain_text::PlainText;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;

/// The first argument that makes a child of the program. Not a command for people.
const COMMAND: &str = "compile-component";

/// The child's exit code for a component that the compiler refuses.
const INVALID: u8 = 3;

/// How much is kept of what the child says.
const WORDS_BYTES_MAX: u64 = 4096;

/// Below everything that serves events.
const NICENESS: i32 = 10;

/// How often a child is looked at that has closed its output and not ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Why there is no compiled code.
#[derive(Debug)]
pub enum Failure {
    /// The compiler refuses the component.
    Invalid(String),
    /// It was stopped at a limit, or ended in another way than by an answer.
    Stopped { what: String, hint: String },
}

fn stopped(what: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::Stopped { what: what.into(), hint: hint.into() }
}

/// The child's side: runs if the arguments ask for it.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != COMMAND {
        return None;
    }
    let number = |text: Option<std::ffi::OsString>| text.and_then(|text| text.to_str()?.parse().ok()).unwrap_or(0);
    let (memory, cpu) = (number(args.next()), number(args.next()));
    Some(match limit(memory, cpu).and_then(|()| compile_stdin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, words)) => {
            // The reader makes them plain text.
            let _ = writeln!(std::io::stderr(), "{words}");
            ExitCode::from(code)
        }
    })
}

/// Before the first untrusted byte is read. No files, no processes, no core dump of what was in memory.
fn limit(memory: u64, cpu: u64) -> Result<(), (u8, String)> {
    let rows = [
        (Resource::As, memory, memory),
        // At the first bound a signal that tells the reason, at the second the end.
        (Resource::Cpu, cpu, cpu + 1),
        (Resource::Core, 0, 0),
        (Resource::Fsize, 0, 0),
        (Resource::Nproc, 0, 0),
        (Resource::Nofile, 16, 16),
    ];
    for (resource, current, maximum) in rows {
        // Where the host itself is held to less, so is its child.
        let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Rlimit { current: Some(current.min(most)), maximum: Some(maximum.min(most)) };
        rustix::process::setrlimit(resource, limit)
            .map_err(|error| (1, format!("cannot set the limit {resource:?} to {current}: {error}")))?;
    }
    // A courtesy to the threads that serve events; without it the limits hold all the same.
    let _ = rustix::process::nice(NICENESS);
    Ok(())
}

fn compile_stdin() -> Result<(), (u8, String)> {
    let own = |what: &str, error: std::io::Error| (1, format!("{what}: {error}"));
    let mut wasm = Vec::new();
    std::io::stdin().lock().read_to_end(&mut wasm).map_err(|error| own("reading the component", error))?;
    let engine = engine::compiling().map_err(|error| (1, error.to_string()))?;
    let code = engine.precompile_component(&wasm).map_err(|error| (INVALID, format!("{error:#}")))?;
    std::io::stdout().lock().write_all(&code).map_err(|error| own("writing the code", error))
}

/// How a child came to its end.
enum End {
    Late,
    Large,
    Ended { status: ExitStatus, code: Vec<u8>, words: String },
}

/// The host's side: compiles in a child, within the limits.
pub fn compile(wasm: &[u8], settings: &PluginsConfig) -> Result<Vec<u8>, Failure> {
    match run(start(settings)?, wasm, settings.compile_wall, limits::COMPILED_BYTES.as_u64()) {
        End::Ended { status, code, .. } if status.success() => Ok(code),
        End::Ended { status, words, .. } => Err(why(status, words, settings)),
        End::Large => Err(stopped(
            format!("compiled it is larger than {}", limits::COMPILED_BYTES),
            "no plugin needs that much code: make it smaller",
        )),
        End::Late => Err(stopped(
            format!("compiling it took longer than {}", humantime::format_duration(settings.compile_wall)),
            "make it smaller, or give it more: compile_wall under [plugins]",
        )),
    }
}

fn start(settings: &PluginsConfig) -> Result<Child, Failure> {
    let program = program()?;
    let cpu = settings.compile_cpu.as_secs().max(1);
    Command::new(&program)
        .args([COMMAND, &settings.compile_memory.as_u64().to_string(), &cpu.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| stopped(format!("cannot start the compiler {}: {error}", program.display()), PROGRAM_HINT))
}

const PROGRAM_HINT: &str = "plugins are compiled by the command `tidemill`; it has to lie beside this program";

/// This program if it is `tidemill`, else (a test, a bench) the one that cargo puts beside it or above it.
fn program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()
        .map_err(|error| stopped(format!("this program's own file is not known: {error}"), PROGRAM_HINT))?;
    let name = own.file_name().unwrap_or_default().to_string_lossy();
    // The very file that runs, also when an update has put another one in its place: its name then ends in " (deleted)".
    let running = Path::new("/proc/self/exe");
    if name == "tidemill" || name == "tidemill (deleted)" {
        return Ok(if running.exists() { running.to_owned() } else { own });
    }
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("tidemill"));
    beside.into_iter().find(|file| file.is_file()).ok_or_else(|| {
        stopped(format!("there is no compiler: no program `tidemill` beside {}", own.display()), PROGRAM_HINT)
    })
}

fn run(mut child: Child, wasm: &[u8], wall: Duration, code_max: u64) -> End {
    let begun = Instant::now();
    let (input, output, words) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let start = |thread: std::io::Result<_>| {
            thread.expect("a thread; who loads a plugin on a machine without one hears of the panic")
        };
        start(tasks::scoped(scope, Task::Compile, move || {
            // A child that ends early closes its end, and its exit tells why.
            let _ = input.map(|mut input| input.write_all(wasm));
        }));
        let words = tasks::scoped(scope, Task::Compile, move || words.map(read_words).unwrap_or_default());
        let words = words.expect("a thread; who loads a plugin on a machine without one hears of the panic");
        let (sender, receiver) = mpsc::channel();
        start(tasks::scoped(scope, Task::Compile, move || {
            let mut code = Vec::new();
            let _ = output.map(|output| output.take(code_max + 1).read_to_end(&mut code));
            let _ = sender.send(code);
        }));
        let end = match receiver.recv_timeout(wall) {
            Err(_) => None,
            Ok(code) if code.len() as u64 > code_max => Some((None, code)),
            Ok(code) => ended(&mut child, begun + wall).map(|status| (Some(status), code)),
        };
        // Whatever became of it: nothing of it is left behind, and the threads above come to their end.
        let _ = child.kill();
        let _ = child.wait();
        let words = words.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match end {
            None => End::Late,
            Some((None, _)) => End::Large,
            Some((Some(status), code)) => End::Ended { status, code, words },
        }
    })
}

/// The beginning of what it says; the rest is read too, so that it does not wait for a reader.
fn read_words(mut from: impl Read) -> String {
    let mut words = Vec::new();
    let _ = from.by_ref().take(WORDS_BYTES_MAX).read_to_end(&mut words);
    let _ = std::io::copy(&mut from, &mut std::io::sink());
    // They may quote the component, whose lines are not to look like the host's.
    PlainText::from(String::from_utf8_lossy(&words).trim().replace('\n', " ")).into()
}

/// Waits for a child that has closed its output.
fn ended(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(LOOK_EVERY),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// What a child's bad end means.
fn why(status: ExitStatus, words: String, settings: &PluginsConfig) -> Failure {
    use std::os::unix::process::ExitStatusExt;
    if status.code() == Some(i32::from(INVALID)) && !out_of_memory(&words) {
        return Failure::Invalid(words);
    }
    if out_of_memory(&words) {
        return stopped(
            format!("compiling it needs more than {} of memory", settings.compile_memory),
            "make it smaller, or give it more: compile_memory under [plugins]",
        );
    }
    if status.signal() == Some(XCPU) {
        let cpu = humantime::format_duration(settings.compile_cpu);
        return stopped(
            format!("compiling it takes more than {cpu} of processor time"),
            "make it smaller, or give it more: compile_cpu under [plugins]",
        );
    }
    if status.signal() == Some(KILL) {
        return stopped(
            "the compiler was killed",
            "most likely the machine had no memory left; compile_memory under [plugins] bounds what is taken",
        );
    }
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    stopped(format!("the compiler ended with {status}{said}"), "a bug in the compiler: report it with the component")
}

const XCPU: i32 = rustix::process::Signal::XCPU.as_raw();
const KILL: i32 = rustix::process::Signal::KILL.as_raw();

/// Rust's own words when an allocation fails, and the system's.
fn out_of_memory(words: &str) -> bool {
    ["memory allocation of", "out of memory", "Cannot allocate memory"].iter().any(|text| words.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// With a bound that is small enough for a test.
    ///
    /// Reaches `COMPILED_BYTES`.
    #[test]
    fn code_that_is_too_large_is_not_taken() {
        let writes = |bytes: u64| {
            let child = shell(&format!("cat > /dev/null; head -c {bytes} /dev/zero"));
            run(child, b"a component", Duration::from_secs(60), 100_000)
        };
        let End::Ended { status, code, .. } = writes(100_000) else { panic!("it is as large as it may be") };
        assert!(status.success() && code.len() == 100_000, "{status}, {} bytes", code.len());
        assert!(matches!(writes(100_001), End::Large));
    }

    /// Reaches `compile_child::WORDS_BYTES_MAX`.
    #[test]
    fn of_what_the_compiler_says_the_beginning_is_kept() {
        let words = "x".repeat(WORDS_BYTES_MAX as usize);
        assert_eq!(read_words(words.as_bytes()), words);
        assert_eq!(read_words(format!("{words}y").as_bytes()), words);
        let child = shell("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 3");
        let End::Ended { status, words, .. } = run(child, b"", Duration::from_secs(60), 1) else { panic!("it ends") };
        assert_eq!((status.code(), words.len()), (Some(3), WORDS_BYTES_MAX as usize), "the rest is read all the same");
    }
}
