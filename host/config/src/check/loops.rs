//! Handlers that can go round in a circle: one emits what another wants, and so on, back to the first. That is allowed,
//! because `limits.hops` ends it; but seldom meant.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Check;
use crate::Config;
use tidemill_core::model::name::EventName;
use tidemill_core::policy::route::Pattern;
use tidemill_schema::Registry;

/// For each handler: the handlers that its emits can trigger, and by which event.
type Calls<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a EventName>>;

impl Check<'_> {
    pub(super) fn loops(&mut self, schemas: &Registry) {
        let config = self.config;
        let calls = calls(config, schemas);
        let mut told: BTreeSet<&str> = BTreeSet::new();
        for first in calls.keys() {
            let Some(circle) = shortest_circle(&calls, first) else { continue };
            if circle.iter().any(|(handler, _)| told.contains(handler)) {
                continue;
            }
            told.extend(circle.iter().map(|(handler, _)| handler));
            let steps: Vec<String> = circle.iter().map(|(handler, event)| format!("{handler} emits {event}")).collect();
            let bound = config.handlers[*first].limits.hops;
            self.warn(
                format!("handlers.{first}.grants.emit"),
                format!("handlers can go round in a circle: {}, which {first} wants", steps.join(", ")),
                format!("narrow the grants or the events; if it is meant, limits.hops ({bound}) is what ends it"),
            );
        }
    }
}

/// Only what has a schema can be emitted.
fn calls<'a>(config: &'a Config, schemas: &'a Registry) -> Calls<'a> {
    let fits = |patterns: &[Pattern], name: &EventName| patterns.iter().any(|p| p.matches(&name.kind, name.version));
    let wanted: Vec<(&str, Vec<Pattern>)> =
        config.handlers.keys().map(|name| (name.as_str(), config.events_of(name))).collect();
    let called_by = |(name, handler): (&'a String, &'a crate::HandlerConfig)| {
        let emits = handler.grants.emits().unwrap_or_default();
        let emitted: Vec<&EventName> = schemas.names().filter(|name| fits(&emits, name)).collect();
        let by = |events: &[Pattern]| emitted.iter().find(|event| fits(events, event)).copied();
        let called = wanted.iter().filter_map(|(other, events)| Some((*other, by(events)?))).collect();
        (name.as_str(), called)
    };
    config.handlers.iter().map(called_by).collect()
}

/// From a handler back to itself in as few steps as can be: each handler on the way, and what it emits.
fn shortest_circle<'a>(calls: &Calls<'a>, first: &'a str) -> Option<Vec<(&'a str, &'a EventName)>> {
    let mut came: BTreeMap<&str, (&str, &EventName)> = BTreeMap::new();
    let mut next = VecDeque::from([first]);
    while let Some(handler) = next.pop_front() {
        for (other, event) in calls.get(handler)? {
            if came.contains_key(other) {
                continue;
            }
            came.insert(other, (handler, event));
            next.push_back(other);
        }
    }
    let (mut circle, mut at) = (Vec::new(), first);
    loop {
        let (from, event) = came.get(at)?;
        circle.push((*from, *event));
        at = from;
        if at == first {
            circle.reverse();
            return Some(circle);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::check::check;
    use crate::read::parse;
    use tidemill_schema::Registry;

    /// Handlers by name, what they want and what they may emit.
    fn warned(handlers: &[(&str, &str, &str)]) -> Vec<String> {
        let mut schemas = Registry::default();
        for name in ["Order.Created.v1", "Order.Created.v2", "Order.Paid.v1", "Order.Sent.v1", "User.Created.v1"] {
            schemas.add(name, "{}").unwrap();
        }
        let mut text = "[streams.s]\nevents=[\"*\"]\n".to_owned();
        for (name, wants, emits) in handlers {
            text += &format!("[handlers.{name}]\nplugin=\"a\"\nevents=[\"{wants}\"]\n");
            text += &format!("[handlers.{name}.grants]\nemit=[{emits}]\n");
        }
        let config = parse(&text, Path::new("t.toml"), "".into(), &[]).unwrap();
        let found = check(&config, &schemas);
        assert!(found.iter().all(|finding| finding.warning), "{found:?}");
        found.iter().map(|finding| format!("{}: {}", finding.key, finding.what)).collect()
    }

    #[test]
    fn circles_are_told_once_and_by_the_shortest_way() {
        let one = warned(&[("a", "Order.Created", "\"Order.*\"")]);
        let said = "handlers.a.grants.emit: handlers can go round in a circle: a emits Order.Created.v1, which a wants";
        assert_eq!(one, [said]);
        let three = [
            ("a", "Order.Created", "\"Order.Paid\""),
            ("b", "Order.Paid", "\"Order.Sent\", \"User.Created\""),
            ("c", "Order.Sent.v1", "\"Order.Created\""),
            ("d", "User.*", ""),
        ];
        let said = "handlers.a.grants.emit: handlers can go round in a circle: a emits Order.Paid.v1, b emits \
                    Order.Sent.v1, c emits Order.Created.v1, which a wants";
        assert_eq!(warned(&three), [said]);
        let two = [
            ("a", "Order.Created", "\"Order.Created\""),
            ("b", "Order.Paid", "\"Order.Sent\""),
            ("c", "Order.Sent", "\"Order.Paid\""),
        ];
        assert_eq!(warned(&two).len(), 2, "two circles that have nothing to do with each other");
    }

    #[test]
    fn what_leads_nowhere_again_is_no_circle() {
        assert_eq!(warned(&[("a", "Order.Created", "\"Order.Paid\""), ("b", "Order.*", "\"User.Created\"")]), [""; 0]);
        let other_version = [("a", "Order.Created.v2", "\"Order.Created.v1\"")];
        assert_eq!(warned(&other_version), [""; 0]);
    }
}
