//! What lets a handler out of the sandbox: grants of `http`, secrets, and private networks.

use ipnet::Ipv6Net;

use super::Check;
use crate::Parsed;
use crate::read::nearest;
use tidemill_core::policy::address::NAT64_BITS;

/// The longest name of a secret, in bytes.
const NAME_BYTES_MAX: usize = 64;

impl Check<'_> {
    pub(super) fn outside(&mut self, name: &str) {
        let handler = &self.config.handlers[name];
        let at = |key: &str| format!("handlers.{name}.{key}");
        for Parsed { text, value } in handler.grants.http.iter().flatten() {
            match value {
                Err(what) => self.find(
                    at("grants.http"),
                    format!("\"{text}\" is not a grant: {what}"),
                    "write \"POST https://api.example.com/v1/payments/*\", with `*` for any method, and `*.` before a host",
                ),
                Ok(grant) if !grant.https && !handler.secrets.is_empty() => self.warn(
                    at("grants.http"),
                    format!("a secret in a request to \"{text}\" goes over the network unencrypted"),
                    "use https, or be sure of that network",
                ),
                Ok(_) => {}
            }
        }
        for secret in handler.secrets.keys() {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if secret.is_empty() || secret.len() > NAME_BYTES_MAX || !secret.bytes().all(good) {
                self.find(
                    at("secrets"),
                    format!("\"{secret}\" is not a name of a secret"),
                    "1 to 64 letters, digits, dashes, dots and underscores",
                );
            }
        }
        for secret in handler.grants.secrets.iter().flatten().filter(|name| !handler.secrets.contains_key(*name)) {
            let hint = match nearest(secret, handler.secrets.keys().map(String::as_str)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("say where its value is: [handlers.{name}.secrets] {secret} = {{ env = \"..\" }}"),
            };
            self.find(at("grants.secrets"), format!("there is no secret \"{secret}\""), hint);
        }
    }

    pub(super) fn networks(&mut self) {
        for Parsed { text, .. } in self.config.host.http_private.iter().filter(|network| network.value.is_err()) {
            self.find(
                "host.http_private",
                format!("\"{text}\" is not a network"),
                "write \"10.1.0.0/16\", \"10.1.2.3/32\" or \"fd00::/8\"",
            );
        }
        let good = |net: &Ipv6Net| NAT64_BITS.contains(&net.prefix_len());
        for Parsed { text, .. } in self.config.host.http_nat64.iter().filter(|net| !net.value.as_ref().is_ok_and(good))
        {
            self.find(
                "host.http_nat64",
                format!("\"{text}\" is not a NAT64 prefix"),
                "an IPv6 network of 32, 40, 48, 56, 64 or 96 bits (RFC 6052), such as \"2001:db8:64::/96\"",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::NAME_BYTES_MAX;
    use crate::check::{ConfigFinding, check};
    use crate::read::parse;
    use tidemill_schema::Registry;

    fn findings(text: &str) -> Vec<ConfigFinding> {
        let mut schemas = Registry::default();
        schemas.add("Order.Created.v1", "{}").unwrap();
        let start = "[streams.s]\nevents=[\"*\"]\n[handlers.a]\nplugin=\"a\"\nevents=[\"Order.Created\"]\n";
        let config = parse(&format!("{start}{text}"), Path::new("t.toml"), "".into(), &[]).unwrap();
        check(&config, &schemas)
    }

    /// Reaches `outside::NAME_BYTES_MAX`.
    #[test]
    fn the_name_of_a_secret_has_a_bound() {
        let named =
            |bytes: usize| findings(&format!("[handlers.a.secrets]\n{} = {{ env = \"K\" }}", "k".repeat(bytes)));
        assert_eq!(named(NAME_BYTES_MAX), []);
        let found = named(NAME_BYTES_MAX + 1);
        assert!(found.len() == 1 && found[0].what.contains("is not a name of a secret"), "{found:?}");
    }

    #[test]
    fn what_is_wrong_with_grants_and_secrets_is_said_at_its_key() {
        let rows = [
            (
                "[handlers.a.grants]\nhttp = [\"GET https://*/x\"]",
                "handlers.a.grants.http: \"GET https://*/x\" is not a grant",
            ),
            ("[handlers.a.grants]\nhttp = [\"https://h/x\"]", "it begins with a method"),
            (
                "[handlers.a.grants]\nsecrets = [\"kay\"]\n[handlers.a.secrets]\nkey = { env = \"K\" }",
                "did you mean \"key\"?",
            ),
            ("[handlers.a.grants]\nsecrets = [\"key\"]", "[handlers.a.secrets] key = { env"),
            ("[handlers.a.secrets]\n\"a b\" = { env = \"K\" }", "handlers.a.secrets: \"a b\" is not a name"),
            ("[handlers.a.limits]\nio_calls = 0", "handlers.a.limits.io_calls: out of range"),
            ("[host]\nio_workers = 0", "host.io_workers: out of range\n  hint: 1 to 512"),
            ("[host]\nhttp_private = [\"10.1.2.3\"]", "host.http_private: \"10.1.2.3\" is not a network"),
            ("[host]\nhttp_nat64 = [\"2001:db8::/95\"]", "host.http_nat64: \"2001:db8::/95\" is not a NAT64 prefix"),
            ("[host]\nhttp_nat64 = [\"10.0.0.0/8\"]", "host.http_nat64: \"10.0.0.0/8\" is not a NAT64 prefix"),
        ];
        for (text, wanted) in rows {
            let found = findings(text);
            assert_eq!(found.iter().filter(|finding| !finding.warning).count(), 1, "{text}: {found:?}");
            assert!(found[0].to_string().contains(wanted), "{text}: {found:?}");
        }
        let good = "[handlers.a.grants]\nhttp = [\"GET https://*.h.org/x\"]\nsecrets = [\"k\"]\n[handlers.a.secrets]\nk = { env = \"K\" }\n[host]\nhttp_private = [\"10.0.0.0/8\"]";
        assert_eq!(findings(good), []);
    }

    #[test]
    fn a_secret_over_plain_http_is_warned_of() {
        let text = "[handlers.a.grants]\nhttp = [\"GET http://h/x\"]\n[handlers.a.secrets]\nk = { file = \"k\" }";
        let found = findings(text);
        assert!(found.len() == 1 && found[0].warning && found[0].what.contains("unencrypted"), "{found:?}");
    }
}
