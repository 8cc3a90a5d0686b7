//! Faults of Redis, of the network before it, and of strangers who have access to it. Every test ends with the same
//! count: each event that was published has had its one effect, and no attempt was burned.

mod aof_cut;
mod groups;
mod lost_streams;
mod memory_and_rights;
mod network;
mod replicas;
mod restarts;
mod rig;
mod strangers;
mod windows;
