//! Faults of Redis, of the network before it, and of other programs that have access to it. Every test ends with the same
//! count: each event that was published has had its one effect, and no attempt was burned.

mod aof_cut;
mod foreign_clients;
mod groups;
mod lost_streams;
mod memory_and_rights;
mod network;
mod replicas;
mod restarts;
mod rig;
mod windows;
