//! A delivery on its way through the pipeline.

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::model::delivery::Delivery;
use tidemill_core::model::outcome::{NotRun, Verdict};
use tidemill_sandbox::Plugin;
use tidemill_schema::event::Event;

/// With its event if it has one, and its verdict as soon as there is one.
pub(super) struct Item {
    pub(super) delivery: Delivery,
    pub(super) event: Option<Arc<Event>>,
    pub(super) verdict: Option<Verdict>,
    pub(super) state_version: Option<u64>,
    /// The version of the plugin that was called, and the time that it took.
    pub(super) plugin: Option<Arc<Plugin>>,
    pub(super) took: Duration,
}

impl Item {
    pub(super) fn new(delivery: Delivery, event: Option<Arc<Event>>) -> Self {
        Self { delivery, event, verdict: None, state_version: None, plugin: None, took: Duration::ZERO }
    }

    pub(super) fn refused(delivery: Delivery, refusal: NotRun) -> Self {
        Self { verdict: Some(Err(refusal)), ..Self::new(delivery, None) }
    }
}
