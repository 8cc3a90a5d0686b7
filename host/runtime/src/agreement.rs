//! What hosts want of a subscription, each in a wish stored with its group: so that none skips what another one waits
//! for, and that two never keep one state under unlike keys. `consumer::tend` declares and reads it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pipeline::Handler;
use tidemill_core::model::delivery::Subscription;
use tidemill_core::policy::route::Pattern;
use tidemill_storage::{Backend, Error, Wish};

/// What a host wants of a subscription, as it stands in the backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Patterns.
    pub events: Vec<String>,
    /// JSON pointers to what its state goes by; none where it keeps no state.
    pub key: Option<Vec<String>>,
    /// `idempotency.window`, in milliseconds.
    pub window_ms: u64,
}

impl Wanted {
    pub fn of(handler: &Handler, window: Duration) -> Self {
        let key = handler.serving.load().has_state().then(|| handler.key.clone());
        Self::new(&handler.events, key, window)
    }

    pub fn new(events: &[Pattern], key: Option<Vec<String>>, window: Duration) -> Self {
        let mut events: Vec<String> = events.iter().map(ToString::to_string).collect();
        events.sort();
        events.dedup();
        Self { events, key, window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX) }
    }

    pub(crate) fn to_json(&self) -> String {
        // Plain data: nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Another version's, of which this one reads what it knows. `None`: nothing.
    pub fn read(wish: &Wish) -> Option<Self> {
        serde_json::from_str(&wish.wish).ok()
    }

    fn patterns(&self) -> Vec<Pattern> {
        self.events.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// In what it differs from another host's, for people: the setting, theirs, ours.
    pub fn differences(&self, theirs: &Self) -> Vec<(&'static str, String, String)> {
        let list = |some: &[String]| format!("[{}]", some.join(", "));
        let window = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
        let mut found = Vec::new();
        if self.events != theirs.events {
            found.push(("events", list(&theirs.events), list(&self.events)));
        }
        if let (Some(ours), Some(theirs)) = (&self.key, &theirs.key)
            && ours != theirs
        {
            found.push(("key", list(theirs), list(ours)));
        }
        if self.window_ms != theirs.window_ms {
            found.push(("idempotency.window", window(theirs.window_ms), window(self.window_ms)));
        }
        found
    }
}

/// Refused where another live host keeps the state of a handler under other keys. `own` is the consumer that asks, or that
/// would go.
pub async fn look(backend: &dyn Backend, subscription: &Subscription, ours: &Wanted, own: &str) -> Result<(), Error> {
    refuse_other_keys(subscription, ours, &backend.wishes(subscription).await?, own)
}

pub(crate) fn refuse_other_keys(
    subscription: &Subscription,
    ours: &Wanted,
    wishes: &[Wish],
    own: &str,
) -> Result<(), Error> {
    let alive: Vec<Wish> = wishes.iter().filter(|wish| wish.alive).cloned().collect();
    for theirs in others(&alive, own) {
        if let Some((_, theirs, ours)) = ours.differences(&theirs).into_iter().find(|(what, ..)| *what == "key") {
            let handler = &subscription.handler;
            return Err(Error::Permanent(format!(
                "handlers.{handler}.key is {ours}, and another live host keeps the state of {subscription} by \
                 {theirs}: one state would lie under two keys\n  hint: stop the hosts with the old key first; what was \
                 kept under it is not found under the new one (docs/guides/rolling-changes.md)"
            )));
        }
    }
    Ok(())
}

pub(crate) fn others<'a>(wishes: &'a [Wish], own: &'a str) -> impl Iterator<Item = Wanted> + 'a {
    wishes.iter().filter(move |wish| wish.consumer != own).filter_map(Wanted::read)
}

/// The patterns of hosts that want something else than this one, each once; and whether this one takes what was left:
/// not if a live one wants all that this one wants, and more.
pub(crate) fn what_others_want(ours: &Wanted, wishes: &[Wish], own: &str) -> (Vec<Vec<Pattern>>, bool) {
    let covers = |wide: &[Pattern], narrow: &[Pattern]| narrow.iter().all(|one| wide.iter().any(|any| any.covers(one)));
    let patterns = ours.patterns();
    let (mut events, mut found, mut takes) = (vec![ours.events.clone()], Vec::new(), true);
    for wish in wishes.iter().filter(|wish| wish.consumer != own) {
        let Some(theirs) = Wanted::read(wish) else { continue };
        let theirs_patterns = theirs.patterns();
        takes &= !wish.alive || !covers(&theirs_patterns, &patterns) || covers(&patterns, &theirs_patterns);
        if !events.contains(&theirs.events) {
            events.push(theirs.events);
            found.push(theirs_patterns);
        }
    }
    (found, takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(events: &[&str], key: Option<&str>) -> Wanted {
        let events: Vec<Pattern> = events.iter().map(|text| text.parse().unwrap()).collect();
        Wanted::new(&events, key.map(|key| vec![key.to_owned()]), Duration::from_secs(60))
    }

    #[test]
    fn what_a_newer_version_adds_does_no_harm() {
        let ours = wanted(&["Order.*", "Order.*", "A.B"], Some("/data/id"));
        let mut json: serde_json::Value = serde_json::from_str(&ours.to_json()).unwrap();
        json["later"] = 1.into();
        let wish = Wish { consumer: "x".into(), wish: json.to_string(), alive: true };
        assert_eq!(Wanted::read(&wish), Some(ours));
        assert_eq!(Wanted::read(&Wish { wish: "(".into(), ..wish }), None);
    }

    #[test]
    fn who_wants_most_of_those_that_live_takes_what_was_left() {
        let ours = wanted(&["Order.Paid"], None);
        let wish = |events: &[&str], alive| Wish { consumer: "x".into(), wish: wanted(events, None).to_json(), alive };
        let takes = |events: &[&str], alive| what_others_want(&ours, &[wish(events, alive)], "me").1;
        assert!(!takes(&["Order.Paid", "A.B"], true), "it will");
        assert!(!takes(&["Order.*"], true), "it will, in other words");
        assert!(takes(&["Order.*"], false), "it has died");
        assert!(takes(&["Order.Paid"], true) && takes(&["Order.Paid", "Order.Paid.v1"], true), "it wants the same");
        assert!(takes(&["Order.Paid.v1", "A.B"], true), "it does not want v2");
        let both = [wish(&["Order.*"], false), wish(&["Order.*"], true), wish(&["Order.Paid"], true)];
        assert_eq!(what_others_want(&ours, &both, "me").0.len(), 1, "each once, and not what this one wants");
        assert_eq!(what_others_want(&ours, &both, "x"), (Vec::new(), true), "its own");
    }

    #[test]
    fn only_hosts_that_live_and_keep_state_disagree_on_keys() {
        let subscription = Subscription { stream: "s".into(), handler: "h".into() };
        let (ours, theirs) = (wanted(&["A.B"], Some("/data/a")), wanted(&["A.B"], Some("/data/b")));
        let wish = |wanted: &Wanted, alive| Wish { consumer: "x".into(), wish: wanted.to_json(), alive };
        let refused = |wish: Wish, own: &str| refuse_other_keys(&subscription, &ours, &[wish], own);
        let said = refused(wish(&theirs, true), "me").unwrap_err().to_string();
        assert!(said.contains("handlers.h.key is [/data/a]") && said.contains("by [/data/b]"), "{said}");
        assert!(refused(wish(&theirs, true), "x").is_ok(), "its own");
        assert!(refused(wish(&theirs, false), "me").is_ok(), "it has died");
        assert!(refused(wish(&wanted(&["A.B"], None), true), "me").is_ok(), "it keeps no state");
    }
}
