//! Events as JSON: a tree that borrows its text from an event's bytes (`tree`, `read`), an envelope read in one pass (`envelope`),
//! and schemas that look at that tree as it is (`schema`), with numbers as they are written (`number`, `exact`).
//!
//! A crate of its own because the schema library's code is compiled for the tree: that takes the compiler a minute, and
//! here it is spent once. Why a tree of our own at all: docs/decisions/0022.

pub mod bounds;
mod draft;
pub mod envelope;
mod exact;
mod keep;
mod node;
pub mod number;
mod read;
pub mod schema;
pub mod tree;

pub use envelope::Envelope;
pub use schema::Schema;
pub use tree::Json;
