//! Hosts declare what they want of a subscription, each in a wish stored with its group: so that none skips what
//! another one waits for, and that two never keep one state under unlike keys. And they tend the group: they record its
//! position, so that it can be recreated there, and report what other programs do to it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::consumer::Consumer;
use super::heartbeat;
use super::observe;
use super::pipeline::{Agreed, Handler};
use super::shutdown::{Shutdown, ShutdownTrigger};
use tidemill_core::model::delivery::Subscription;
use tidemill_core::policy::route::Pattern;
use tidemill_process::tasks;
use tidemill_storage::{Backend, Error, Tended, Wish};

/// How often a host tends its subscriptions.
const TEND_EVERY: Duration = Duration::from_secs(1);

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

    fn to_json(&self) -> String {
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

/// Declares what this host wants, before it fetches anything. Refused where another live host keeps the state of a
/// handler under other keys.
pub async fn begin(consumers: &[Arc<Consumer>]) -> Result<(), Error> {
    // Before this host is announced: one that is refused must not affect others.
    for consumer in consumers {
        let context = &consumer.context;
        match look(&*context.backend, &consumer.subscription, &consumer.wanted(), &context.consumer).await {
            Err(Error::GroupGone { .. }) => {}
            looked => looked?,
        }
    }
    for consumer in consumers {
        let tended = match tend(consumer).await {
            // Its position is lost: nothing is fetched from it.
            Err(Error::GroupGone { .. }) => continue,
            tended => tended?,
        };
        let ours = consumer.wanted();
        refuse_other_keys(&consumer.subscription, &ours, &tended.wishes, &consumer.context.consumer)?;
        // Neither dead hosts nor this host with its previous settings.
        let alive: Vec<Wish> = tended.wishes.iter().filter(|wish| wish.alive).cloned().collect();
        for theirs in others(&alive, &consumer.context.consumer) {
            for (what, theirs, ours) in ours.differences(&theirs) {
                observe::differs(&consumer.subscription, what, &theirs, &ours);
            }
        }
        take(consumer, &tended);
    }
    Ok(())
}

/// The same for settings that are only looked at: `own` is the consumer that would go.
pub async fn look(backend: &dyn Backend, subscription: &Subscription, ours: &Wanted, own: &str) -> Result<(), Error> {
    refuse_other_keys(subscription, ours, &backend.wishes(subscription).await?, own)
}

fn refuse_other_keys(subscription: &Subscription, ours: &Wanted, wishes: &[Wish], own: &str) -> Result<(), Error> {
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

fn others<'a>(wishes: &'a [Wish], own: &'a str) -> impl Iterator<Item = Wanted> + 'a {
    wishes.iter().filter(move |wish| wish.consumer != own).filter_map(Wanted::read)
}

async fn tend(consumer: &Consumer) -> Result<Tended, Error> {
    let context = &consumer.context;
    context.backend.tend(&consumer.subscription, &context.consumer, &consumer.wanted().to_json()).await
}

/// Applies what hosts have agreed on, and reports what other programs did.
fn take(consumer: &Consumer, tended: &Tended) {
    let subscription = &consumer.subscription;
    let (others, takes) = what_others_want(&consumer.wanted(), &tended.wishes, &consumer.context.consumer);
    consumer.agreed.store(Arc::new(Agreed { number: tended.agreed, others, left: tended.left, takes }));
    observe::strangers(subscription, tended.strayed, tended.repeated);
    if let Some(from) = tended.set_back {
        observe::set_back(subscription, from);
    }
}

/// The patterns of hosts that want something else than this one, each once; and whether this one takes what was left:
/// not if a live one wants all that this one wants, and more.
fn what_others_want(ours: &Wanted, wishes: &[Wish], own: &str) -> (Vec<Vec<Pattern>>, bool) {
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

/// Asks what hosts have agreed on. What cannot be asked now is asked again soon.
pub async fn ask(consumer: &Consumer) -> Result<(), Error> {
    let gaps = heartbeat::gaps();
    match tend(consumer).await {
        Ok(tended) => {
            // Others took this host for dead meanwhile. One of them may keep the state by other keys now.
            if consumer.gaps_seen() != gaps
                && let Err(error) = refuse_other_keys(
                    &consumer.subscription,
                    &consumer.wanted(),
                    &tended.wishes,
                    &consumer.context.consumer,
                )
            {
                tasks::end_host(&error.to_string());
                return Err(error);
            }
            consumer.saw_gaps(gaps);
            take(consumer, &tended);
        }
        Err(Error::GroupGone { .. }) => consumer.make_group_again().await,
        Err(error) => {
            observe::task_trouble("agreement", &error);
            return Err(error);
        }
    }
    Ok(())
}

/// Tends all subscriptions until it is time to stop, as it is once the backend was replaced.
pub async fn run(consumers: Vec<Arc<Consumer>>, trigger: Arc<ShutdownTrigger>, mut shutdown: Shutdown) {
    while !shutdown.sleep(TEND_EVERY).await {
        tasks::tick();
        for consumer in &consumers {
            // A backend that is slow with each of many is no reason to take this for stuck.
            tasks::alive();
            if let Err(error @ Error::Replaced(_)) = ask(consumer).await {
                observe::replaced(&error);
                trigger.trigger();
                return;
            }
        }
    }
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
