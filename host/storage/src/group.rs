//! A handler's group on a stream: where it begins, how it is recreated after a loss, and what hosts declare about it.

use std::time::Duration;

use serde::Deserialize;

use tidemill_core::model::delivery::EntryId;

/// Where a new group begins on a stream that already holds entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    #[default]
    Beginning,
    New,
}

/// The result of [`Membership::ensure_group`](super::Membership::ensure_group).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// It exists.
    There,
    /// It was created, and begins where the caller said; or at the beginning, if no entry of the stream was ever
    /// delivered to it.
    New,
    /// It had been lost, and resumes at its last position. What was in flight is redelivered.
    Restored,
    /// It has been lost, and its position is not known well enough: nothing is fetched until a person sets a position
    /// ([`Admin::begin_at`](super::Admin::begin_at)).
    Lost,
}

/// Where a person lets a group begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    Beginning,
    /// With what comes from now on.
    Now,
    /// With what comes after this entry.
    After(EntryId),
}

/// Why nothing is fetched from a subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pause {
    /// It is fetched from.
    #[default]
    No,
    /// A person has said so.
    Asked,
    /// Its group was lost ([`Group::Lost`]).
    Lost,
}

/// In-flight deliveries that a saved position lists one by one. With more, a restored group begins again after this
/// many of them, and only its inbox recognises what it has committed after that.
pub const POSITION_PENDING_MAX: usize = 1000;

/// The wish of a host without a heartbeat counts for so long: the time to restart that host.
pub const WISH_TTL: Duration = Duration::from_secs(600);
/// The wish of a deregistered host counts for so long: its successor is about to start.
pub const WISH_LEAVE_TTL: Duration = Duration::from_secs(10);
/// A delivery that was left for other hosts is not taken again for so long.
pub const LEFT_FOR: Duration = Duration::from_secs(1);

/// What a host declares for a subscription: JSON, see `host/runtime/src/agreement.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub consumer: String,
    pub wish: String,
    /// It has a heartbeat. If not, its wish counts until [`WISH_TTL`] is over.
    pub alive: bool,
}

/// The result of [`Membership::tend`](super::Membership::tend).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tended {
    /// Grows whenever the wishes change; see [`Disposition::Pass`](tidemill_core::model::delivery::Disposition::Pass).
    pub agreed: u64,
    /// Of all hosts, the calling one included.
    pub wishes: Vec<Wish>,
    /// Deliveries that are left for other hosts.
    pub left: u64,
    /// Counted now: entries removed without settlement, and deliveries that came twice. Another program did that.
    pub strayed: u64,
    pub repeated: u64,
    /// Another program moved the group back, from this entry.
    pub set_back: Option<EntryId>,
}

/// Versions of its plugin that the counters of a subscription tell apart.
pub const VERSIONS_MAX: usize = 64;

/// What one version of a subscription's plugin has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionCount {
    /// As in [`Settlement`](super::Settlement); empty for all that are too old to be told apart.
    pub digest: String,
    pub committed: u64,
    /// When it committed for the first time, Unix time in milliseconds; 0 where that is not known.
    pub since_ms: u64,
}
