//! Bounds that only a server, a host or a person meets. All others are reached beside the code that they bound.

mod hosts;
mod scripts;
