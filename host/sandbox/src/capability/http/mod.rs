//! `tidemill:plugin/http`: requests to other services, within the handler's grants. Immediate, unlike everything else a
//! plugin asks for: what has been sent stays sent, whatever becomes of the attempt. So each request bears a key by which
//! the service can tell that it has seen it before.
//!
//! ```text
//! counted, sized -> URL read -> granted? -> headers -> breaker of the host -> address looked at -> sent, answer bounded
//! ```

mod breakers;
mod guard;
mod headers;
pub mod outbound;

use std::time::{Duration, Instant};

use ureq::http::{HeaderValue, Method, Response, header};
use ureq::{Agent, Body, Error};
use uuid::Uuid;

use super::context::{Context, bytes_of};
use crate::abi::latest::tidemill::plugin::http;
use crate::abi::latest::tidemill::plugin::http::{HttpError, Request};
use guard::Forbidden;
use outbound::{ANSWER_HEAD_BYTES_MAX, SentRequest};
use tidemill_core::model::outcome::Crash;
use tidemill_core::policy::outbound::{METHODS, unknown_method};
use tidemill_core::policy::target::Target;

/// The words of a refusal may hold parts of the plugin's own; they are truncated.
const REASON_BYTES_MAX: usize = 512;

/// What a request can come to, as the label `result` says it.
pub const RESULTS: [&str; 9] = ["2xx", "3xx", "4xx", "5xx", "denied", "unreachable", "timed-out", "too-large", "busy"];

/// Why there is no answer.
enum Failed {
    /// The request may not be made. With `limit`, because that was reached.
    Denied {
        limit: Option<Crash>,
        what: String,
    },
    Unreachable(String),
    TimedOut(String),
    TooLarge(String),
    Busy(String),
}

impl http::Host for Context {
    fn send(&mut self, request: Request) -> wasmtime::Result<Result<http::Response, HttpError>> {
        self.enter()?;
        let begun = Instant::now();
        self.attempt.requests += 1;
        let id = self.request_id()?;
        let answer = self.send_checked(&request, id);
        let result = match &answer {
            Ok(response) => RESULTS[usize::from(response.status / 100).clamp(2, 5) - 2],
            Err(Failed::Denied { .. }) => "denied",
            Err(Failed::Unreachable(_)) => "unreachable",
            Err(Failed::TimedOut(_)) => "timed-out",
            Err(Failed::TooLarge(_)) => "too-large",
            Err(Failed::Busy(_)) => "busy",
        };
        // Beyond its limit a plugin may ask as often as it likes; the list is not to grow with that.
        if self.attempt.requests <= self.terms.limits.http_requests {
            self.attempt.sent.push(SentRequest { result, took: begun.elapsed() });
        }
        Ok(answer.map_err(|failed| match failed {
            Failed::Denied { limit, mut what } => {
                what.truncate(what.floor_char_boundary(REASON_BYTES_MAX));
                HttpError::Denied(self.refuse(limit, format!("http: {what}")))
            }
            Failed::Unreachable(what) => HttpError::Unreachable(what),
            Failed::TimedOut(what) => HttpError::TimedOut(what),
            Failed::TooLarge(what) => HttpError::TooLarge(what),
            Failed::Busy(what) => HttpError::Busy(what),
        }))
    }
}

impl Context {
    /// The same for the same request of the same delivery, however often it is tried: UUIDv5 of event, handler and place.
    fn request_id(&self) -> wasmtime::Result<Uuid> {
        let name = format!("{}/http/{}", self.terms.handler, self.attempt.requests);
        Ok(Uuid::new_v5(&self.event()?.id(), name.as_bytes()))
    }

    fn send_checked(&self, request: &Request, id: Uuid) -> Result<http::Response, Failed> {
        self.room_for_request(request)?;
        let denied = |what| Failed::Denied { limit: None, what };
        let outbound = self.terms.http.as_ref().ok_or_else(|| denied("it is not granted".to_owned()))?;
        let target = Target::parse(&request.url).map_err(denied)?;
        let method = METHODS.iter().find(|known| **known == request.method);
        let method = *method.ok_or_else(|| denied(unknown_method(&request.method)))?;
        if !outbound.allows(method, &target) {
            let handler = &self.terms.handler;
            let what = format!("{method} {target} is not among the grants (hint: [handlers.{handler}.grants] http)");
            return Err(denied(what));
        }
        let mut headers = headers::checked(&request.headers, &self.terms.secrets).map_err(denied)?;
        headers.insert("idempotency-key", HeaderValue::from_str(&id.to_string()).expect("a UUID is visible ASCII"));
        if method == "HEAD" && !request.body.is_empty() {
            return Err(denied("a HEAD request has no body".to_owned()));
        }
        let timeout = self.time_for(request)?;
        let authority = format!("{}:{}", target.host, target.port);
        let pass = outbound.gates.enter(&authority).ok_or_else(|| {
            Failed::Busy(format!("{authority} has failed too often of late; its circuit breaker is open"))
        })?;
        let mut message = ureq::http::Request::new(request.body.as_slice());
        *message.method_mut() = Method::from_bytes(method.as_bytes()).expect("one of METHODS");
        *message.uri_mut() = target.url().parse().map_err(|error| denied(format!("{target}: {error}")))?;
        *message.headers_mut() = headers;
        let answer = run(&outbound.agent, message, timeout, bytes_of(self.terms.limits.http_response_bytes));
        match &answer {
            Ok(response) => pass.went(response.status < 500),
            Err(Error::Other(_)) => drop(pass),
            Err(error) => pass.went(matches!(error, Error::BodyExceedsLimit(_) | Error::LargeResponseHeader(..))),
        }
        answer.map_err(|error| self.failed(&authority, error, timeout))
    }

    fn room_for_request(&self, request: &Request) -> Result<(), Failed> {
        let limits = &self.terms.limits;
        if self.attempt.requests > limits.http_requests {
            let what = format!("an attempt may make {} requests (limits.http_requests)", limits.http_requests);
            return Err(Failed::Denied { limit: Some(Crash::HttpRequests), what });
        }
        let headers: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if request.url.len() + headers + request.body.len() > bytes_of(limits.http_request_bytes) {
            let max = bytes_of(limits.http_request_bytes);
            let what = format!("a request may have {max} bytes (limits.http_request_bytes)");
            return Err(Failed::Denied { limit: Some(Crash::HttpBytes), what });
        }
        Ok(())
    }

    /// What it asks for, within what is left of the attempt.
    fn time_for(&self, request: &Request) -> Result<Duration, Failed> {
        let left = self.attempt.ends.map_or(Duration::ZERO, |ends| ends.saturating_duration_since(Instant::now()));
        let asked = request.timeout_ms.map_or(Duration::MAX, Duration::from_millis);
        match left.min(asked) {
            Duration::ZERO => Err(Failed::TimedOut("no time is left for a request".to_owned())),
            time => Ok(time),
        }
    }

    fn failed(&self, authority: &str, error: Error, timeout: Duration) -> Failed {
        match error {
            Error::Other(other) if other.is::<Forbidden>() => Failed::Denied { limit: None, what: other.to_string() },
            Error::Timeout(_) => {
                let timeout = humantime::format_duration(Duration::from_millis(timeout.as_millis() as u64));
                Failed::TimedOut(format!("{authority} did not answer within {timeout}"))
            }
            Error::BodyExceedsLimit(_) => {
                let max = bytes_of(self.terms.limits.http_response_bytes);
                Failed::TooLarge(format!("{authority} answers more than {max} bytes (limits.http_response_bytes)"))
            }
            Error::LargeResponseHeader(..) => {
                Failed::TooLarge(format!("{authority} answers more than {ANSWER_HEAD_BYTES_MAX} bytes of headers"))
            }
            Error::HostNotFound => Failed::Unreachable(format!("{authority}: no address is known for it")),
            error => Failed::Unreachable(format!("{authority}: {error}")),
        }
    }
}

fn run(
    agent: &Agent,
    message: ureq::http::Request<&[u8]>,
    timeout: Duration,
    bytes_max: usize,
) -> Result<http::Response, Error> {
    // A request without a body says nothing about its length, unless its method is one that has a body.
    let (parts, body) = message.into_parts();
    let bodiless = body.is_empty() && ![Method::POST, Method::PUT, Method::PATCH].contains(&parts.method);
    let mut response = if bodiless {
        let message = ureq::http::Request::from_parts(parts, ());
        agent.run(agent.configure_request(message).timeout_global(Some(timeout)).build())?
    } else {
        let message = ureq::http::Request::from_parts(parts, body);
        agent.run(agent.configure_request(message).timeout_global(Some(timeout)).build())?
    };
    let body = body_of(&mut response, bytes_max as u64)?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    Ok(http::Response { status: response.status().as_u16(), headers, body })
}

fn body_of(response: &mut Response<Body>, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let said = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if said.is_some_and(|bytes: u64| bytes > bytes_max) && response.body().content_length().is_some() {
        return Err(Error::BodyExceedsLimit(bytes_max));
    }
    response.body_mut().with_config().limit(bytes_max).read_to_vec()
}
