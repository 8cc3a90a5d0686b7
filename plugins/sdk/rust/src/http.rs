//! Requests to other services. Needs the grant `http`, which names methods, hosts and paths.
//!
//! ```no_run
//! # use tidemill_sdk::prelude::*;
//! # fn example() -> Result<(), Failure> {
//! let answer = http::post("https://api.example.com/v1/payments")
//!     .header("Authorization", "Bearer {{secret:api-key}}")
//!     .json(&json!({ "amount": 1390 }))?
//!     .send()?
//!     .ok()?;
//! let payment: serde_json::Value = answer.json()?;
//! # Ok(())
//! # }
//! ```
//!
//! A request is sent at once, and an attempt that fails afterwards is retried: so a service may see a request more
//! than once. The host gives each the header `Idempotency-Key`, which is the same whenever the delivery is retried.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::Failure;
pub use crate::bindings::tidemill::plugin::http::HttpError;
use crate::bindings::tidemill::plugin::http::{self as host, Request as HostRequest, Response as HostResponse};

pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

pub fn post(url: impl Into<String>) -> Request {
    Request::new("POST", url)
}

pub fn put(url: impl Into<String>) -> Request {
    Request::new("PUT", url)
}

pub fn delete(url: impl Into<String>) -> Request {
    Request::new("DELETE", url)
}

/// A request that is being put together.
#[must_use = "nothing is asked before `send`"]
pub struct Request(HostRequest);

impl Request {
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let (method, url) = (method.into(), url.into());
        Self(HostRequest { method, url, headers: Vec::new(), body: Vec::new(), timeout_ms: None })
    }

    /// Adds a header. `{{secret:NAME}}` in the value becomes that secret of the handler; the plugin never sees it.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.0.body = body.into();
        self
    }

    /// The body as JSON, with its `content-type`.
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Result<Self, Failure> {
        Ok(self.header("content-type", "application/json").body(serde_json::to_vec(body)?))
    }

    /// How long to wait for the whole answer; without it, as long as the handler's deadline allows.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.0.timeout_ms = Some(time.as_millis().try_into().unwrap_or(u64::MAX));
        self
    }

    /// Sends it and waits for the answer, whatever its status. An error becomes a [`Failure`] by `?`: what may be better
    /// next time is retried, and what is not allowed is rejected.
    pub fn send(self) -> Result<Response, HttpError> {
        host::send(&self.0).map(Response)
    }
}

/// An answer.
pub struct Response(HostResponse);

impl Response {
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// The first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.0.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn body(&self) -> &[u8] {
        &self.0.body
    }

    /// The body as a type of yours; what does not fit is rejected.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.0.body).map_err(|error| Failure::reject(format!("the answer: {error}")))
    }

    /// The answer if its status is 2xx. What may be better later is retried: 408, 425, 429 and 5xx, not before the time
    /// that `Retry-After` asks for in seconds. All others are rejected.
    pub fn ok(self) -> Result<Self, Failure> {
        let status = self.status();
        match status {
            200..=299 => Ok(self),
            408 | 425 | 429 | 500..=599 => {
                let failure = Failure::retry(format!("the service answered {status}"));
                Err(match self.header("retry-after").and_then(|value| value.parse().ok()) {
                    Some(seconds) => failure.after(Duration::from_secs(seconds)),
                    None => failure,
                })
            }
            _ => Err(Failure::reject(format!("the service answered {status}"))),
        }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Denied(what) => Failure::reject(what),
            HttpError::TooLarge(what) => Failure::reject(format!("http: {what}")),
            HttpError::Unreachable(what) | HttpError::TimedOut(what) | HttpError::Busy(what) => {
                Failure::retry(format!("http: {what}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response(HostResponse { status, headers, body: b"{\"n\":1}".to_vec() })
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        assert!(answer(204, &[]).ok().is_ok());
        for status in [408, 425, 429, 500, 503] {
            assert!(matches!(answer(status, &[]).ok(), Err(Failure::Retry(_))), "{status}");
        }
        for status in [301, 400, 404, 409] {
            assert!(matches!(answer(status, &[]).ok(), Err(Failure::Reject(_))), "{status}");
        }
        let Err(Failure::Retry(hint)) = answer(429, &[("Retry-After", "7")]).ok() else { panic!("it is retried") };
        assert_eq!(hint.after_ms, Some(7000));
    }

    #[test]
    fn what_is_not_allowed_is_rejected_and_what_failed_is_retried() {
        let text = String::new;
        for error in [HttpError::Denied(text()), HttpError::TooLarge(text())] {
            assert!(matches!(Failure::from(error), Failure::Reject(_)));
        }
        for error in [HttpError::Unreachable(text()), HttpError::TimedOut(text()), HttpError::Busy(text())] {
            assert!(matches!(Failure::from(error), Failure::Retry(_)));
        }
    }
}
