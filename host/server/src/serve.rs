//! The server: how many may be connected, for how long, and how much they may send.
//!
//! Any process on this machine can connect. It must not be able to take the host's memory or all of its open files, and
//! a silent client must not stand in the way of one that asks whether the host lives.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_runtime::shutdown::Shutdown;

/// Connections at a time. The next one waits in the system's queue until one of these ends.
pub const CONNECTIONS_MAX: usize = 64;
/// The request's line and its headers, in bytes. No route reads a body.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
pub const HEADERS_MAX: usize = 64;
/// From the connection to the end of the headers.
pub(crate) const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);
/// From the connection to the end of the answer. A reload compiles and drains meanwhile.
pub(crate) const CONNECTION_MAX: Duration = Duration::from_secs(900);
/// When no file is left for a connection, others have to end first.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Serves until it is time to stop; what is being answered then goes on.
pub(super) async fn serve(listener: TcpListener, routes: Router, mut shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = async {
        loop {
            let place = room.clone().acquire_owned().await.expect("it is never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    let routes = routes.clone();
                    tasks::once(Task::Client, async move {
                        // A client that is too slow is disconnected.
                        let _ = tokio::time::timeout(CONNECTION_MAX, answer(stream, routes)).await;
                        drop(place);
                    });
                }
                Err(error) if is_the_client_s(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "the HTTP side cannot take connections");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown.wait() => {}
    }
}

/// One request a connection: so no client keeps an unused one, and none sends the next request before it reads.
async fn answer(stream: TcpStream, routes: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await;
    // A client's errors and disconnects are not logged: they are no fault of the host.
    drop(served);
}

fn is_the_client_s(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}
