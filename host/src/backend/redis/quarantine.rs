//! Quarantine: deliveries in whose hands hosts died again and again, set aside to be run alone.

use super::Redis;
use crate::backend::Result;
use crate::model::delivery::{Delivery, Source};

impl Redis {
    pub(super) async fn take_from_quarantine(&self, _source: &Source, _consumer: &str) -> Result<Option<Delivery>> {
        Ok(None)
    }
}
