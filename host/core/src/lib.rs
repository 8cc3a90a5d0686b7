//! The nouns and the rules: what events, deliveries and outcomes are, and what is decided on them. No I/O, no threads; a test
//! builds everything here by hand.

pub mod clock;
pub mod limits;
pub mod model;
pub mod policy;
pub mod units;
