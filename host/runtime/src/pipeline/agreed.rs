//! What the hosts of a handler want of a stream, as they have told each other: so that none of them skips what another one
//! waits for.

use std::sync::Arc;

use arc_swap::ArcSwap;

use tidemill_core::policy::route::Pattern;

/// What hosts had agreed on when they were asked last.
#[derive(Debug, Default)]
pub struct Agreed {
    /// The number of this agreement; a later one has another.
    pub number: u64,
    /// What other hosts want, by their settings.
    pub others: Vec<Vec<Pattern>>,
    /// Deliveries that were left for hosts that want them, and lie there.
    pub left: u64,
    /// This host may take those: no other one wants all that it wants, and more.
    pub takes: bool,
}

impl Agreed {
    /// Whether another host wants it.
    pub(super) fn wants(&self, kind: &str, version: u32) -> bool {
        self.others.iter().flatten().any(|pattern| pattern.matches(kind, version))
    }
}

/// Shared by all workers of one subscription; kept up to date by `agreement`.
pub type Agreement = Arc<ArcSwap<Agreed>>;
