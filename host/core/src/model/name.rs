//! The name of an event type: `Order.Created` in major version 1, written `Order.Created.v1` in full.

use std::fmt;
use std::sync::Arc;

/// `Order.Created.v1`: two segments make a domain event, three an integration event, three after `System` a system event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventName {
    /// `Order.Created`
    pub kind: Arc<str>,
    /// The major version; the registry handles revisions within a major.
    pub version: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an event name: {what}\n  hint: write {hint}")]
pub struct NameError {
    text: String,
    what: &'static str,
    hint: &'static str,
}

/// The kind of a timer's event. It has no schema: only the host may write it.
pub const TIMER_KIND: &str = "Tidemill.Timer";

/// Whether a kind is reserved: only the host may publish it.
pub fn is_reserved(kind: &str) -> bool {
    kind.starts_with("Tidemill.")
}

const FULL_HINT: &str = "\"Order.Created.v1\", \"Payment.Order.Paid.v1\" or \"System.Health.CheckFailed.v1\"";

impl EventName {
    /// Reads the full name, for example the stem of a schema's file name.
    ///
    /// ```
    /// # use tidemill_core::model::name::EventName;
    /// let name = EventName::parse("Payment.Order.Paid.v1").unwrap();
    /// assert_eq!((&*name.kind, name.version), ("Payment.Order.Paid", 1));
    /// assert!(EventName::parse("Order.Created").is_err());
    /// assert!(EventName::parse("order.created.v1").is_err());
    /// ```
    pub fn parse(full: &str) -> Result<Self, NameError> {
        let error = |what| NameError { text: full.to_owned(), what, hint: FULL_HINT };
        let (kind, version) = full.rsplit_once(".v").ok_or_else(|| error("it does not end in a version"))?;
        let version = parse_version(version).ok_or_else(|| error("its version is not a whole number from 1"))?;
        if !is_kind(kind) {
            return Err(error("it needs two or three segments of letters and digits, each beginning with a capital"));
        }
        Ok(Self { kind: kind.into(), version })
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.v{}", self.kind, self.version)
    }
}

/// `Order.Created`, `Payment.Order.Paid`, `SKU.Created`: two or three segments of `[A-Z][A-Za-z0-9]*`.
pub fn is_kind(text: &str) -> bool {
    (2..=3).contains(&text.split('.').count()) && text.split('.').all(is_segment)
}

/// A major version as the envelope writes it: "1", "2"; no sign, no leading zero.
pub fn parse_version(text: &str) -> Option<u32> {
    let starts_well = text.starts_with(|c: char| ('1'..='9').contains(&c));
    if starts_well && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn is_segment(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_name_is_refused() {
        for text in
            ["", "Created.v1", "A.B.C.D.v1", "A.B.v0", "A.B.v01", "A.B.v-1", "A.b.v1", "A..v1", "A.B.v", "A.B v1"]
        {
            assert!(EventName::parse(text).is_err(), "{text}");
        }
    }
}
