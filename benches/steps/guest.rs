//! The call into a guest: on a live instance, on a fresh one, and what making one takes.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_core::model::outcome::Outcome;
use tidemill_runtime::build;
use tidemill_sandbox::Plugin;
use tidemill_sandbox::capability::ids::Ids;
use tidemill_sandbox::worlds::handler::{Call, Instance};
use tidemill_schema::admit::{AdmitOptions, admit};
use tidemill_schema::event::Event;

use super::Ready;
use crate::{Case, user_created};

/// The plugin of a case, and an event for it.
struct Guest {
    plugin: Arc<Plugin>,
    event: Arc<Event>,
    stream: Arc<str>,
    now: Arc<str>,
}

impl Guest {
    fn load(case: Case) -> Rc<Self> {
        let config = case.config("sqlite::memory:", "");
        let checked = build::check(&config).expect("a good configuration");
        let plugin = build::plugins(&config, &checked).expect("good plugins").all.remove(0);
        let terms = AdmitOptions { wants: &|_, _| true, key: &[], payload_bytes_max: 1 << 20 };
        let event = admit(&checked.schemas, &Bytes::from(user_created(1)), &terms).expect("a good event");
        let (stream, now) = ("bench-users".into(), "2026-01-31T12:00:00.000Z".into());
        Rc::new(Self { plugin, event: Arc::new(event), stream, now })
    }

    fn instance(&self) -> Instance {
        Instance::new(&self.plugin).expect("an instance")
    }

    fn call(&self, live: &mut Instance) {
        let call = Call {
            event: &self.event,
            stream: &self.stream,
            now: &self.now,
            ids: Ids::default(),
            attempt: 1,
            values: Arc::default(),
            // Under valgrind everything takes 50 times as long.
            state_version: 0,
            deadline: Duration::from_secs(60),
        };
        let outcome = live.call(&call).outcome;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        black_box(outcome);
    }
}

pub(super) fn live(case: Case) -> Ready {
    let guest = Guest::load(case);
    let live = Rc::new(RefCell::new(guest.instance()));
    Box::new(move || {
        let (guest, live) = (guest.clone(), live.clone());
        Box::new(move || guest.call(&mut live.borrow_mut()))
    })
}

/// Without a call.
pub(super) fn new(case: Case) -> Ready {
    let guest = Guest::load(case);
    Box::new(move || {
        let guest = guest.clone();
        Box::new(move || _ = black_box(guest.instance()))
    })
}

pub(super) fn fresh(case: Case) -> Ready {
    let guest = Guest::load(case);
    Box::new(move || {
        let guest = guest.clone();
        Box::new(move || guest.call(&mut guest.instance()))
    })
}
