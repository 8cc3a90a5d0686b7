//! Where streams, inboxes, state and dead letters live. Two traits, and two backends that pass the same conformance
//! suite (`conformance`): SQLite for one machine, Redis for many.
//!
//! The contract, in short:
//! - a *subscription* is one handler (consumer group) on one stream; what one subscription does never shows in another;
//! - everything that a delivery changes, changes in [`Consume::settle`], whole or not at all;
//! - times are by the backend's clock, never a host's; setting it changes no delay or lease (`docs/decisions/0030`);
//! - an `Err` means that the backend failed; it is never about an event.

mod audit;
mod bounds;
mod error;
mod fetched;
pub mod finding;
pub mod group;
mod options;
mod ports;
mod published;
mod settlement;
mod status;
pub mod wire;

pub use crate::audit::{AUDIT_IDS_MAX, AUDIT_MAX, AuditRecord, HostInfo, Operator};
pub use crate::bounds::{Bounds, HEARTBEAT_MAX, Overflow, Trimmed};
pub use crate::error::{Error, Result};
pub use crate::fetched::{CRASH_WINDOW, CRASHED_WEIGHT, CRASHES_MAX, Fetched, LOOK_UP_BYTES_MAX, LookUp, Recovered};
pub use crate::finding::{Finding, Level};
pub use crate::group::{Group, Pause, Position, Start, Tended, VERSIONS_MAX, VersionCount, Wish};
pub use crate::options::{ENTRY_FACTS_BYTES, Options};
pub use crate::ports::{Admin, Backend, Consume, Diagnose, Membership, Streams};
pub use crate::published::{NewEntry, Promoted, Published};
pub use crate::settlement::{Settled, Settlement, SettlementEntry};
pub use crate::status::{IDLE_TIMER_HORIZON, SubscriptionStatus};
