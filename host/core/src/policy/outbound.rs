//! Where a handler's requests may go: grants such as `POST https://api.example.com/v1/payments/*`.

use std::str::FromStr;

use super::target::{Target, is_address};

/// The methods that there are. No `CONNECT`, which asks for a tunnel, and no `TRACE`, which echoes headers.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// One line of `[handlers.NAME.grants] http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// None: any of `METHODS`.
    method: Option<&'static str>,
    pub https: bool,
    host: HostPattern,
    port: u16,
    /// The segments of the path; `*` stands for one, and as the last one for all that follow.
    segments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Exactly(String),
    /// Ends with this, which begins with a dot.
    Below(String),
}

impl Grant {
    pub fn allows(&self, method: &str, target: &Target) -> bool {
        let host = match &self.host {
            HostPattern::Exactly(host) => *host == target.host,
            HostPattern::Below(suffix) => target.host.len() > suffix.len() && target.host.ends_with(suffix.as_str()),
        };
        self.method.is_none_or(|granted| granted == method)
            && (self.https, self.port) == (target.https, target.port)
            && host
            && self.allows_path(&target.path)
    }

    fn allows_path(&self, path: &str) -> bool {
        let mut asked = path.split('/').skip(1);
        for (index, granted) in self.segments.iter().enumerate() {
            let last = index + 1 == self.segments.len();
            match (granted.as_str(), asked.next()) {
                (_, None) => return false,
                ("*", Some(_)) if last => return true,
                ("*", Some(segment)) if !segment.is_empty() => {}
                (granted, Some(segment)) if granted == segment => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (method, url) = text.split_once(' ').ok_or("it begins with a method, or with `*` for any of them")?;
        let method = match method {
            "*" => None,
            _ => Some(*METHODS.iter().find(|known| **known == method).ok_or_else(|| unknown_method(method))?),
        };
        if url.contains('?') {
            return Err("a grant has no query: every query is allowed on a path that is".to_owned());
        }
        let (scheme, rest) = url.split_once("://").ok_or("it needs http:// or https://, and a host")?;
        let (wild, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if !rest.contains('/') {
            return Err("it names no path: write `/*` for all of them".to_owned());
        }
        let target = Target::parse(&format!("{scheme}://{rest}"))?;
        if target.path.split('/').any(|segment| segment.contains('*') && segment != "*") {
            return Err("`*` stands for a whole segment of the path".to_owned());
        }
        let host = match wild {
            false => HostPattern::Exactly(target.host),
            true if is_address(&target.host) || !target.host.contains('.') => {
                return Err("`*.` stands before a name of at least two labels, such as *.example.org".to_owned());
            }
            true => HostPattern::Below(format!(".{}", target.host)),
        };
        let segments = target.path.split('/').skip(1).map(str::to_owned).collect();
        Ok(Self { method, https: target.https, host, port: target.port, segments })
    }
}

pub fn unknown_method(method: &str) -> String {
    format!("\"{}\" is not one of the methods {}", method.escape_debug(), METHODS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(grant: &str, method: &str, url: &str) -> bool {
        let grant: Grant = grant.parse().unwrap_or_else(|error| panic!("{grant}: {error}"));
        Target::parse(url).is_ok_and(|target| grant.allows(method, &target))
    }

    #[test]
    fn a_grant_is_method_scheme_host_port_and_path() {
        let grant = "POST https://api.example.com/v1/payments/*";
        for url in ["https://api.example.com/v1/payments/7", "https://api.example.com:443/v1/payments/7/refunds?x=/../"]
        {
            assert!(allows(grant, "POST", url), "{url}");
        }
        assert!(!allows(grant, "GET", "https://api.example.com/v1/payments/7"));
        for url in [
            "http://api.example.com/v1/payments/7",
            "https://api.example.com:8443/v1/payments/7",
            "https://example.com/v1/payments/7",
            "https://api.example.com.evil.org/v1/payments/7",
            "https://xapi.example.com/v1/payments/7",
            "https://api.example.com/v1/payments",
            "https://api.example.com/v1/paymentsx/7",
            "https://api.example.com/v2/payments/7",
        ] {
            assert!(!allows(grant, "POST", url), "{url}");
        }
    }

    #[test]
    fn stars_stand_for_labels_and_segments() {
        assert!(allows("* https://*.example.org/*", "DELETE", "https://a.b.example.org/"));
        assert!(!allows("* https://*.example.org/*", "GET", "https://example.org/"));
        assert!(!allows("* https://*.example.org/*", "GET", "https://evilexample.org/"));
        assert!(allows("GET http://h:81/users/*/name", "GET", "http://h:81/users/7/name"));
        assert!(!allows("GET http://h:81/users/*/name", "GET", "http://h:81/users/7/8/name"));
        assert!(!allows("GET http://h:81/users/*/name", "GET", "http://h:81/users/7/name/x"));
        assert!(allows("GET http://[::1]:81/a", "GET", "http://[::1]:81/a"));
        assert!(allows("GET http://h/", "GET", "http://h") && !allows("GET http://h/", "GET", "http://h/a"));
    }

    #[test]
    fn grants_that_cannot_be_meant_are_refused() {
        for text in [
            "",
            "https://h/",
            "POST",
            "POST h/x",
            "post https://h/x",
            "CONNECT https://h/x",
            "TRACE https://h/x",
            "GET https://h",
            "GET https://*/x",
            "GET https://*.org/x",
            "GET https://*.1.2.3.4/x",
            "GET https://*.[::1]/x",
            "GET https://a.*.org/x",
            "GET https://h/a*",
            "GET https://h/**",
            "GET https://h/x?y=*",
            "GET *://h/x",
            "GET  https://h/x",
            "GET https://h:*/x",
        ] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }
}
