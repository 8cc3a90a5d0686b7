//! A guest that makes requests, as its event's data says, and tells by `Test.Thing.Done` {"n": ..} how that went.
//!
//! | `do` | does | reads |
//! |---|---|---|
//! | `call` | one request; emits {"n": the status}, or the number of the error: 1 denied, 2 unreachable, 3 timed out, 4 too large, 5 busy | `url`, `method`, `headers`, `body`, `timeout_ms` |
//! | `call-many` | that many of those, one after the other; emits the last one's number | `count`, and as above |
//! | `call-count` | one request, and adds 1 to state `n` | as above |
//! | `count-tell` | one request, adds 1 to state `n`, and emits {"n": that} | as above |
//! | `call-then-fail` | one request, then fails at the first attempt | as above |
//! | `pass-on` | one request; an error fails the attempt, as the SDK says | as above |
//! | `secret` | reads a secret; emits {"n": its length} | `name` |
//! | `say-secret` | logs a secret and fails for good with it as the reason | `name` |
//! | `ok` | one request if there is a `url`, and tells nothing of it | as above |

use std::time::Duration;

use tidemill_sdk::http::{HttpError, Request};
use tidemill_sdk::prelude::*;

handler!(handle);

#[derive(Deserialize)]
struct Data {
    r#do: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// This many bytes.
    #[serde(default)]
    body: usize,
    timeout_ms: Option<u64>,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    name: String,
}

fn get() -> String {
    "GET".to_owned()
}

fn handle(event: &Event) -> Result<(), Failure> {
    let data: Data = event.json()?;
    match data.r#do.as_str() {
        "call" => tell(data.call())?,
        "call-many" => tell((0..data.count).map(|_| data.call()).last().unwrap_or(0))?,
        "call-count" => {
            data.call();
            state::set("n", &(state::get::<u64>("n")?.unwrap_or(0) + 1))?;
        }
        "count-tell" => {
            data.call();
            let n = state::get::<u64>("n")?.unwrap_or(0) + 1;
            state::set("n", &n)?;
            tell(n)?;
        }
        "call-then-fail" => {
            data.call();
            if event.attempt == 1 {
                return Err(Failure::retry("as told"));
            }
        }
        "pass-on" => drop(data.request().send()?.ok()?),
        "secret" => tell(secrets::get(&data.name)?.len() as u64)?,
        "say-secret" => {
            let secret = secrets::get(&data.name)?;
            log::info(format!("it is {secret}"));
            return Err(Failure::reject(format!("it is {secret}")));
        }
        "ok" if data.url.is_empty() => {}
        "ok" => drop(data.call()),
        unknown => return Err(Failure::reject(format!("no call is called {unknown:?}"))),
    }
    Ok(())
}

impl Data {
    fn request(&self) -> Request {
        let mut request = Request::new(&self.method, &self.url).body(vec![b'x'; self.body]);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match self.timeout_ms {
            Some(ms) => request.timeout(Duration::from_millis(ms)),
            None => request,
        }
    }

    /// The status, or the number of the error.
    fn call(&self) -> u64 {
        match self.request().send() {
            Ok(response) => response.status().into(),
            Err(HttpError::Denied(_)) => 1,
            Err(HttpError::Unreachable(_)) => 2,
            Err(HttpError::TimedOut(_)) => 3,
            Err(HttpError::TooLarge(_)) => 4,
            Err(HttpError::Busy(_)) => 5,
        }
    }
}

fn tell(n: u64) -> Result<(), Failure> {
    emit("Test.Thing.Done.v1", &json!({ "n": n })).map(drop)
}
