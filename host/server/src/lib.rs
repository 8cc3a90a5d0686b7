//! The HTTP side, on loopback: is the host alive, is it ready, what do its counters and its metrics say; `admin`, which can
//! reload; `guard`, which requests are admitted; and `serve`, how many and for how long.

mod admin;
mod guard;
mod metrics;
pub mod serve;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio::net::TcpListener;

use tidemill_core::model::plain_text;
use tidemill_process::tasks;
use tidemill_runtime::observe::log_writer;
use tidemill_runtime::reload::settings::Control;
use tidemill_runtime::shutdown::Shutdown;
use tidemill_runtime::{heartbeat, status};
use tidemill_storage::{Backend, Error};

/// A backend that has not answered by then counts as away: a probe or a scrape must end before its own time-out.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What answers are made of.
#[derive(Clone)]
struct View {
    backend: Arc<dyn Backend>,
    control: Arc<Control>,
    gauges: Arc<metrics::Gauges>,
}

/// Opened once there is a host to ask; until then it answers only that it lives and is not ready.
#[derive(Clone, Default)]
pub struct Door(Arc<OnceLock<View>>);

impl Door {
    pub fn open(&self, backend: Arc<dyn Backend>, control: Arc<Control>) {
        let _ = self.0.set(View { backend, control, gauges: Arc::default() }); // it is open already
    }

    fn view(&self) -> Option<&View> {
        self.0.get()
    }
}

/// Binds the address, or reports why it cannot.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}\n  hint: another program has the port; choose another one with [http] listen"
        )
    })
}

/// Serves until it is time to stop.
pub async fn serve(listener: TcpListener, door: Door, shutdown: Shutdown) {
    let routes = Router::new()
        .route("/api/status", get(api_status))
        .route("/api/plugins", get(admin::plugins))
        .route("/api/plugins/{handler}/reload", post(admin::reload))
        .route("/api/plugins/{handler}/rollback", post(admin::rollback))
        .route("/api/reload", post(admin::reload_settings))
        .route("/healthz", get(|| async { alive() }))
        .route("/readyz", get(ready))
        .route("/metrics", get(all_metrics))
        // Around unknown paths, too: without a token no client learns which exist.
        .layer(axum::middleware::from_fn_with_state(door, guard::guard));
    serve::serve(listener, routes, shutdown).await;
}

/// Alive = a supervisor would gain nothing by restarting this process.
fn alive() -> Response {
    match tasks::is_beyond_help() {
        None => "alive\n".into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("not alive: {trouble}\n")).into_response(),
    }
}

/// What can be said before there is a host to ask: a probe for life is not to end a host that waits for its backend.
fn before_the_start(path: &str) -> Response {
    match path {
        "/healthz" => alive(),
        "/readyz" | "/metrics" => not_ready("the host is starting"),
        _ => admin::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "the host is starting",
            "ask again when /readyz says that it is ready",
        ),
    }
}

/// Ready = all tasks work, and the backend answers.
async fn ready(Extension(view): Extension<View>) -> Response {
    if let Some(trouble) = tasks::trouble() {
        return not_ready(&trouble);
    }
    if let Some(trouble) = heartbeat::trouble() {
        return not_ready(&format!("the backend does not take this host's heartbeat: {trouble}"));
    }
    let backend = match tokio::time::timeout(ANSWER_MAX, view.backend.describe()).await {
        Ok(Ok(backend)) => backend,
        Ok(Err(error)) => return not_ready(&error.to_string()),
        Err(_) => return not_ready(&format!("the backend has not answered for {ANSWER_MAX:?}")),
    };
    let sum = |counts: &mut dyn Iterator<Item = u64>| counts.sum::<u64>();
    let panics = sum(&mut tasks::panics().map(|(_, count)| count));
    let lost = sum(&mut log_writer::lost().into_iter().map(|(_, count)| count));
    let mut text = format!("ready: {backend}\n");
    for (count, what) in [(panics, "panics"), (lost, "log lines lost")] {
        if count > 0 {
            text += &format!("{what} since the start: {count}\n");
        }
    }
    text.into_response()
}

fn not_ready(trouble: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", plain_text::lines(trouble))).into_response()
}

async fn api_status(Extension(view): Extension<View>) -> Response {
    match status(&view).await {
        Ok(status) => axum::Json(status).into_response(),
        Err(error) => unavailable(&error),
    }
}

async fn status(view: &View) -> Result<serde_json::Value, Error> {
    let now = view.control.now();
    let rows = status::collect(&*view.backend, &now.subscriptions).await?;
    let hosts = heartbeat::hosts(&*view.backend, &now.subscriptions).await?;
    let mut status = status::to_json(&view.backend.describe().await?, &rows, &hosts);
    status::add_versions(&mut status, &*view.backend, &now.subscriptions).await?;
    status["settings"] = now.number.into();
    Ok(status)
}

/// Also while the backend is away.
async fn all_metrics(Extension(view): Extension<View>) -> Response {
    let text = view.gauges.text(&*view.backend, &view.control.now().subscriptions).await;
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

fn unavailable(error: &Error) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", plain_text::lines(&error.to_string()))).into_response()
}
