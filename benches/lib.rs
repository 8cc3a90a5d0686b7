//! Shared by the benches: nothing yet is.
