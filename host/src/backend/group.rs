//! A handler's group on a stream: where it begins, how it is made anew when it was lost, and what hosts say of it to each
//! other.

use std::time::Duration;

use crate::model::delivery::EntryId;

/// Where a new group begins on a stream that already holds entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Beginning,
    New,
}

/// What came of the wish that a group be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// It is there.
    There,
    /// It was made, and begins where the caller said; or at the beginning, where nothing that lies on the stream was ever
    /// handed to it.
    New,
    /// It had been lost, and goes on where it was. What was in somebody's hands comes once more.
    Restored,
    /// It has been lost, and it is not known well enough where it was: nothing is fetched until a person says where to
    /// begin ([`ControlPlane::begin_at`](super::ControlPlane::begin_at)).
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

/// Deliveries in hand of which a position is noted one by one. Where there are more, the group would begin behind so many
/// of them again, and what it has committed after that is told apart by its inbox alone.
pub const POSITION_PENDING_MAX: usize = 1000;

/// For so long it counts what a host wanted that went silent: whoever starts it again has that time.
pub const WISH_TTL: Duration = Duration::from_secs(600);
/// And what one wanted that took its leave: the one that follows is on its way.
pub const WISH_LEAVE_TTL: Duration = Duration::from_secs(10);
/// What was left for others is left alone for so long before anybody takes it again.
pub const LEFT_FOR: Duration = Duration::from_secs(1);

/// What a host says of a subscription: JSON, see `service::agreement`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub consumer: String,
    pub wish: String,
    /// It lives. If not, its wish counts until [`WISH_TTL`] is over.
    pub alive: bool,
}

/// What looking after a subscription came upon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tended {
    /// Grows whenever other things are wished; see [`Disposition::Pass`](crate::model::delivery::Disposition::Pass).
    pub agreed: u64,
    /// Of all hosts, the asking one's among them.
    pub wishes: Vec<Wish>,
    /// Deliveries that were left for others and lie here.
    pub left: u64,
    /// Counted now: entries that went with no settlement, and deliveries that came once more. Nobody but a stranger does that.
    pub strayed: u64,
    pub repeated: u64,
    /// The group was moved back by a stranger, from this entry.
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
