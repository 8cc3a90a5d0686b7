//! The headers of a request: what a plugin may set, and what only the host does.

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::capability::secret::Secrets;

/// The most headers of one request.
const HEADERS_MAX: usize = 64;

/// What frames a message, chooses where it goes or names the client: set by the host, or not at all.
const RESERVED: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "forwarded",
    "idempotency-key",
];

const OPEN: &str = "{{secret:";
const CLOSE: &str = "}}";

/// The plugin's headers, with the values of secrets filled in. An error never shows a value.
pub(super) fn checked(headers: &[(String, String)], secrets: &Secrets) -> Result<HeaderMap, String> {
    if headers.len() > HEADERS_MAX {
        return Err(format!("a request has at most {HEADERS_MAX} headers, not {}", headers.len()));
    }
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let shown = || name.escape_debug().take(64).collect::<String>();
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("\"{}\" is no header", shown()))?;
        if RESERVED.contains(&key.as_str()) || key.as_str().starts_with("proxy-") {
            return Err(format!("the header {key} is the host's to set"));
        }
        let filled = filled(value, secrets).map_err(|what| format!("header {key}: {what}"))?;
        let sensitive = filled.is_some();
        let text = filled.as_deref().unwrap_or(value);
        // A line break would begin another header, or another request.
        if !text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
            return Err(format!("the value of header {key} can hold nothing but visible ASCII, spaces and tabs"));
        }
        let mut value = HeaderValue::from_str(text).map_err(|_| format!("the value of header {key} is not one"))?;
        value.set_sensitive(sensitive);
        map.append(key, value);
    }
    Ok(map)
}

/// The value with every `{{secret:NAME}}` replaced; nothing if there is none in it.
fn filled(value: &str, secrets: &Secrets) -> Result<Option<String>, String> {
    if !value.contains(OPEN) {
        return Ok(None);
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    // What a secret holds is not looked through again.
    while let Some((before, behind)) = rest.split_once(OPEN) {
        let (name, after) = behind.split_once(CLOSE).ok_or("`{{secret:` without its `}}`")?;
        let secret = secrets.find(name).ok_or_else(|| {
            let name: String = name.escape_debug().take(64).collect();
            format!("the handler has no secret \"{name}\" (hint: [handlers.NAME.secrets])")
        })?;
        text.push_str(before);
        text.push_str(secret.expose());
        rest = after;
    }
    text.push_str(rest);
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::secret::{SecretSource, load};

    fn secrets() -> Secrets {
        let path = std::env::temp_dir().join(format!("tidemill-header-{}", uuid::Uuid::new_v4()));
        let read = |value: &str| {
            std::fs::write(&path, value).unwrap();
            load(&SecretSource::File(path.clone())).unwrap()
        };
        let values = [("key", "s3cr3t"), ("tricky", "{{secret:key}}"), ("lines", "a\r\nb: c")];
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), read(value))).collect();
        std::fs::remove_file(&path).unwrap();
        Secrets::new(values, None)
    }

    fn said(name: &str, value: &str) -> Result<String, String> {
        let map = checked(&[(name.to_owned(), value.to_owned())], &secrets())?;
        let (_, value) = map.iter().next().unwrap();
        Ok(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn placeholders_are_filled_in_once() {
        assert_eq!(said("authorization", "Bearer {{secret:key}}").unwrap(), "Bearer s3cr3t");
        assert_eq!(said("x", "{{secret:key}}{{secret:key}}-{{secret}}").unwrap(), "s3cr3ts3cr3t-{{secret}}");
        assert_eq!(said("x", "{{secret:tricky}}").unwrap(), "{{secret:key}}");
        assert!(said("x", "{{secret:other}}").unwrap_err().contains("no secret \"other\""));
        assert!(said("x", "{{secret:key").is_err());
        let map = checked(&[("x".to_owned(), "{{secret:key}}".to_owned())], &secrets()).unwrap();
        assert!(!format!("{map:?}").contains("s3cr3t"));
    }

    /// Reaches `headers::HEADERS_MAX`.
    #[test]
    fn nothing_is_smuggled_in() {
        for value in ["a\r\nHost: evil", "a\nb", "a\rb", "a\0", "a\u{7f}", "ä", "{{secret:lines}}"] {
            let error = said("x", value).unwrap_err();
            assert!(error.contains("visible ASCII") && !error.contains("b: c"), "{error}");
        }
        for name in ["", "a b", "a:", ":authority", "a\r\nb", "ä"] {
            assert!(said(name, "x").unwrap_err().contains("is no header"), "{name}");
        }
        for name in [
            "Host",
            "host",
            "Content-Length",
            "TRANSFER-encoding",
            "Connection",
            "Idempotency-Key",
            "Proxy-Authorization",
        ] {
            assert!(said(name, "x").unwrap_err().contains("the host's to set"), "{name}");
        }
        let many = vec![("x".to_owned(), "y".to_owned()); 65];
        assert_eq!(checked(&many[1..], &secrets()).unwrap().len(), 64);
        assert!(checked(&many, &secrets()).unwrap_err().contains("at most 64"));
    }
}
