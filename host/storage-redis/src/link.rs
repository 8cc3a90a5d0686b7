//! A connection to Redis that is made when it is needed, shared by many calls, and replaced once it has failed.
//!
//! There are no retries in here: the caller knows better when to try again. The library's own connection manager is not
//! used because it keeps a connection whose answers no longer come, and because it goes on trying by itself.

use std::io;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline};
use redis::{ProtocolVersion, RedisError, RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::aof_guard;
use super::replies::{Bounded, ReplyBounds};
use tidemill_core::model::backend_url::BackendUrl;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;

/// To connect, from the first packet to the last answer of the greeting.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Well within the life of a heartbeat, so that there is time for another connection.
const BEAT_ANSWER_MAX: Duration = Duration::from_secs(1);
/// A peer that has been silent for this long gets a keep-alive probe.
const SILENCE_MAX: Duration = Duration::from_secs(15);

pub(super) struct Link {
    client: Client,
    bounds: ReplyBounds,
    /// Whether each connection passes the [`aof_guard`] first.
    gated: bool,
    /// A command that is not answered by then never will be.
    answer_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Counts the connections, so that a late failure of an old one does not end the new one.
    number: u64,
    failed: Option<(Instant, RedisError)>,
}

/// Reads the URL and decides how every connection to this server is made.
pub(super) fn client(url: &BackendUrl) -> RedisResult<Client> {
    let info = url.expose().into_connection_info()?;
    // Answers are taken apart by hand, so their form must not depend on a parameter of the URL.
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    Client::open(info.set_redis_settings(redis))
}

/// The server's address for people: never with a password in it.
pub(super) fn address(client: &Client) -> String {
    match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
        ConnectionAddr::Unix(path) => path.display().to_string(),
        other => format!("{other:?}"),
    }
}

impl Link {
    /// For all that is written, and groups write even when they are read.
    pub(crate) fn gated(client: Client, bounds: ReplyBounds) -> Self {
        Self { client, bounds, gated: true, answer_max: ANSWER_MAX, state: Mutex::default() }
    }

    /// For heartbeats, which must not wait: neither for the guard, nor for a connection that swallows what it is given.
    pub(crate) fn pulse(client: Client, bounds: ReplyBounds) -> Self {
        Self { client, bounds, gated: false, answer_max: BEAT_ANSWER_MAX, state: Mutex::default() }
    }

    pub(crate) async fn send(&self, cmd: &Cmd) -> RedisResult<Value> {
        self.send_within(cmd, self.answer_max).await
    }

    /// Sends one command; an error that the server answers is an `Err` too.
    pub(crate) async fn send_within(&self, cmd: &Cmd, timeout: Duration) -> RedisResult<Value> {
        let (number, mut connection) = self.connection().await?;
        connection.set_response_timeout(timeout);
        let answer = connection.send_packed_command(cmd).await.and_then(checked);
        self.keep_or_drop(number, answer).await
    }

    /// Sends several commands in one round trip; the first error that the server answers is an `Err`.
    pub(crate) async fn send_all(&self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let (number, mut connection) = self.connection().await?;
        connection.set_response_timeout(ANSWER_MAX);
        let answers = connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        let answers = answers.and_then(|answers| answers.into_iter().map(checked).collect());
        self.keep_or_drop(number, answers).await
    }

    async fn connection(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((state.number, connection.clone()));
        }
        // Many may have waited here for the same attempt: its failure is the answer to all of them.
        if let Some((at, error)) = &state.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                state.number += 1;
                state.connection = Some(connection.clone());
                Ok((state.number, connection))
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let connected = timeout(CONNECT_MAX, self.greet());
        let late = |_| RedisError::from((ErrorKind::Io, "the server did not answer in time"));
        let mut connection = connected.await.map_err(late)??;
        if self.gated {
            aof_guard::pass(&mut connection).await?;
        }
        Ok(connection)
    }

    /// Opens the socket and logs in. The library's own way to do so knows no bounds on replies.
    async fn greet(&self) -> RedisResult<MultiplexedConnection> {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) => {
                let socket = connect(host, *port).await?;
                let keepalive = TcpKeepalive::new().with_time(SILENCE_MAX).with_interval(SILENCE_MAX / 3);
                socket.set_nodelay(true)?;
                SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
                self.log_in(socket).await
            }
            ConnectionAddr::Unix(path) => self.log_in(UnixStream::connect(path).await?).await,
            _ => Err(RedisError::from((ErrorKind::InvalidClientConfig, "only TCP and Unix sockets are supported"))),
        }
    }

    async fn log_in(
        &self,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        let settings = self.client.get_connection_info().redis_settings();
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(CONNECT_MAX));
        let socket = Bounded::new(socket, self.bounds);
        let greeted = MultiplexedConnection::new_with_config(settings, socket, config).await;
        let (connection, driver) = greeted.map_err(|error| without(settings.password(), error))?;
        // Ends with the last handle of the connection.
        tasks::once(Task::Connection, driver);
        Ok(connection)
    }

    /// Gives up the connection after anything but an answer: also after a time-out, because a connection that swallows
    /// commands looks just like that. And after an answer that this is no primary any more: a new one may find it.
    async fn keep_or_drop<T>(&self, number: u64, result: RedisResult<T>) -> RedisResult<T> {
        if result.as_ref().is_err_and(|error| matches!(error.code(), None | Some("READONLY"))) {
            let mut state = self.state.lock().await;
            if state.number == number {
                state.connection = None;
            }
        }
        result
    }
}

/// Tries one address after the other. Each has its share of the time: one that swallows packets hides no other.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    let share = CONNECT_MAX / u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

/// Some servers and proxies answer a command that they do not know with its arguments, and AUTH has the password in
/// them.
fn without(password: Option<&str>, error: RedisError) -> RedisError {
    let said = error.to_string();
    let repeats = |password: &str| said.contains(password) || said.contains(&*password.escape_debug().to_string());
    if !password.is_some_and(repeats) {
        return error;
    }
    let instead = "the login is refused, in words that repeat the password and are not shown";
    redis::make_extension_error("WRONGPASS".to_owned(), Some(instead.to_owned()))
}

/// An error that the server answers is an error.
fn checked(answer: Value) -> RedisResult<Value> {
    match answer {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_the_password_is_replaced() {
        let answer = |text: &str| redis::make_extension_error("ERR".to_owned(), Some(text.to_owned()));
        let unknown = "unknown command 'AUTH', with args beginning with: 'ada' 'a\\\"b'";
        let said = without(Some("a\"b"), answer(unknown)).to_string();
        assert!(said.contains("the login is refused") && !said.contains("a\\\"b"), "{said}");
        assert!(without(Some("other"), answer(unknown)).to_string().contains("unknown command"));
        assert!(without(None, answer(unknown)).to_string().contains("unknown command"));
    }
}
