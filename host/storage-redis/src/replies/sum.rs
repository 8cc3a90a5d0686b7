//! What is known of an entry that is too large to be kept, added up as its bytes come by.

use bytes::{Bytes, BytesMut};
use redis::Value;
use sha2::{Digest, Sha256};

use tidemill_core::model::delivery::{LARGE_PREFIX_BYTES, Large};

/// What is known of an entry that is not kept.
pub(super) struct Sum {
    /// Its one field is `event`: the value alone counts. Otherwise all fields do, as netstrings (`4:name,5:value,`).
    pub event: bool,
    pub prefix: Vec<u8>,
    pub bytes: u64,
    pub sha256: Sha256,
}

impl Sum {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let room = LARGE_PREFIX_BYTES.saturating_sub(self.prefix.len()).min(bytes.len());
        self.prefix.extend_from_slice(&bytes[..room]);
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
    }

    /// In place of the fields of the entry, as [`large`] reads it.
    pub(super) fn write(self, out: &mut BytesMut) {
        out.extend_from_slice(format!("*4\r\n${}\r\n", self.prefix.len()).as_bytes());
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(format!("\r\n:{}\r\n$32\r\n", self.bytes).as_bytes());
        out.extend_from_slice(&self.sha256.finalize());
        out.extend_from_slice(format!("\r\n:{}\r\n", u8::from(self.event)).as_bytes());
    }
}

/// What is known of an entry that was not kept, if these are its fields.
pub(crate) fn large(fields: &[Value]) -> Option<Large> {
    // A field that a producer wrote is a string, never a number.
    let [Value::BulkString(prefix), Value::Int(bytes), Value::BulkString(sha256), Value::Int(event)] = fields else {
        return None;
    };
    Some(Large {
        event: *event == 1,
        prefix: Bytes::copy_from_slice(prefix),
        bytes: bytes.unsigned_abs(),
        sha256: sha256[..].try_into().ok()?,
    })
}

/// Begins to sum up an entry of so many elements, of which these are there: its header and whole strings.
pub(super) fn sum(kept: &[u8], count: usize) -> Sum {
    let mut parts = strings(kept);
    let event = count == 2 && parts.clone().next() == Some(b"event");
    let mut sum = Sum { event, prefix: Vec::new(), bytes: 0, sha256: Sha256::new() };
    if !event {
        parts.by_ref().for_each(|part| {
            sum.add(format!("{}:", part.len()).as_bytes());
            sum.add(part);
            sum.add(b",");
        });
    }
    sum
}

/// The strings of a list as RESP, which is whole as far as it goes.
fn strings(list: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let line_end = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    let mut rest = &list[line_end(list).unwrap_or(list.len())..];
    std::iter::from_fn(move || {
        let header = line_end(rest)?;
        let length: usize = std::str::from_utf8(rest.get(1..header)?).ok()?.trim().parse().ok()?;
        let text = rest.get(header..header + length)?;
        rest = rest.get(header + length + 2..)?;
        Some(text)
    })
}
