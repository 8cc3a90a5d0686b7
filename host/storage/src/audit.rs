//! What people do to a subscription, and the hosts that they see.

use tidemill_core::model::delivery::EntryId;

/// A live host, as its last heartbeat reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    pub consumer: String,
    /// JSON; see `host/runtime/src/heartbeat.rs`.
    pub report: String,
}

/// How many audit records a subscription keeps; the oldest go first.
pub const AUDIT_MAX: usize = 10_000;
/// How many dead letters an audit record names.
pub const AUDIT_IDS_MAX: usize = 100;

/// The person who changes a subscription, and why: for the audit record that is written in the same step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operator {
    pub name: String,
    /// What was asked for, for people: a filter, a reason.
    pub reason: String,
}

/// An operation on many dead letters may run in parts, with a record for each. One that changed nothing writes none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    pub id: EntryId,
    /// Unix time in milliseconds, by the backend's clock.
    pub at_ms: u64,
    /// `replay`, `drop`, `edit`, `pause`, `resume`.
    pub verb: String,
    /// How many dead letters it was done to.
    pub count: u64,
    /// The dead letters, the first `AUDIT_IDS_MAX` of them.
    pub ids: Vec<EntryId>,
    pub operator: Operator,
}
