//! What lies on a stream: an entry's id, what a producer put there, and the link of a replayed one to its dead letter.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

/// A hash of an event's exact bytes: the first 128 bits of its SHA-256. It tells a repeated event from another event
/// that bears the same id.
pub type PayloadHash = [u8; 16];

/// The backend's id of an entry: `1700000000000-0` in Redis; the row number and 0 in SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u64, pub u64);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for EntryId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('-').and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        parsed.ok_or_else(|| format!("\"{text}\" is not an entry id; one looks like 1700000000000-0"))
    }
}

/// What a producer put on the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The field `event`, untouched.
    Event(Bytes),
    /// The event of a timer, which the host wrote when a plugin asked for it. Never read from an input stream: so no
    /// producer can forge one, also not by way of a dead letter.
    Timer(Bytes),
    /// An entry without that field: all its fields, untouched. It ends as a dead letter.
    Fields(Vec<(Bytes, Bytes)>),
    /// An entry above the bound (`host.payload_bytes_max`), which is never held whole. It ends as a dead letter.
    Large(Large),
}

/// How much is kept of an entry above the bound, in bytes.
pub const LARGE_PREFIX_BYTES: usize = 4096;

/// What is known of an entry above the bound. The exact bytes stay on the stream, for as long as that keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Large {
    /// This is the value of the field `event`, the only one. Otherwise it is all fields, names and values, as netstrings
    /// one after the other (`4:name,5:value,`).
    pub event: bool,
    /// The first [`LARGE_PREFIX_BYTES`].
    pub prefix: Bytes,
    /// How many bytes there are.
    pub bytes: u64,
    /// Of all of them.
    pub sha256: [u8; 32],
}

impl fmt::Display for Large {
    /// `20971520 bytes, SHA-256 9f86d0...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, SHA-256 ", self.bytes)?;
        self.sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a field takes of memory beside its name and value, in bytes, about.
const FIELD_BYTES: usize = 64;

impl Body {
    /// What it takes of memory, in bytes, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Event(bytes) | Self::Timer(bytes) => bytes.len(),
            Self::Fields(fields) => fields.iter().map(|(name, value)| name.len() + value.len() + FIELD_BYTES).sum(),
            Self::Large(large) => large.prefix.len(),
        }
    }
}

/// The link from a delivery to the dead letter that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Its id among the dead letters of its subscription.
    pub letter: EntryId,
    /// 1 = the first replay.
    pub times: u32,
}
