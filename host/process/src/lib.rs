//! What a process has of its machine: tasks and threads that are watched, files of its own, and the points at which a test
//! lets it die.

pub mod fault;
pub mod files;
pub mod tasks;
