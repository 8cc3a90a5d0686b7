//! Which requests are admitted: those to an address of this machine, and those that bear the host's token.
//!
//! A page in a browser of this machine can send requests here. It cannot bear the token: that would need a header which a
//! browser does not send to another origin without being allowed to, and a token that the page does not know. But a name that
//! a foreign DNS leads here (rebinding) makes this host the page's own origin, so that it could read what is open
//! to every user of this machine: so each route looks at the `Host` that was asked for.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::Response;

use super::{Door, View, admin};
use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_runtime::token::Token;

/// What answers any client without a token: nothing in it is of one event or one customer.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Status, what is wrong, what to do.
type Rejection = (StatusCode, &'static str, &'static str);

pub(super) async fn guard(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    if let Err((status, what, hint)) = addressed(request.version(), request.uri(), request.headers()) {
        return admin::refused(status, what, hint);
    }
    let Some(view) = door.view() else { return super::before_the_start(request.uri().path()) };
    if !OPEN.contains(&request.uri().path())
        && let Err((status, what, hint)) = borne(view, request.headers()).await
    {
        let mut answer = admin::refused(status, what, hint);
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return answer;
    }
    request.extensions_mut().insert(view.clone());
    next.run(request).await
}

/// Whether this machine is what was asked for, in the request's line and in its only `Host`.
fn addressed(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Rejection> {
    let elsewhere = (
        StatusCode::FORBIDDEN,
        "the Host header names another machine",
        "use http://127.0.0.1, http://[::1] or http://localhost",
    );
    if uri.authority().is_some_and(|authority| !is_here(authority.as_str())) {
        return Err(elsewhere);
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.to_str().is_ok_and(is_here) => Ok(()),
        (Some(_), None) => Err(elsewhere),
        // No browser speaks it, and probes that do name no host.
        (None, _) if version <= Version::HTTP_10 => Ok(()),
        (None, _) => Err((StatusCode::BAD_REQUEST, "there is no Host header", "HTTP/1.1 wants one")),
        (Some(_), Some(_)) => Err((StatusCode::BAD_REQUEST, "there are several Host headers", "send one")),
    }
}

/// `127.0.0.1:7070`, `[::1]:7070`, `localhost`, with a dot at the end or without.
fn is_here(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    if let Some(inner) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return inner.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() && address.to_canonical().is_loopback());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether the request bears the token of this host.
async fn borne(view: &View, headers: &HeaderMap) -> Result<(), Rejection> {
    let refused = |what, hint| Err((StatusCode::UNAUTHORIZED, what, hint));
    let Some(given) = bearer(headers) else {
        return refused(
            "this needs the host's token",
            "send `Authorization: Bearer TOKEN`; it is in the file of [http] token_file, and `tidemill` sends it by itself",
        );
    };
    let path = view.control.now().reloader.config.token_file();
    match tasks::blocking(Task::Token, move || Token::of_host(&path)).await {
        Ok(Ok(token)) if token.is(given) => Ok(()),
        Ok(Ok(_)) => refused(
            "this is not the host's token",
            "it may have been changed: read it again from the file of [http] token_file",
        ),
        _ => refused(
            "this host has no token that it can use, so it does nothing that needs one",
            "`tidemill doctor` says what is wrong with the file of [http] token_file",
        ),
    }
}

/// What the only `Authorization` header bears.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (first, None) = (given.next()?, given.next()) else { return None };
    let (scheme, token) = first.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in rows {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn status(version: Version, uri: &str, hosts: &[&str]) -> u16 {
        let rows: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        addressed(version, &uri.parse().unwrap(), &headers(&rows)).map_or_else(|(status, ..)| status.as_u16(), |()| 200)
    }

    #[test]
    fn names_that_somebody_s_dns_leads_here_are_refused() {
        for host in [
            "127.0.0.1:7070",
            "127.0.0.1",
            "127.8.9.1:80",
            "127.0.0.1.",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "LocalHost.:7070",
            "[::1]",
            "[::1]:7070",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:7070",
        ] {
            assert_eq!(status(Version::HTTP_11, "/", &[host]), 200, "{host}");
        }
        for host in [
            "",
            "evil.example:7070",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost..",
            "evil.localhost",
            "localhost@evil.example",
            "evil.example@localhost",
            "::1",
            "[::1",
            "[fe80::1]",
            "[127.0.0.1]",
            "0.0.0.0:7070",
            "[::]",
            "10.0.0.1",
            "2130706433",
            "localhost, evil.example",
            "localhost evil.example",
            "localhost/evil",
        ] {
            assert_eq!(status(Version::HTTP_11, "/", &[host]), 403, "{host}");
        }
    }

    #[test]
    fn one_host_is_asked_for_and_no_more() {
        assert_eq!(status(Version::HTTP_11, "/", &[]), 400);
        assert_eq!(status(Version::HTTP_10, "/", &[]), 200, "a probe; no browser speaks it");
        assert_eq!(status(Version::HTTP_10, "/", &["evil.example"]), 403);
        assert_eq!(status(Version::HTTP_11, "/", &["localhost", "localhost"]), 400);
        assert_eq!(status(Version::HTTP_10, "/", &["localhost", "evil.example"]), 400);
        assert_eq!(status(Version::HTTP_11, "http://evil.example/", &["localhost"]), 403, "the line goes before it");
        assert_eq!(status(Version::HTTP_11, "http://localhost/", &["evil.example"]), 403);
        assert_eq!(status(Version::HTTP_11, "http://localhost:7070/", &["localhost:7070"]), 200);
    }

    #[test]
    fn a_token_is_borne_in_one_form() {
        let of = |rows: &[(&'static str, &str)]| bearer(&headers(rows)).map(<[u8]>::to_vec);
        assert_eq!(of(&[("authorization", "Bearer abc")]).unwrap(), b"abc");
        assert_eq!(of(&[("authorization", "bearer  abc ")]).unwrap(), b"abc");
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("authorization", "Basic abc")]), None);
        assert_eq!(of(&[("authorization", "Bear")]), None);
        assert_eq!(of(&[("authorization", "Bearer abc"), ("authorization", "Bearer abc")]), None);
    }
}
