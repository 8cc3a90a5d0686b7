//! A network that fails on request: a TCP proxy that stalls, loses, cuts up, delays or resets what passes through it.
//!
//! ```text
//! host  --->  Proxy { port }  --- mode --->  server (may be another one after `lead_to`)
//! ```
//! A connection that has lost bytes stays deaf for the rest of its life: no real network goes on with a hole in the
//! stream, and an answer that arrives in the place of a lost one would be a lie.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What the network does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Bytes are kept, and delivered when the mode changes.
    Stall,
    /// Bytes vanish both ways; the connections stay open.
    BlackHole,
    /// Every connection is reset, and every new one too.
    Reset,
    /// So many bytes of the next reply pass, then its connection is reset. Once; then it is `Pass` again.
    ResetMidReply(usize),
    /// Pieces of so many bytes, each a packet of its own.
    Chop(usize),
    Delay {
        ms: u64,
        jitter_ms: u64,
    },
    /// Requests go through, replies vanish.
    DropReplies,
}

/// How the network breaks at a command.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Break {
    /// The server does what it is asked to, and the connection is reset in the place of its answer.
    Reply,
    /// Every connection is reset, and every new one too, for so long.
    Away(Duration),
}

/// Bytes that a request is searched for across two reads at most.
const NEEDLE_MAX: usize = 64;

pub(crate) struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    listener: AbortHandle,
}

struct Shared {
    mode: watch::Sender<Mode>,
    /// Counts how often all connections of the moment were reset.
    cuts: watch::Sender<u64>,
    upstream: AtomicU16,
    requests: AtomicU64,
    replies: AtomicU64,
    trap: Mutex<Trap>,
    /// Commands that have come.
    commands: AtomicU64,
    /// At which of them to break, and how.
    breaks: Mutex<Option<(u64, Break)>>,
}

/// What to do when a request holds these bytes.
#[derive(Default)]
struct Trap {
    needle: Vec<u8>,
    mode: Option<Mode>,
    /// What followed the needle, up to the end of its line, each time that it passed.
    caught: Vec<String>,
}

impl Proxy {
    pub(crate) async fn start(upstream_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let shared = Arc::new(Shared {
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            upstream: upstream_port.into(),
            requests: AtomicU64::new(0),
            replies: AtomicU64::new(0),
            trap: Mutex::default(),
            commands: AtomicU64::new(0),
            breaks: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { port, shared, listener: accepting.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Resets the connections that there are; new ones pass.
    pub(crate) fn cut(&self) {
        self.set(Mode::Pass);
        self.shared.cuts.send_modify(|count| *count += 1);
    }

    /// Changes to `mode` just before a request with these bytes passes. What follows them is kept: see `caught`.
    pub(crate) fn set_when(&self, needle: &[u8], mode: Option<Mode>) {
        assert!(needle.len() <= NEEDLE_MAX);
        *self.shared.trap() = Trap { needle: needle.to_vec(), mode, caught: Vec::new() };
    }

    pub(crate) fn caught(&self) -> Vec<String> {
        self.shared.trap().caught.clone()
    }

    /// Commands that have come so far. What a client sends in one piece counts as one.
    pub(crate) fn commands(&self) -> u64 {
        self.shared.commands.load(Ordering::Relaxed)
    }

    /// Breaks once, at the n-th command from now on.
    pub(crate) fn break_at(&self, n: u64, how: Break) {
        let mut breaks = self.shared.breaks.lock().expect("nobody panics with it");
        *breaks = Some((self.commands() + n, how));
    }

    /// New connections go there.
    pub(crate) fn lead_to(&self, upstream_port: u16) {
        self.shared.upstream.store(upstream_port, Ordering::Relaxed);
    }

    /// Bytes that were delivered: of requests and of replies.
    pub(crate) fn passed(&self) -> (u64, u64) {
        (self.shared.requests.load(Ordering::Relaxed), self.shared.replies.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.set(Mode::Reset);
    }
}

impl Shared {
    fn trap(&self) -> std::sync::MutexGuard<'_, Trap> {
        self.trap.lock().expect("nobody panics with it")
    }

    /// Another command has come, and may be the one to break at.
    fn count(self: &Arc<Self>) {
        let mut breaks = self.breaks.lock().expect("nobody panics with it");
        let number = self.commands.fetch_add(1, Ordering::Relaxed) + 1;
        match breaks.take_if(|(at, _)| number >= *at) {
            Some((_, Break::Reply)) => drop(self.mode.send_replace(Mode::ResetMidReply(0))),
            Some((_, Break::Away(time))) => {
                self.mode.send_replace(Mode::Reset);
                let shared = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    shared.mode.send_replace(Mode::Pass);
                });
            }
            None => {}
        }
    }

    /// Looks for the needle in `tail` and the new bytes, and keeps the last bytes in `tail` for the next time.
    fn watch_for(&self, tail: &mut Vec<u8>, bytes: &[u8]) {
        let mut trap = self.trap();
        if trap.needle.is_empty() {
            return;
        }
        let known = tail.len();
        tail.extend_from_slice(bytes);
        let needle = trap.needle.clone();
        // What lay wholly in the tail was seen the last time.
        let from = (known + 1).saturating_sub(needle.len());
        let hits = (from..tail.len()).filter(|at| tail[*at..].starts_with(&needle));
        let caught: Vec<String> = hits.map(|at| line(&tail[at + needle.len()..])).collect();
        if !caught.is_empty()
            && let Some(mode) = trap.mode.take()
        {
            self.mode.send_replace(mode);
        }
        trap.caught.extend(caught);
        tail.drain(..tail.len().saturating_sub(needle.len() - 1));
    }
}

fn line(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == b'\r').unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(connect(client, shared.clone()));
    }
}

async fn connect(mut client: TcpStream, shared: Arc<Shared>) {
    let upstream = TcpStream::connect(("127.0.0.1", shared.upstream.load(Ordering::Relaxed))).await;
    let Ok(mut upstream) = upstream else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = upstream.split();
        let (mode, cuts) = (shared.mode.subscribe(), shared.cuts.subscribe());
        let up = Pump { shared, mode, cuts, replies: false, deaf: false };
        let down = Pump { replies: true, ..up.clone() };
        tokio::select! {
            end = up.run(from_client, to_server) => end,
            end = down.run(from_server, to_client) => end,
        }
    };
    if end == End::Reset {
        // Closing then sends a reset, and nothing that is still in a buffer.
        let _ = (client.set_zero_linger(), upstream.set_zero_linger());
    }
}

#[derive(PartialEq, Eq)]
enum End {
    /// One of the two has closed it.
    Closed,
    Reset,
}

/// One direction of one connection. When it returns, both directions end.
#[derive(Clone)]
struct Pump {
    shared: Arc<Shared>,
    mode: watch::Receiver<Mode>,
    cuts: watch::Receiver<u64>,
    replies: bool,
    /// Has lost bytes, and will never deliver any again.
    deaf: bool,
}

impl Pump {
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        let mut buffer = vec![0; 64 * 1024];
        let mut tail = Vec::new();
        let (mut modes, mut cuts) = (self.mode.clone(), self.cuts.clone());
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                // An error means that the proxy is gone.
                _ = modes.wait_for(|mode| *mode == Mode::Reset) => return End::Reset,
                _ = cuts.changed() => return End::Reset,
            };
            let Ok(count @ 1..) = read else { return End::Closed };
            if !self.replies {
                self.shared.watch_for(&mut tail, &buffer[..count]);
                self.shared.count();
            }
            if self.deliver(&mut to, &buffer[..count]).await.is_err() {
                return End::Reset;
            }
        }
    }

    /// An error ends the connection.
    async fn deliver(&mut self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> std::io::Result<()> {
        let mode = *self.mode.borrow_and_update();
        self.deaf |= mode == Mode::BlackHole || (self.replies && mode == Mode::DropReplies);
        if self.deaf {
            return Ok(());
        }
        match mode {
            Mode::Stall => {
                while *self.mode.borrow_and_update() == Mode::Stall {
                    tokio::select! {
                        changed = self.mode.changed() => changed.map_err(std::io::Error::other)?,
                        _ = self.cuts.changed() => return Err(std::io::ErrorKind::ConnectionReset.into()),
                    }
                }
                return Box::pin(self.deliver(to, bytes)).await;
            }
            Mode::Reset => return Err(std::io::ErrorKind::ConnectionReset.into()),
            Mode::ResetMidReply(after) if self.replies => {
                self.write(to, &bytes[..after.min(bytes.len() - 1)]).await?;
                // What was written is to arrive before the reset does.
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.shared.mode.send_replace(Mode::Pass);
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            Mode::Chop(size) => {
                for piece in bytes.chunks(size) {
                    self.write(to, piece).await?;
                    tokio::task::yield_now().await;
                }
                return Ok(());
            }
            Mode::Delay { ms, jitter_ms } => {
                let span = (ms.saturating_sub(jitter_ms), ms + jitter_ms);
                let wait = rand::rng().random_range(span.0..=span.1);
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            _ => {}
        }
        self.write(to, bytes).await
    }

    async fn write(&self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> std::io::Result<()> {
        let passed = if self.replies { &self.shared.replies } else { &self.shared.requests };
        passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        to.write_all(bytes).await
    }
}
