//! What people and scripts ask of a running host: `GET /api/plugins`, `POST /api/plugins/{handler}/reload` and
//! `.../rollback`, `POST /api/reload`.
//!
//! There is no password here, so two things keep web pages in this machine's browsers out: the `Host` header has to be
//! an address of this machine (a name that somebody else's DNS leads here is refused), and whatever changes something
//! has to bear a header that a page of another origin may not send without being asked.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::View;
use crate::service::reloader::{Refused, Taken};
use crate::tasks::{self, Task};

/// The header that a change has to bear, with any value.
const HEADER: &str = "x-tidemill";

/// Lets through what comes from this machine and means to.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    match verdict(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((what, hint)) => refused(StatusCode::FORBIDDEN, what, hint),
    }
}

fn verdict(method: &Method, headers: &HeaderMap) -> Result<(), (&'static str, &'static str)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if !text(HOST).is_some_and(is_here) {
        return Err(("the Host header names another machine", "use http://127.0.0.1 or http://localhost"));
    }
    let json = text(CONTENT_TYPE)
        .is_some_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "application/json"));
    if method != Method::GET && method != Method::HEAD && !json && !headers.contains_key(HEADER) {
        return Err(("a change needs the header X-Tidemill", "add `X-Tidemill: 1` to the request"));
    }
    Ok(())
}

/// `127.0.0.1:7070`, `[::1]:7070`, `localhost`
fn is_here(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) async fn plugins(State(view): State<View>) -> Response {
    Json(view.control.to_json()).into_response()
}

pub(super) async fn reload_settings(State(view): State<View>) -> Response {
    match to_the_end(async move { view.control.reload().await }).await {
        Ok(number) => Json(json!({ "generation": number })).into_response(),
        Err(error) => refusal(&error),
    }
}

pub(super) async fn reload(State(view): State<View>, Path(handler): Path<String>) -> Response {
    let asked = handler.clone();
    answer(&handler, to_the_end(async move { view.control.now().reloader.reload(&asked).await }).await)
}

pub(super) async fn rollback(State(view): State<View>, Path(handler): Path<String>) -> Response {
    let asked = handler.clone();
    answer(&handler, to_the_end(async move { view.control.now().reloader.rollback(&asked).await }).await)
}

/// In a task of its own: whoever asked may go away, and what was begun is finished all the same.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    tasks::once(Task::Request, work).await.unwrap_or(Err(Refused::Ending))
}

fn answer(handler: &str, taken: Result<Taken, Refused>) -> Response {
    match taken {
        Ok(Taken { generation, digest, changed }) => {
            let value = json!({ "handler": handler, "generation": generation, "digest": &*digest, "changed": changed });
            Json(value).into_response()
        }
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &Refused) -> Response {
    let status = match error {
        Refused::NoHandler(_) => StatusCode::NOT_FOUND,
        Refused::NothingBefore(_) => StatusCode::CONFLICT,
        Refused::Plugin(_) | Refused::Settings(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refused::Ending => StatusCode::SERVICE_UNAVAILABLE,
    };
    let text = error.to_string();
    // Several findings have a hint each: they stay with their findings.
    let (what, hint) = match text.split_once("\n  hint: ") {
        Some((what, hint)) if !hint.contains("\n  hint: ") => (what, hint),
        _ => (text.as_str(), ""),
    };
    refused(status, what, hint)
}

fn refused(status: StatusCode, what: &str, hint: &str) -> Response {
    (status, Json(json!({ "error": what, "hint": hint }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let ask = |method: &Method, rows: &[(&'static str, &str)]| {
            let headers = rows.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
            verdict(method, &headers).is_ok()
        };
        let (get, post, here) = (&Method::GET, &Method::POST, ("host", "127.0.0.1:7070"));
        assert!(ask(get, &[here]) && ask(get, &[("host", "localhost")]) && ask(get, &[("host", "[::1]:7070")]));
        assert!(!ask(get, &[("host", "evil.example:7070")]), "DNS rebinding");
        assert!(!ask(get, &[("host", "127.0.0.1.evil.example")]) && !ask(get, &[]));
        assert!(!ask(post, &[here]), "a form of another page");
        assert!(!ask(post, &[here, ("content-type", "text/plain")]));
        assert!(
            ask(post, &[here, ("content-type", "application/json; charset=utf-8")])
                && ask(post, &[here, (HEADER, "1")])
        );
        assert!(!ask(post, &[("host", "evil.example"), (HEADER, "1")]));
    }
}
