//! The worlds that a component may export: one file each.

pub mod handler;
