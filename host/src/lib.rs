//! Tidemill: events in, sandboxed WebAssembly handlers, effects settled exactly once.
//!
//! The layers, from the bottom: [`model`] (nouns), [`policy`] and [`schema`] (pure rules), [`backend`], [`plugin`] and
//! [`capability`] (I/O and guests), [`pipeline`] (one way through), [`service`] (tasks and time), and the edges
//! [`cli`] and [`web`]. Imports point down only; `tests/tidy.rs` checks it. `ARCHITECTURE.md` tells the rest.

pub mod backend;
pub mod capability;
pub mod cli;
pub mod clock;
pub mod config;
pub mod fault;
pub mod files;
pub mod model;
pub mod observe;
pub mod pipeline;
pub mod plugin;
pub mod policy;
pub mod schema;
pub mod service;
pub mod tasks;
pub mod web;
