//! Pairs of byte strings in one BLOB: the fields of a foreign entry, the values of a state. Each name and each value
//! stands after its length, four bytes little-endian.

use bytes::{BufMut, Bytes};

pub(crate) fn pack<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut packed = Vec::new();
    for part in pairs.flat_map(|(name, value)| [name, value]) {
        // A part is never near 4 GiB: SQLite refuses values of more than 1 GB.
        packed.put_u32_le(part.len() as u32);
        packed.put_slice(part);
    }
    packed
}

/// `None` if this was not packed by us. The parts share the memory of `packed`.
pub(crate) fn unpack(packed: &Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    let (mut pairs, mut rest) = (Vec::new(), packed.clone());
    while !rest.is_empty() {
        pairs.push((take(&mut rest)?, take(&mut rest)?));
    }
    Some(pairs)
}

fn take(rest: &mut Bytes) -> Option<Bytes> {
    let len = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let end = len.checked_add(4).filter(|end| *end <= rest.len())?;
    Some(rest.split_to(end).slice(4..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let pairs = [(&b"a"[..], &b"\0\xff"[..]), (b"", b""), (b"a", b"again")];
        let packed = Bytes::from(pack(pairs.into_iter()));
        let unpacked = unpack(&packed).unwrap();
        assert!(unpacked.iter().zip(pairs).all(|((n, v), (name, value))| n == name && v == value));
        assert_eq!(unpacked.len(), 3);
        assert_eq!(unpack(&Bytes::new()), Some(vec![]));
    }

    #[test]
    fn what_was_not_packed_is_refused() {
        for foreign in [&b"\x01"[..], b"\x01\0\0\0", b"\xff\xff\xff\xff", b"\x01\0\0\0a", b"{\"json\":true}"] {
            assert_eq!(unpack(&Bytes::from_static(foreign)), None, "{foreign:?}");
        }
    }
}
