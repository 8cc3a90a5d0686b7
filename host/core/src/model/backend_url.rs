//! The URL of a backend, which may hold a password. Shown to people it has none; the text itself is had where a connection
//! is made, and nowhere else.

use std::fmt;

use serde::Deserialize;

/// `sqlite:FILE`, `sqlite::memory:` or `redis://USER:PASSWORD@HOST:PORT/DB`, as it was written, good or not.
///
/// ```
/// use tidemill_core::model::backend_url::BackendUrl;
/// let url = BackendUrl::from("redis://ada:hunter2@cache:6379/0");
/// assert_eq!((url.to_string(), format!("{url:?}")), ("redis://***@cache:6379/0".into(), "redis://***@cache:6379/0".into()));
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct BackendUrl(String);

/// What stands in place of what is not shown.
const HIDDEN: &str = "***";

/// The characters that end or part what stands before the `@`, and how they are written there.
const ENCODED: [(char, &str); 3] = [('/', "%2F"), ('?', "%3F"), ('#', "%23")];

impl BackendUrl {
    /// The text with its password: for the client that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `redis` of `Redis://...`, in lower case.
    pub fn scheme(&self) -> Option<String> {
        let (scheme, _) = self.0.split_once(':')?;
        let good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        good.then(|| scheme.to_ascii_lowercase())
    }

    /// The file behind `sqlite:`.
    pub fn sqlite_file(&self) -> Option<&str> {
        self.scheme().filter(|scheme| scheme == "sqlite").map(|_| &self.0["sqlite:".len()..])
    }

    /// What is wrong with user and password as they are written, in words that show nothing of them.
    pub fn unencoded(&self) -> Option<String> {
        let (_, rest) = self.0.split_once("://")?;
        let (user, _) = rest.rsplit_once('@')?;
        if let Some((sign, code)) = ENCODED.into_iter().find(|(sign, _)| user.contains(*sign)) {
            return Some(format!("user or password hold a \"{sign}\", which has to be written as {code}"));
        }
        let after = user.split('%').skip(1);
        let is_code = |text: &str| text.len() >= 2 && text.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
        let good = after.into_iter().all(is_code);
        (!good)
            .then(|| "user or password hold a \"%\" that begins no code; a \"%\" itself is written as %25".to_owned())
    }

    /// What is shown: the scheme, and behind it nothing that could be a part of a password.
    fn shown(&self) -> String {
        let Some(scheme) = self.scheme() else {
            // A path that lacks its `sqlite:`.
            return if self.0.contains([':', '@']) { HIDDEN.to_owned() } else { self.0.clone() };
        };
        if let Some(file) = self.sqlite_file().filter(|file| !(file.starts_with("//") && file.contains('@'))) {
            return format!("sqlite:{file}");
        }
        let Some(rest) = self.0[scheme.len() + 1..].strip_prefix("//") else { return format!("{scheme}:{HIDDEN}") };
        // A password may hold an `@`, too: the last one parts it from the host.
        let (user, address) = match rest.rsplit_once('@') {
            Some((_, address)) => (format!("{HIDDEN}@"), address),
            None => (String::new(), rest),
        };
        format!("{scheme}://{user}{}", if is_address(address) { address } else { HIDDEN })
    }
}

/// `HOST`, `HOST:PORT`, `[::1]:PORT`, each with `/`, `/DB` or nothing behind it. What is not just that may be a password
/// that lacks its `@`.
fn is_address(text: &str) -> bool {
    let (authority, db) = text.split_once('/').unwrap_or((text, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_name = |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    let is_v6 = |host: &str| host.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c));
    let good_host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => is_v6(inner),
        None => is_name(host),
    };
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    !host.is_empty() && good_host && good_port && (db.is_empty() || db.parse::<u32>().is_ok())
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl From<String> for BackendUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for BackendUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<&String> for BackendUrl {
    fn from(text: &String) -> Self {
        Self(text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_password_is_shown() {
        for (url, shown) in [
            ("sqlite:tidemill.db", "sqlite:tidemill.db"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("sqlite:/var/lib/a@b.db", "sqlite:/var/lib/a@b.db"),
            ("redis://127.0.0.1", "redis://127.0.0.1"),
            ("redis://[::1]:6379/3", "redis://[::1]:6379/3"),
            ("Redis://cache:6379", "redis://cache:6379"),
            ("./tidemill.db", "./tidemill.db"),
        ] {
            assert_eq!(BackendUrl::from(url).to_string(), shown);
        }
    }

    #[test]
    fn a_password_is_never_shown_however_the_url_is_written() {
        for url in [
            "redis://:s3cr3t@cache",
            "redis://ada:s3cr3t@cache:6379/0",
            "redis://s3cr3t@cache",
            "redis://:p@s3cr3t@cache",
            "redis://:p/s3cr3t@cache",
            "redis://:p#s3cr3t@cache",
            "redis://:p?s3cr3t@cache",
            "redis://:s3cr3t",
            "redis://ada:s3cr3t",
            "redis://ada:s3cr3t/0",
            "redis://cache:s3cr3t/0",
            "redis://cache:6379/s3cr3t",
            "redis://cache:6379/0?password=s3cr3t",
            "redis:s3cr3t",
            "redis:/ada:s3cr3t@cache",
            "Redis://:s3cr3t@cache",
            "valkey://ada:s3cr3t@cache:6379",
            "ada:s3cr3t@cache",
            "s3cr3t@cache:6379",
            "://s3cr3t",
            "sqlite://ada:s3cr3t@host/db",
            "unix:///run/redis.sock?pass=s3cr3t",
        ] {
            let url = BackendUrl::from(url);
            assert!(!format!("{url} {url:?} {:?}", url.unencoded()).contains("s3cr3t"), "{url}");
        }
    }

    #[test]
    fn what_is_not_encoded_is_named_and_not_shown() {
        let said = |url: &str| BackendUrl::from(url).unencoded().unwrap_or_default();
        assert!(said("redis://:a/b@h").contains("\"/\", which has to be written as %2F"));
        assert!(said("redis://:a#b@h").contains("%23") && said("redis://:a?b@h").contains("%3F"));
        assert!(said("redis://:100%@h").contains("%25") && said("redis://:%zz@h").contains("%25"));
        for good in ["redis://:a%2Fb@h", "redis://h/0", "redis://:a@b@h", "sqlite:a#b", "redis://h/x?y"] {
            assert_eq!(said(good), "", "{good}");
        }
    }
}
