//! The HTTP side, on loopback: is the host alive, is it ready, what do its books say.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::backend::{Backend, Error};
use crate::model::delivery::Source;
use crate::service::{Quiet, books};

#[derive(Clone)]
struct View {
    backend: Arc<dyn Backend>,
    sources: Arc<[Source]>,
}

/// Takes the address, or says who is in the way.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}\n  hint: another program has the port; choose another one with [http] listen"
        )
    })
}

/// Serves until it is time to stop.
pub async fn serve(listener: TcpListener, backend: Arc<dyn Backend>, sources: Vec<Source>, mut quiet: Quiet) {
    let view = View { backend, sources: sources.into() };
    let routes = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/api/status", get(api_status))
        .with_state(view);
    let stopped = async move { while !quiet.sleep(std::time::Duration::from_secs(3600)).await {} };
    if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "the HTTP side ended");
    }
}

/// Ready = the backend answers.
async fn ready(State(view): State<View>) -> Response {
    match view.backend.describe().await {
        Ok(backend) => format!("ready: {backend}\n").into_response(),
        Err(error) => unavailable(&error),
    }
}

async fn api_status(State(view): State<View>) -> Response {
    let rows = books::collect(&*view.backend, &view.sources).await;
    match (rows, view.backend.describe().await) {
        (Ok(rows), Ok(backend)) => axum::Json(books::to_json(&backend, &rows)).into_response(),
        (Err(error), _) | (_, Err(error)) => unavailable(&error),
    }
}

fn unavailable(error: &Error) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
}
