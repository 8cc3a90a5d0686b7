//! Where a handler's requests may go: grants such as `POST https://api.example.com/v1/payments/*`, and the targets that
//! are held against them.
//!
//! Two programs that read one URL differently are how grants are got round. So a target is read strictly, what is
//! doubtful is refused, and what was read is what is sent.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The methods that there are. No `CONNECT`, which asks for a tunnel, and no `TRACE`, which echoes headers.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The longest URL, in bytes.
const URL_BYTES_MAX: usize = 8 << 10;

/// The longest name of a host, in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// An absolute URL that every reader reads alike: scheme, host and port, path, query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub https: bool,
    /// In lower case; an IPv6 address in its brackets.
    pub host: String,
    pub port: u16,
    /// Begins with a slash.
    pub path: String,
    /// With its question mark; empty if there is none.
    pub query: String,
}

impl Target {
    /// ```
    /// # use tidemill::policy::outbound::Target;
    /// let target = Target::parse("https://api.example.com/v1/pay?id=7").unwrap();
    /// assert_eq!((&*target.host, target.port, &*target.path), ("api.example.com", 443, "/v1/pay"));
    /// assert!(Target::parse("https://api.example.com@evil.org/v1/pay").is_err());
    /// ```
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.len() > URL_BYTES_MAX {
            return Err(format!("the URL has {} bytes; at most {URL_BYTES_MAX} are allowed", url.len()));
        }
        if let Some(odd) = url.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}#".contains(*c)) {
            return Err(format!("a URL cannot hold {odd:?}; percent-encode it (a host's name in punycode)"));
        }
        let (https, rest) = scheme(url)?;
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = authority_of(authority, https)?;
        let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        check_path(path)?;
        check_percent(query)?;
        Ok(Self { https, host, port, path: path.to_owned(), query: query.to_owned() })
    }

    /// The URL to be sent, made of what was read.
    pub fn url(&self) -> String {
        format!("{self}{}", self.query)
    }
}

/// Without the query, which may hold what nobody should read.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != default_port(self.https) {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

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

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

fn scheme(url: &str) -> Result<(bool, &str), String> {
    let https = url.strip_prefix("https://").map(|rest| (true, rest));
    https
        .or_else(|| url.strip_prefix("http://").map(|rest| (false, rest)))
        .ok_or_else(|| "a URL begins with http:// or https://, in lower case".to_owned())
}

fn authority_of(authority: &str, https: bool) -> Result<(String, u16), String> {
    if authority.contains(['@', '%']) {
        return Err("a URL has neither a user nor percent signs before its path".to_owned());
    }
    // The colon of a port stands behind the bracket of an IPv6 address.
    let after = authority.find(']').unwrap_or(0);
    let (host, port) = match authority[after..].find(':') {
        Some(colon) => (&authority[..after + colon], Some(&authority[after + colon + 1..])),
        None => (authority, None),
    };
    check_host(host)?;
    let port = match port {
        None => default_port(https),
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 && number.to_string() == port => number,
            _ => return Err(format!("\"{port}\" is not a port, 1 to 65535")),
        },
    };
    Ok((host.to_owned(), port))
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok()
}

fn check_host(host: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("\"{host}\" is not a host: {what}"));
    if let Some(inner) = host.strip_prefix('[') {
        return match inner.strip_suffix(']').map(str::parse::<Ipv6Addr>) {
            Some(Ok(_)) => Ok(()),
            _ => wrong("an IPv6 address stands in brackets, without a zone"),
        };
    }
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return wrong("a name has 1 to 253 bytes");
    }
    for label in host.split('.') {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-') {
            return wrong("labels have 1 to 63 bytes, with no dash at an end and no dot behind the last one");
        }
        if !label.bytes().all(good) {
            return wrong("names are letters in lower case, digits and dashes (punycode for others)");
        }
    }
    // Resolvers read 127.1, 2130706433 and 0x7f.1 as addresses; as one of those only the plain form is taken.
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if number && host.parse::<Ipv4Addr>().is_err() {
        return wrong("an IPv4 address is four decimal numbers");
    }
    Ok(())
}

/// Every percent sign begins an encoded byte.
fn check_percent(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let byte = text.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        if byte.is_none() {
            return Err("a percent sign without two hex digits behind it".to_owned());
        }
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), String> {
    check_percent(path)?;
    for (at, _) in path.match_indices('%') {
        let byte = u8::from_str_radix(&path[at + 1..at + 3], 16).unwrap_or_default();
        // What would be a slash, a dot, or something encoded a second time, once somebody behind the host decodes it.
        if byte.is_ascii_control() || matches!(byte, b'/' | b'\\' | b'.' | b'%' | b';') {
            return Err(format!("a path cannot hold {}: it could be read as another path", &path[at..at + 3]));
        }
    }
    if path.contains(';') {
        return Err("a path cannot hold a semicolon: it could be read as another path".to_owned());
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let empty_inside = segment.is_empty() && index + 1 < segments.len();
        if matches!(*segment, "." | "..") || empty_inside {
            return Err("a path cannot hold `.`, `..` or empty segments".to_owned());
        }
    }
    Ok(())
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
        for url in ["https://api.example.com/v1/payments/7", "https://api.example.com:443/v1/payments/7/refunds?x=/../"] {
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

    /// What one reader takes for one host or path, and another reader for another.
    #[test]
    fn doubtful_urls_are_refused() {
        for url in [
            "", "h/x", "//h/x", "ftp://h/x", "HTTP://h/x", "http:///x", "http:/h/x", "http:\\\\h/x",
            "http://user@h/x", "http://user:pw@h/x", "http://h%2eevil.org/x", "http://h\\@evil.org/x",
            "http://H/x", "http://h./x", "http://h../x", "http://-h/x", "http://h_h/x", "http://bücher.de/x",
            "http://h:0/x", "http://h:080/x", "http://h:/x", "http://h:+80/x", "http://h:65536/x", "http://h:80:81/x",
            "http://127.1/x", "http://2130706433/x", "http://0x7f.0.0.1/x", "http://0x7f000001/x", "http://127.0.0.01/x",
            "http://1.2.3.4.5/x", "http://[::1/x", "http://::1/x", "http://[fe80::1%25eth0]/x", "http://[::1]x/x",
            "http://h/x#y", "http://h/a b", "http://h/a\tb", "http://h/a\r\nX: y", "http://h/\u{0}",
            "http://h/./x", "http://h/a/../x", "http://h/a/..", "http://h//x", "http://h/%2e%2e/x", "http://h/a%2fb",
            "http://h/a%5Cb", "http://h/%252e", "http://h/%0d", "http://h/%zz", "http://h/%", "http://h/..;/x",
            "http://h/x?%", "http://h/x?%g0",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
        for url in ["https://h", "https://h/", "https://h/a/", "http://1.2.3.4:81/a%20b?q=%2F..&r=%0a", "https://xn--bcher-kva.de/"] {
            let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(Target::parse(&target.url()), Ok(target), "what is sent is what was read: {url}");
        }
    }

    #[test]
    fn grants_that_cannot_be_meant_are_refused() {
        for text in [
            "", "https://h/", "POST", "POST h/x", "post https://h/x", "CONNECT https://h/x", "TRACE https://h/x",
            "GET https://h", "GET https://*/x", "GET https://*.org/x", "GET https://*.1.2.3.4/x", "GET https://*.[::1]/x",
            "GET https://a.*.org/x", "GET https://h/a*", "GET https://h/**", "GET https://h/x?y=*", "GET *://h/x",
            "GET  https://h/x", "GET https://h:*/x",
        ] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }
}
