//! Reading a URL.
//!
//! Two programs that read one URL differently are how grants are got round. So a target is read strictly, what is
//! doubtful is refused, and what was read is what is sent.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

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
    /// # use tidemill_core::policy::target::Target;
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

/// Without the query, which may hold confidential values.
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

pub(super) fn is_address(host: &str) -> bool {
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
        // What would be a slash, a dot, or something encoded a second time, once a server behind the host decodes it.
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

    /// Reaches `URL_BYTES_MAX` and `HOST_BYTES_MAX`.
    #[test]
    fn urls_and_names_of_hosts_have_bounds() {
        let url = |bytes: usize| format!("http://h/{}", "a".repeat(bytes - "http://h/".len()));
        assert!(Target::parse(&url(URL_BYTES_MAX)).is_ok());
        let refused = Target::parse(&url(URL_BYTES_MAX + 1)).unwrap_err();
        assert!(refused.contains("8193 bytes; at most 8192"), "{refused}");
        let host = |bytes: usize| format!("{}{}", "a.".repeat(bytes / 2), if bytes % 2 == 1 { "b" } else { "" });
        let named = |bytes: usize| Target::parse(&format!("http://{}/x", host(bytes)));
        assert_eq!(named(HOST_BYTES_MAX).unwrap().host.len(), HOST_BYTES_MAX);
        let longer = format!("http://{}c/x", host(HOST_BYTES_MAX));
        assert!(Target::parse(&longer).is_err());
    }

    /// What one reader takes for one host or path, and another reader for another.
    #[test]
    fn doubtful_urls_are_refused() {
        for url in [
            "",
            "h/x",
            "//h/x",
            "ftp://h/x",
            "HTTP://h/x",
            "http:///x",
            "http:/h/x",
            "http:\\\\h/x",
            "http://user@h/x",
            "http://user:pw@h/x",
            "http://h%2eevil.org/x",
            "http://h\\@evil.org/x",
            "http://H/x",
            "http://h./x",
            "http://h../x",
            "http://-h/x",
            "http://h_h/x",
            "http://bücher.de/x",
            "http://h:0/x",
            "http://h:080/x",
            "http://h:/x",
            "http://h:+80/x",
            "http://h:65536/x",
            "http://h:80:81/x",
            "http://127.1/x",
            "http://2130706433/x",
            "http://0x7f.0.0.1/x",
            "http://0x7f000001/x",
            "http://127.0.0.01/x",
            "http://1.2.3.4.5/x",
            "http://[::1/x",
            "http://::1/x",
            "http://[fe80::1%25eth0]/x",
            "http://[::1]x/x",
            "http://h/x#y",
            "http://h/a b",
            "http://h/a\tb",
            "http://h/a\r\nX: y",
            "http://h/\u{0}",
            "http://h/./x",
            "http://h/a/../x",
            "http://h/a/..",
            "http://h//x",
            "http://h/%2e%2e/x",
            "http://h/a%2fb",
            "http://h/a%5Cb",
            "http://h/%252e",
            "http://h/%0d",
            "http://h/%zz",
            "http://h/%",
            "http://h/..;/x",
            "http://h/x?%",
            "http://h/x?%g0",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
        for url in [
            "https://h",
            "https://h/",
            "https://h/a/",
            "http://1.2.3.4:81/a%20b?q=%2F..&r=%0a",
            "https://xn--bcher-kva.de/",
        ] {
            let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(Target::parse(&target.url()), Ok(target), "what is sent is what was read: {url}");
        }
    }
}
