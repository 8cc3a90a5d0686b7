//! Holding the configuration together: names that refer to each other, values that make sense. Everything that is
//! wrong is found in one go.

mod loops;
mod outside;
mod ranges;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use bytesize::ByteSize;
use toml::de::{DeTable, DeValue};

use super::read::nearest;
use super::{Config, Parsed};
use tidemill_core::limits;
use tidemill_core::policy::route::{Pattern, StreamRoutes};
use tidemill_schema::Registry;
use tidemill_storage::Overflow;

/// Something wrong or doubtful, at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFinding {
    /// As it would be written in TOML: `handlers.payment-service.plugin`
    pub key: String,
    pub what: String,
    pub hint: String,
    /// True: the host runs all the same.
    pub warning: bool,
}

impl fmt::Display for ConfigFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  hint: {}", self.key, self.what, self.hint)
    }
}

/// Gathers findings; a pattern that cannot be read becomes one.
struct Check<'a> {
    config: &'a Config,
    findings: Vec<ConfigFinding>,
}

/// Checks the configuration against itself and against the schemas.
pub fn check(config: &Config, schemas: &Registry) -> Vec<ConfigFinding> {
    let mut check = Check { config, findings: Vec::new() };
    check.routing();
    check.streams();
    let streams = config.stream_routes();
    for name in config.handlers.keys() {
        check.handler(name, &streams, schemas);
        check.outside(name);
    }
    check.known_types(schemas);
    check.loops(schemas);
    check.host();
    check.plugins();
    check.networks();
    check.config_ranges();
    check.findings
}

impl Check<'_> {
    fn find(&mut self, key: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(ConfigFinding { key: key.into(), what: what.into(), hint: hint.into(), warning: false });
    }

    fn warn(&mut self, key: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(ConfigFinding { key: key.into(), what: what.into(), hint: hint.into(), warning: true });
    }

    fn pattern<'b>(&mut self, key: &str, pattern: &'b Parsed<Pattern>) -> Option<&'b Pattern> {
        if let Err(error) = &pattern.value {
            let (what, hint) = error.split_once("\n  hint: ").unwrap_or((error, "see docs/guides"));
            self.find(key, what, hint);
        }
        pattern.value.as_ref().ok()
    }

    /// Every service that an event is routed to needs a handler: without one the event is lost.
    fn routing(&mut self) {
        for (event, services) in &self.config.routing {
            let key = format!("routing.\"{}\"", event.text);
            self.pattern(&key, event);
            for service in services.iter().filter(|service| !self.config.handlers.contains_key(*service)) {
                let hint = match nearest(service, self.config.handlers.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("add [handlers.{service}], or take the service out of the route"),
                };
                self.find(&key, format!("service \"{service}\" has no handler"), hint);
            }
        }
    }

    fn streams(&mut self) {
        for (name, stream) in &self.config.streams {
            let key = format!("streams.{name}.events");
            if name.contains(['{', '}']) || name.is_empty() {
                self.find(
                    format!("streams.{name}"),
                    "a stream's name cannot hold braces",
                    "they mark cluster slots; choose another name",
                );
            }
            if stream.events.is_empty() {
                self.find(&key, "it takes no events", "name at least one pattern, such as \"Order.*\"");
            }
            self.stream_ranges(name, stream);
            self.bounds(name, stream);
            for pattern in &stream.events {
                self.pattern(&key, pattern);
            }
        }
    }

    /// Bounds that are allowed and yet may not do what was meant.
    fn bounds(&mut self, name: &str, stream: &super::StreamConfig) {
        let at = |key: &str| format!("streams.{name}.{key}");
        match (stream.overflow, stream.maxlen.is_some() || stream.retention.is_some()) {
            (Overflow::Drop, true) => self.warn(
                at("overflow"),
                "\"drop\" throws entries away that a handler has not finished, once the stream is over its bounds",
                "\"keep\" lets the stream grow instead; what was dropped is counted in `status --json`",
            ),
            (Overflow::Drop, false) => self.find(
                at("overflow"),
                "there is no bound to overflow",
                "give the stream a maxlen or a retention, or leave overflow out",
            ),
            (Overflow::Keep, _) => {}
        }
        if let (Some(maxlen), Some(retention)) = (stream.maxlen, stream.retention) {
            // A rate is all that one can tell without having seen the stream.
            let rate = maxlen as f64 / retention.as_secs_f64().max(1.0);
            let retention = humantime::format_duration(retention);
            self.warn(
                at("maxlen"),
                format!(
                    "whichever bound is met first counts: above {rate:.2} events a second, {maxlen} entries are less \
                     than {retention}"
                ),
                "leave maxlen out to keep the whole retention; the log of `run` says what is kept in effect",
            );
        }
    }

    fn handler(&mut self, name: &str, streams: &StreamRoutes, schemas: &Registry) {
        let handler = &self.config.handlers[name];
        let at = |key: &str| format!("handlers.{name}.{key}");
        let events: Vec<_> = self.config.events_written(name).collect();
        if events.is_empty() {
            self.find(at("events"), "it wants no events", "name a pattern here, or the handler in [routing]");
        }
        for pattern in events.iter().filter_map(|pattern| self.pattern(&at("events"), pattern)).collect::<Vec<_>>() {
            if streams.overlapping(std::slice::from_ref(pattern)).next().is_none() {
                self.find(
                    at("events"),
                    format!("no stream takes \"{pattern}\""),
                    "add it to the events of a [streams.NAME]",
                );
            }
        }
        for text in handler.grants.emit.iter().flatten() {
            if let Some(pattern) = self.pattern(&at("grants.emit"), text) {
                self.emit_grant(&at("grants.emit"), pattern, streams, schemas);
            }
        }
        for pointer in handler.key.iter().filter(|pointer| !pointer.starts_with('/')) {
            self.find(
                at("key"),
                format!("\"{pointer}\" is not a JSON pointer"),
                "it begins with a slash, such as \"/data/order_id\"",
            );
        }
        self.handler_ranges(name, handler);
    }

    fn plugins(&mut self) {
        let plugins = &self.config.plugins;
        if plugins.require_signature && plugins.keys.is_empty() {
            self.find("plugins.require_signature", "there is no key to check with", "list public keys in plugins.keys");
        }
        for (name, handler) in &self.config.handlers {
            let hex = handler.digest.as_ref().map(|digest| digest.strip_prefix("sha256:").unwrap_or_default());
            let good =
                |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if hex.is_some_and(|hex| !good(hex)) {
                self.find(
                    format!("handlers.{name}.digest"),
                    "not a digest",
                    "write \"sha256:\" and 64 hex digits in lower case; `tidemill plugin ls` shows them",
                );
            }
        }
    }

    fn emit_grant(&mut self, key: &str, pattern: &Pattern, streams: &StreamRoutes, schemas: &Registry) {
        if streams.overlapping(std::slice::from_ref(pattern)).next().is_none() {
            self.find(key, format!("no stream takes \"{pattern}\""), "add it to the events of a [streams.NAME]");
        }
        if !schemas.names().any(|name| pattern.matches(&name.kind, name.version)) {
            self.find(
                key,
                format!("no schema fits \"{pattern}\""),
                "every emitted event is checked: add its schema to [schemas] path",
            );
        }
    }

    /// A wanted type without a schema would make every such event a dead letter.
    fn known_types(&mut self, schemas: &Registry) {
        let mut wanted: BTreeMap<String, (String, Pattern)> = BTreeMap::new();
        for name in self.config.handlers.keys() {
            for pattern in self.config.events_of(name) {
                wanted.entry(pattern.to_string()).or_insert_with(|| (format!("handlers.{name}.events"), pattern));
            }
        }
        for (text, (key, pattern)) in wanted {
            if !schemas.names().any(|name| pattern.matches(&name.kind, name.version)) {
                let known: Vec<String> = schemas.names().map(|name| name.kind.to_string()).collect();
                let hint = match nearest(&text, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "add its schema to the folder of [schemas] path".to_owned(),
                };
                self.find(key, format!("\"{text}\" has no schema"), hint);
            }
        }
    }

    fn host(&mut self) {
        self.dead_letters();
        if let Some(http) = &self.config.http
            && !http.listen.ip().is_loopback()
        {
            self.find("http.listen", "the API is served on loopback alone: it is not encrypted", "listen on 127.0.0.1");
        }
        if self.config.handlers.is_empty() {
            self.warn("handlers", "there is none, so nothing will be handled", "add a [handlers.NAME]");
        }
    }
}

impl Check<'_> {
    /// A bound that holds no letter would throw each one away as it is written. Letters of events that never ran have half.
    fn dead_letters(&mut self) {
        let host = &self.config.host;
        if host.dead_letters_max < 2 {
            self.find(
                "host.dead_letters_max",
                "half of it is for events that never ran, so no such letter could be kept",
                format!("at least 2; the default is {}", limits::DEAD_LETTERS),
            );
        }
        let letter = host.payload_bytes_max.0.saturating_add(limits::DEAD_LETTER_EXTRA_BYTES.0);
        let least = ByteSize(letter.saturating_mul(2));
        if host.dead_letters_bytes_max < least {
            self.find(
                "host.dead_letters_bytes_max",
                format!("{} may be too small for a single dead letter", host.dead_letters_bytes_max),
                format!(
                    "at least {least}: twice host.payload_bytes_max and {} for its reason and attempts; the default is {}",
                    limits::DEAD_LETTER_EXTRA_BYTES,
                    limits::DEAD_LETTERS_BYTES
                ),
            );
        }
    }
}

/// The line of the file that a finding's key is about, or what is there of the way to it.
pub(crate) fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let (mut table, mut rest, mut place) = (document.get_ref(), key, None);
    loop {
        // Names may hold dots: the longest that fits is the one that is meant.
        let fits = table.iter().filter_map(|(name, value)| Some((name, value, behind(rest, name.get_ref())?)));
        let Some((name, value, left)) = fits.min_by_key(|(_, _, left)| left.len()) else { break };
        place = Some(name.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => (table, rest) = (inner, left),
            _ => break,
        }
    }
    place.map(|place| text[..place].matches('\n').count() + 1)
}

/// What is left of a key behind its first name, which may be quoted.
fn behind<'a>(key: &'a str, name: &str) -> Option<&'a str> {
    let quoted = || key.strip_prefix('"')?.strip_prefix(name)?.strip_prefix('"');
    let rest = key.strip_prefix(name).or_else(quoted)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
}

/// A finding with its place in the file.
pub fn describe(finding: &ConfigFinding, path: &Path, text: &str) -> String {
    let level = if finding.warning { "warning" } else { "error" };
    match line_of(text, &finding.key) {
        Some(line) => format!("{level}: {}:{line}: {finding}", path.display()),
        None => format!("{level}: {}: {finding}", path.display()),
    }
}

#[cfg(test)]
mod tests;
