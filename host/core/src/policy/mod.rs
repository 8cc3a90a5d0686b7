//! The rules. Pure functions of facts: no async, no clock, no randomness; a test needs four values and no mocks.

pub mod address;
pub mod backoff;
pub mod breaker;
pub mod canary;
pub mod disposition;
pub mod fingerprint;
pub mod outbound;
pub mod retry;
pub mod route;
pub mod target;
