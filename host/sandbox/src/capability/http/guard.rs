//! Between a name and a connection: every address that the name resolves to is looked at, and the connection goes to one
//! of those very addresses. A name that changes its mind in between (DNS rebinding) gains nothing by it.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

use tidemill_core::policy::address::{Networks, forbidden};
use tidemill_process::tasks;
use tidemill_process::tasks::Task;

/// Look-ups of names that one handler may have under way. The system's resolver cannot be stopped: one that hangs keeps its
/// thread for longer than any call waits for it. Each handler has its own share, so that none starves another.
const LOOKUPS_MAX: usize = 16;

/// How many each handler has under way, in this process: versions of its plugin come and go.
static LOOKUPS: LazyLock<Mutex<HashMap<Arc<str>, usize>>> = LazyLock::new(Mutex::default);

type LookUp = dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync;

/// Resolves names, and refuses those that lead to where no request may go.
pub(crate) struct Guard {
    handler: Arc<str>,
    networks: Networks,
    look_up: Arc<LookUp>,
}

/// The address that a request would have gone to.
#[derive(Debug, thiserror::Error)]
#[error("{host} is {address}, which is {why} (hint: [host] http_private)")]
pub(crate) struct Forbidden {
    host: String,
    address: IpAddr,
    why: &'static str,
}

impl Guard {
    /// Requests of this handler may go to public addresses and to the networks that are open.
    pub(super) fn new(handler: &str, networks: Networks) -> Self {
        let handler = handler.into();
        Self {
            handler,
            networks,
            look_up: Arc::new(|host, port| (host, port).to_socket_addrs().map(Iterator::collect)),
        }
    }

    /// One address that is forbidden forbids the name: its owner has put it there.
    fn check(&self, host: &str, found: &[SocketAddr]) -> Result<(), Forbidden> {
        let wrong = found.iter().find_map(|address| Some((address.ip(), forbidden(address.ip(), &self.networks)?)));
        wrong.map_or(Ok(()), |(address, why)| Err(Forbidden { host: host.to_owned(), address, why }))
    }

    fn find(&self, host: &str, port: u16, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let too_many = || format!("{LOOKUPS_MAX} look-ups of names by this handler hang");
        let _slot = Slot::take(&self.handler).ok_or_else(|| std::io::Error::other(too_many()))?;
        let (found, answer) = sync_channel(1);
        let (look_up, name) = (self.look_up.clone(), host.to_owned());
        tasks::thread(Task::LookUp, "look-up".to_owned(), None, None, move || {
            let _slot = _slot;
            // The receiver is gone if it took too long.
            let _ = found.send(look_up(&name, port));
        })?;
        match answer.recv_timeout(*timeout.after) {
            Ok(Ok(addresses)) => Ok(addresses),
            // The system's words for "no such name" and for "no name server" are alike.
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(Timeout::Resolve)),
        }
    }
}

impl Resolver for Guard {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let found = self.find(host, port, timeout)?;
        self.check(host, &found).map_err(|forbidden| Error::Other(Box::new(forbidden)))?;
        let mut addresses = self.empty();
        found.into_iter().take(MAX_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// As many as `ResolvedSocketAddrs` holds.
const MAX_ADDRESSES: usize = 16;

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("networks", &self.networks).finish_non_exhaustive()
    }
}

/// One of `LOOKUPS_MAX` of a handler.
struct Slot(Arc<str>);

impl Slot {
    fn take(handler: &Arc<str>) -> Option<Self> {
        let mut all = Self::all();
        let taken = all.entry(handler.clone()).or_default();
        (*taken < LOOKUPS_MAX).then(|| {
            *taken += 1;
            Self(handler.clone())
        })
    }

    fn all() -> MutexGuard<'static, HashMap<Arc<str>, usize>> {
        LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut all = Self::all();
        if let Some(taken) = all.get_mut(&self.0) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guard whose name server gives these answers, one after the other.
    fn guard(answers: &[&[&str]]) -> Guard {
        let parsed = |texts: &&[&str]| texts.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect::<Vec<_>>();
        let answers = Mutex::new(answers.iter().rev().map(parsed).collect::<Vec<_>>());
        let look_up = move |_: &str, port| {
            let addresses = answers.lock().unwrap().pop().ok_or_else(|| std::io::Error::other("no answer"))?;
            Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
        };
        Guard { handler: "h".into(), networks: Networks::default(), look_up: Arc::new(look_up) }
    }

    fn resolved(guard: &Guard, url: &str) -> Result<Vec<SocketAddr>, String> {
        let timeout = NextTimeout { after: std::time::Duration::from_secs(60).into(), ..NextTimeout::default() };
        let uri: Uri = url.parse().unwrap();
        let found = guard.resolve(&uri, &Config::default(), timeout).map_err(|error| error.to_string())?;
        Ok(found.iter().copied().collect())
    }

    #[test]
    fn what_is_connected_to_is_what_was_looked_at() {
        let rebinding = guard(&[&["1.1.1.1"], &["127.0.0.1"], &["1.1.1.1"]]);
        let public: SocketAddr = "1.1.1.1:443".parse().unwrap();
        // The one look-up of a request: its answer is handed on, and nothing resolves the name again.
        assert_eq!(resolved(&rebinding, "https://h.example.org/"), Ok(vec![public]));
        let said = resolved(&rebinding, "https://h.example.org/").unwrap_err();
        assert!(said.contains("h.example.org is 127.0.0.1, which is loopback"), "{said}");
    }

    #[test]
    fn one_forbidden_address_forbids_the_name() {
        for mixed in [["1.1.1.1", "10.0.0.1"], ["::1", "2606:4700::1111"], ["1.1.1.1", "::ffff:169.254.169.254"]] {
            let said = resolved(&guard(&[&mixed]), "http://h.example.org:8080/").unwrap_err();
            assert!(said.contains("http_private"), "{said}");
        }
        assert!(resolved(&guard(&[&[]]), "http://h.example.org/").is_err());
    }

    #[test]
    fn addresses_in_the_url_are_looked_at_alike() {
        for url in ["http://127.0.0.1:6379/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/"]
        {
            assert!(resolved(&guard(&[]), url).unwrap_err().contains("http_private"), "{url}");
        }
        assert_eq!(resolved(&guard(&[]), "http://1.1.1.1/"), Ok(vec!["1.1.1.1:80".parse().unwrap()]));
    }

    /// Reaches `MAX_ADDRESSES`.
    #[test]
    fn of_many_addresses_all_are_looked_at_and_the_first_are_tried() {
        let addresses: Vec<String> = (1..=MAX_ADDRESSES + 1).map(|n| format!("1.1.1.{n}")).collect();
        let mut addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let found = resolved(&guard(&[&addresses[1..]]), "http://h.example.org/").unwrap();
        assert_eq!(found.len(), MAX_ADDRESSES);
        assert_eq!(resolved(&guard(&[&addresses]), "http://h.example.org/").unwrap(), {
            let address = |n: usize| format!("1.1.1.{n}:80").parse().unwrap();
            (1..=MAX_ADDRESSES).map(address).collect::<Vec<SocketAddr>>()
        });
        addresses[MAX_ADDRESSES] = "10.0.0.1";
        assert!(resolved(&guard(&[&addresses]), "http://h.example.org/").unwrap_err().contains("http_private"));
    }

    /// Reaches `LOOKUPS_MAX`.
    #[test]
    fn a_handler_whose_look_ups_hang_takes_none_from_another() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let hangs = |handler: &str| {
            let held = held.clone();
            let look_up = move |_: &str, _| {
                // Until the test is over.
                let _ = held.lock().unwrap().recv();
                Err(std::io::Error::other("no answer"))
            };
            Guard { handler: handler.into(), networks: Networks::default(), look_up: Arc::new(look_up) }
        };
        let soon = || NextTimeout { after: std::time::Duration::from_millis(1).into(), ..NextTimeout::default() };
        let greedy = hangs("greedy");
        for _ in 0..LOOKUPS_MAX {
            assert!(matches!(greedy.find("h.example.org", 80, soon()), Err(Error::Timeout(_))));
        }
        let said = greedy.find("h.example.org", 80, soon()).unwrap_err().to_string();
        assert!(said.contains("16 look-ups of names by this handler hang"), "{said}");
        let again = hangs("greedy").find("h.example.org", 80, soon()).unwrap_err().to_string();
        assert!(again.contains("hang"), "another version of it has no more: {again}");
        assert!(matches!(hangs("other").find("h.example.org", 80, soon()), Err(Error::Timeout(_))));
        drop(hold);
    }

    /// The system's own answer for a name that every machine has.
    #[test]
    fn localhost_is_loopback() {
        assert!(resolved(&Guard::new("h", Networks::default()), "http://localhost/").unwrap_err().contains("loopback"));
    }
}
