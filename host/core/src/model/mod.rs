//! The nouns. No I/O, no async, no clock: everything here can be built in a test by hand.

pub mod backend_url;
pub mod dead_letter;
pub mod delivery;
pub mod entry;
pub mod name;
pub mod outcome;
pub mod plain_text;
