//! Which events go where: patterns over event names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::model::name::{EventName, is_kind, parse_version};

/// `Order.Created` (all majors), `Order.Created.v1`, `Order.*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    Any,
    /// All kinds that begin with this prefix; it ends in a dot.
    Prefix(Arc<str>),
    Kind(Arc<str>),
    Name(EventName),
}

impl Pattern {
    /// ```
    /// # use tidemill_core::{model::name::EventName, policy::route::Pattern};
    /// let paid = EventName::parse("Payment.Order.Paid.v1").unwrap();
    /// let wants = |text: &str| text.parse::<Pattern>().unwrap().matches(&paid.kind, paid.version);
    /// assert!(wants("*") && wants("Payment.*") && wants("Payment.Order.*") && wants("Payment.Order.Paid"));
    /// assert!(wants("Payment.Order.Paid.v1") && !wants("Payment.Order.Paid.v2") && !wants("Order.*"));
    /// ```
    pub fn matches(&self, kind: &str, version: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Prefix(prefix) => kind.starts_with(&**prefix),
            Self::Kind(wanted) => **wanted == *kind,
            Self::Name(name) => *name.kind == *kind && name.version == version,
        }
    }

    /// Whether this pattern matches all that the other one matches.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Prefix(a), Self::Prefix(b)) => b.starts_with(&**a),
            (_, Self::Name(name)) => self.matches(&name.kind, name.version),
            (Self::Prefix(prefix), Self::Kind(kind)) => kind.starts_with(&**prefix),
            (Self::Kind(a), Self::Kind(b)) => a == b,
            (_, Self::Any) | (Self::Kind(_), Self::Prefix(_)) | (Self::Name(_), _) => false,
        }
    }

    /// Whether there can be an event that both patterns match.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Prefix(a), Self::Prefix(b)) => a.starts_with(&**b) || b.starts_with(&**a),
            (Self::Prefix(prefix), Self::Kind(kind)) | (Self::Kind(kind), Self::Prefix(prefix)) => {
                kind.starts_with(&**prefix)
            }
            (Self::Kind(a), Self::Kind(b)) => a == b,
            (Self::Name(name), pattern) | (pattern, Self::Name(name)) => pattern.matches(&name.kind, name.version),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(prefix) = text.strip_suffix(".*")
            && prefix.split('.').all(|segment| is_kind(&format!("{segment}.X")))
        {
            return Ok(Self::Prefix(format!("{prefix}.").into()));
        }
        if is_kind(text) {
            return Ok(Self::Kind(text.into()));
        }
        if let Some((kind, version)) = text.rsplit_once(".v")
            && let (true, Some(version)) = (is_kind(kind), parse_version(version))
        {
            return Ok(Self::Name(EventName { kind: kind.into(), version }));
        }
        Err(format!(
            "\"{text}\" is not an event pattern\n  hint: write \"Order.Created\", \"Order.Created.v1\", \"Order.*\" or \"*\""
        ))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Kind(kind) => f.write_str(kind),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// Which stream takes which events: the first row that matches.
#[derive(Debug, Default)]
pub struct StreamRoutes {
    pub rows: Vec<(Arc<str>, Vec<Pattern>)>,
}

impl StreamRoutes {
    pub fn find(&self, kind: &str, version: u32) -> Option<&Arc<str>> {
        self.rows
            .iter()
            .find(|(_, patterns)| patterns.iter().any(|p| p.matches(kind, version)))
            .map(|(stream, _)| stream)
    }

    /// The streams on which events that match one of these patterns can lie.
    pub fn overlapping<'a>(&'a self, wanted: &'a [Pattern]) -> impl Iterator<Item = &'a Arc<str>> {
        let overlaps = move |taken: &[Pattern]| taken.iter().any(|a| wanted.iter().any(|b| a.overlaps(b)));
        self.rows.iter().filter(move |(_, taken)| overlaps(taken)).map(|(stream, _)| stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    /// Of widest to narrowest, each covers itself and what comes after it, and nothing before it.
    #[test]
    fn a_pattern_covers_what_it_matches_all_of() {
        let rows = ["*", "Order.*", "Order.Line.*", "Order.Line.Added", "Order.Line.Added.v2"];
        for (i, wide) in rows.iter().enumerate() {
            for (j, narrow) in rows.iter().enumerate() {
                assert_eq!(pattern(wide).covers(&pattern(narrow)), i <= j, "{wide} {narrow}");
            }
        }
        for [one, other] in [["Order.*", "Orders.*"], ["A.B", "A.C"], ["A.B.v1", "A.B.v2"], ["A.*", "B.C.v1"]] {
            assert!(!pattern(one).covers(&pattern(other)) && !pattern(other).covers(&pattern(one)), "{one} {other}");
        }
    }

    #[test]
    fn patterns_are_written_as_they_are_read() {
        for text in ["*", "Order.*", "Payment.Order.*", "SKU.Created", "Payment.Order.Paid", "Order.Created.v2"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        for text in ["", "Order", "order.*", "Order.**", ".*", "Order.Created.v0", "Order.Created.*.v1", "A.B.C.D"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlap_is_what_both_can_match() {
        let overlaps = |a, b| {
            assert_eq!(pattern(a).overlaps(&pattern(b)), pattern(b).overlaps(&pattern(a)), "{a} {b}");
            pattern(a).overlaps(&pattern(b))
        };
        assert!(overlaps("Order.*", "Order.Created"));
        assert!(overlaps("Order.*", "Order.Created.v1"));
        assert!(overlaps("Payment.*", "Payment.Order.*"));
        assert!(overlaps("Order.Created", "Order.Created.v2"));
        assert!(overlaps("*", "Order.Created.v2"));
        assert!(!overlaps("Order.*", "Payment.Order.Paid"));
        assert!(!overlaps("Order.Created.v1", "Order.Created.v2"));
    }
}
