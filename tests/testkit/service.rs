//! A service in the outside world: an HTTP server on a port of its own, which does as the path says and remembers what
//! it was asked.
//!
//! | path | answers |
//! |---|---|
//! | `/status/N` | that status |
//! | `/redirect/URL` | 302 to that URL |
//! | `/big/N`, `/stream/N` | N bytes, with and without a length said before |
//! | `/head/N` | a header of N bytes |
//! | `/drip` | one byte after the other, without end |
//! | `/hang` | nothing before `release` |
//! | `/nap` | 200, a little later |

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub struct Service {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<Asked>>,
    now: AtomicUsize,
    peak: AtomicUsize,
    answered: AtomicUsize,
    released: Mutex<bool>,
    bell: Condvar,
}

#[derive(Debug, Clone)]
pub struct Asked {
    /// `POST /status/200`
    pub line: String,
    /// Lines of the head, as they came.
    pub headers: Vec<String>,
    pub body: usize,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
            .map(|(_, value)| value)
    }
}

impl Service {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Seen::default());
        let all = seen.clone();
        let answers = move || {
            for stream in listener.incoming().flatten() {
                let seen = all.clone();
                // Who asks may hang up at any time.
                let one = std::thread::Builder::new().name("service-answer".to_owned());
                one.spawn(move || seen.serve(stream).is_ok()).expect("a thread");
            }
        };
        std::thread::Builder::new().name("service".to_owned()).spawn(answers).expect("a thread");
        Self { address, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.seen.asked.lock().unwrap().clone()
    }

    /// Requests that were here at the same time, at most.
    pub fn peak(&self) -> usize {
        self.seen.peak.load(SeqCst)
    }

    /// Requests that have had an answer.
    pub fn answered(&self) -> usize {
        self.seen.answered.load(SeqCst)
    }

    /// Lets all go that hang.
    pub fn release(&self) {
        *self.seen.released.lock().unwrap() = true;
        self.seen.bell.notify_all();
    }
}

impl Seen {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
        let mut asked = Asked { line, headers: lines, body: 0 };
        let mut body = vec![0; asked.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)];
        reader.read_exact(&mut body)?;
        asked.body = body.len();
        let path = asked.line.split(' ').nth(1).unwrap_or_default().to_owned();
        self.peak.fetch_max(self.now.fetch_add(1, SeqCst) + 1, SeqCst);
        self.asked.lock().unwrap().push(asked);
        self.wait(&path);
        // Before the answer: who has it may ask again at once.
        self.now.fetch_sub(1, SeqCst);
        self.answer(stream, &path)
    }

    fn wait(&self, path: &str) {
        match path {
            "/hang" => {
                let mut released = self.released.lock().unwrap();
                while !*released {
                    released = self.bell.wait(released).unwrap();
                }
            }
            "/nap" => std::thread::sleep(Duration::from_millis(30)),
            _ => {}
        }
    }

    fn answer(&self, mut stream: TcpStream, path: &str) -> std::io::Result<()> {
        let path = path.split('?').next().unwrap_or_default().trim_start_matches('/');
        let (what, rest) = path.split_once('/').unwrap_or((path, ""));
        let number = rest.parse::<usize>().unwrap_or(200);
        let head = |status: usize, more: &str| format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{more}\r\n");
        match what {
            "redirect" => write!(stream, "{}", head(302, &format!("Location: {rest}\r\nContent-Length: 0\r\n")))?,
            "big" => {
                write!(stream, "{}", head(200, &format!("Content-Length: {number}\r\n")))?;
                stream.write_all(&vec![b'x'; number])?;
            }
            "stream" => {
                write!(stream, "{}{number:x}\r\n", head(200, "Transfer-Encoding: chunked\r\n"))?;
                stream.write_all(&vec![b'x'; number])?;
                write!(stream, "\r\n0\r\n\r\n")?;
            }
            "head" => write!(stream, "{}", head(200, &format!("X: {}\r\nContent-Length: 0\r\n", "x".repeat(number))))?,
            "drip" => {
                write!(stream, "{}", head(200, "Content-Length: 1000\r\n"))?;
                loop {
                    stream.write_all(b"x")?;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            _ => write!(stream, "{}", head(number, "Content-Length: 0\r\n"))?,
        }
        self.answered.fetch_add(1, SeqCst);
        Ok(())
    }
}
