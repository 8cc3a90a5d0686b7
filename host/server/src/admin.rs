//! What people and scripts ask of a running host: `GET /api/plugins`, `POST /api/plugins/{handler}/reload` and
//! `.../rollback`, `POST /api/reload`.
//!
//! `guard` decides which requests are admitted.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use super::View;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_runtime::reload::plugins::{ReloadError, Taken};

pub(super) async fn plugins(Extension(view): Extension<View>) -> Response {
    Json(view.control.to_json()).into_response()
}

pub(super) async fn reload_settings(Extension(view): Extension<View>) -> Response {
    match to_the_end(async move { view.control.reload().await }).await {
        Ok(number) => Json(json!({ "generation": number })).into_response(),
        Err(error) => refusal(&error),
    }
}

pub(super) async fn reload(Extension(view): Extension<View>, Path(handler): Path<String>) -> Response {
    let asked = handler.clone();
    answer(&handler, to_the_end(async move { view.control.now().reloader.reload(&asked).await }).await)
}

pub(super) async fn rollback(Extension(view): Extension<View>, Path(handler): Path<String>) -> Response {
    let asked = handler.clone();
    answer(&handler, to_the_end(async move { view.control.now().reloader.rollback(&asked).await }).await)
}

/// In a task of its own: it finishes even if the client disconnects.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ReloadError>> + Send + 'static,
) -> Result<T, ReloadError> {
    tasks::once(Task::Request, work).await.unwrap_or(Err(ReloadError::Ending))
}

fn answer(handler: &str, taken: Result<Taken, ReloadError>) -> Response {
    match taken {
        Ok(Taken { generation, digest, changed }) => {
            let value = json!({ "handler": handler, "generation": generation, "digest": &*digest, "changed": changed });
            Json(value).into_response()
        }
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &ReloadError) -> Response {
    let status = match error {
        ReloadError::NoHandler(_) => StatusCode::NOT_FOUND,
        ReloadError::NothingBefore(_) => StatusCode::CONFLICT,
        ReloadError::Plugin(_) | ReloadError::Settings(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ReloadError::Ending => StatusCode::SERVICE_UNAVAILABLE,
    };
    let text = error.to_string();
    // Several findings have a hint each: they stay with their findings.
    let (what, hint) = match text.split_once("\n  hint: ") {
        Some((what, hint)) if !hint.contains("\n  hint: ") => (what, hint),
        _ => (text.as_str(), ""),
    };
    refused(status, what, hint)
}

pub(super) fn refused(status: StatusCode, what: &str, hint: &str) -> Response {
    (status, Json(json!({ "error": what, "hint": hint }))).into_response()
}
