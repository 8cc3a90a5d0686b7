//! Replies in pieces of all lengths, against what the library makes of the whole.

use redis::Value;

use sha2::{Digest, Sha256};

use super::*;
use bytes::Bytes;

use tidemill_core::model::delivery::{LARGE_PREFIX_BYTES, Large};

const BOUNDS: ReplyBounds = ReplyBounds { entry_bytes: 2000, reply_bytes: 5000 };

/// What the library makes of so many replies that come in pieces of these lengths.
fn read(count: usize, wire: &[u8], pieces: impl Fn(usize) -> usize) -> Vec<Value> {
    let (mut replies, mut input, mut passed) = (Replies::new(BOUNDS), BytesMut::new(), Vec::new());
    let (mut at, mut turn) = (0, 0);
    while at < wire.len() {
        let end = (at + pieces(turn).max(1)).min(wire.len());
        input.extend_from_slice(&wire[at..end]);
        replies.take(&mut input).unwrap();
        let ready = replies.ready();
        passed.extend_from_slice(&replies.output[..ready]);
        replies.advance(ready);
        assert!(replies.output.len() <= 3 * BOUNDS.entry_bytes, "{} bytes are held", replies.output.len());
        (at, turn) = (end, turn + 1);
    }
    assert!(replies.lists.is_empty() && replies.current.is_none() && replies.output.is_empty());
    whole(count, &passed)
}

fn whole(count: usize, wire: &[u8]) -> Vec<Value> {
    let all = [format!("*{count}\r\n").as_bytes(), wire].concat();
    let Value::Array(replies) = redis::parse_redis_value(&all).unwrap() else { panic!() };
    replies
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn list(elements: &[Vec<u8>]) -> Vec<u8> {
    [format!("*{}\r\n", elements.len()).into_bytes(), elements.concat()].concat()
}

fn entry(number: usize, fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let fields: Vec<Vec<u8>> = fields.iter().flat_map(|(name, value)| [string(name), string(value)]).collect();
    list(&[string(format!("1700000000000-{number}").as_bytes()), list(&fields)])
}

/// As XREADGROUP answers.
fn stream(name: &str, entries: &[Vec<u8>]) -> Vec<u8> {
    list(&[list(&[string(name.as_bytes()), list(entries)])])
}

/// The fields of the entries of one stream.
fn fields(answer: &Value) -> Vec<Vec<Value>> {
    let Value::Array(streams) = answer else { panic!("{answer:?}") };
    let Value::Array(stream) = &streams[0] else { panic!("{answer:?}") };
    let Value::Array(entries) = &stream[1] else { panic!("{answer:?}") };
    let fields = |entry: &Value| match entry {
        Value::Array(entry) => match &entry[1] {
            Value::Array(fields) => fields.clone(),
            other => vec![other.clone()],
        },
        other => panic!("{other:?}"),
    };
    entries.iter().map(fields).collect()
}

const PIECES: [fn(usize) -> usize; 4] = [|_| 1, |turn| 1 + turn * 7 % 13, |turn| 1 + turn * 911 % 3000, |_| 1 << 20];

#[test]
fn what_is_within_its_bounds_passes_byte_for_byte() {
    const COUNT: usize = 10;
    let small: Vec<Vec<u8>> =
        (0..10).map(|n| entry(n, &[(b"event", b"{\"a\":\r\n1}"), (b"", b"*2\r\n$1\r\n")])).collect();
    let mut wire = [stream("orders", &small), b"+OK\r\n".to_vec(), b"*-1\r\n".to_vec(), b":7\r\n".to_vec()].concat();
    wire.extend(b"-ERR no $5 such *3 thing\r\n$-1\r\n*0\r\n");
    // Long texts, and lists of all kinds that are no entries.
    wire.extend(list(&[string(&vec![b'x'; 9000]), list(&[string(&vec![b'y'; 9000]), string(b"z")])]));
    wire.extend(list(&[string(b"1-1"), list(&[string(&vec![b'x'; 9000]), list(&[list(&[]), list(&[])])])]));
    wire.extend(stream(
        "orders",
        &[list(&[string(b"1-1"), b"*-1\r\n".to_vec()]), list(&[string(b"1-2"), b"$-1\r\n".to_vec()])],
    ));
    let expected = whole(COUNT, &wire);
    for pieces in PIECES {
        assert_eq!(read(COUNT, &wire, pieces), expected);
    }
}

/// Reaches `LARGE_PREFIX_BYTES`, and `VALUE_BYTES`: the many fields are too large only by what each takes beside its bytes.
#[test]
fn a_large_entry_is_told_by_its_beginning_and_its_hash() {
    let long: Vec<u8> = (0..30_000u32).map(|n| (n % 251) as u8).collect();
    let many: Vec<(&[u8], &[u8])> = vec![(b"k", b"v"); 1000];
    let entries = [
        entry(0, &[(b"event", &long)]),
        entry(1, &[(b"other", &long), (b"event", b"{}")]),
        entry(2, &many),
        entry(3, &[(b"event", b"{}")]),
        entry(4, &[(&long, b"")]),
    ];
    let netstrings = |fields: &[(&[u8], &[u8])]| -> Vec<u8> {
        let part = |part: &[u8]| [format!("{}:", part.len()).as_bytes(), part, b","].concat();
        fields.iter().flat_map(|(name, value)| [part(name), part(value)]).flatten().collect()
    };
    let told = |event, bytes: &[u8]| {
        Some(Large {
            event,
            prefix: Bytes::copy_from_slice(&bytes[..bytes.len().min(LARGE_PREFIX_BYTES)]),
            bytes: bytes.len() as u64,
            sha256: Sha256::digest(bytes).into(),
        })
    };
    for pieces in PIECES {
        // One reply for each, so that there is room for what is told.
        for (number, expected) in [
            told(true, &long),
            told(false, &netstrings(&[(b"other", &long), (b"event", b"{}")])),
            told(false, &netstrings(&many)),
            None,
            told(false, &netstrings(&[(&long, b"")])),
        ]
        .into_iter()
        .enumerate()
        {
            let wire = stream("orders", &entries[number..=number]);
            let fields = fields(&read(1, &wire, pieces)[0]).remove(0);
            assert_eq!(large(&fields), expected, "entry {number}");
            assert!(!is_left(&fields));
        }
    }
}

#[test]
fn what_has_no_room_in_its_reply_is_left_and_the_next_reply_has_room_again() {
    let body = vec![b'x'; 1500];
    let entries: Vec<Vec<u8>> = (0..10).map(|n| entry(n, &[(b"event", &body)])).collect();
    let wire = [stream("orders", &entries), stream("orders", &entries[5..])].concat();
    for pieces in PIECES {
        let replies = read(2, &wire, pieces);
        let left: Vec<Vec<bool>> =
            replies.iter().map(|reply| fields(reply).iter().map(|fields| is_left(fields)).collect()).collect();
        assert_eq!(left[0], [false, false, false, true, true, true, true, true, true, true]);
        assert_eq!(left[1], [false, false, false, true, true]);
    }
}

/// As XREADGROUP answers for both queues at once.
#[test]
fn each_of_several_streams_is_bounded() {
    let long = vec![b'x'; 3 * BOUNDS.entry_bytes];
    let (small, large_one) = (entry(0, &[(b"event", b"{}")]), entry(1, &[(b"event", &long)]));
    let one = |name: &str, entries: &[Vec<u8>]| list(&[string(name.as_bytes()), list(entries)]);
    for redelivery in [vec![small.clone()], vec![small.clone(), small.clone()], vec![small.clone(); 3]] {
        for input in [vec![large_one.clone()], vec![large_one.clone(), small.clone()], vec![large_one.clone(); 3]] {
            let wire = list(&[one("{orders}:tm:redelivery:billing", &redelivery), one("orders", &input)]);
            for pieces in PIECES {
                let Value::Array(streams) = read(1, &wire, pieces).remove(0) else { panic!() };
                let of = |at: usize| fields(&Value::Array(vec![streams[at].clone()]));
                assert!(of(0).iter().all(|fields| fields.len() == 2 && large(fields).is_none()));
                let told: Vec<bool> = of(1).iter().map(|fields| large(fields).is_some() || is_left(fields)).collect();
                let wanted: Vec<bool> = input.iter().map(|entry| *entry == large_one).collect();
                assert_eq!(told[0], wanted[0]);
                assert_eq!(told.len(), wanted.len());
            }
        }
    }
}

#[test]
fn records_of_ours_are_never_cut() {
    let body = vec![b'x'; 3 * BOUNDS.entry_bytes - 500];
    let records = [entry(0, &[(b"event", &body), (b"attempts", b"3")]), entry(1, &[(b"event", &body)])];
    for pieces in PIECES {
        let found = fields(&read(1, &stream("{orders}:tm:redelivery:billing", &records), pieces)[0]);
        assert_eq!((large(&found[0]), found[0].len()), (None, 4));
        assert!(is_left(&found[1]), "but they share their reply's room");
    }
}

/// Reaches `LINE_BYTES_MAX`.
#[test]
fn a_line_has_an_end() {
    let take = |bytes: usize, end: &[u8]| {
        let mut input = BytesMut::from(&[&b"+"[..], &vec![b'x'; bytes - 1], end].concat()[..]);
        Replies::new(BOUNDS).take(&mut input)
    };
    assert_eq!(take(LINE_BYTES_MAX, b""), Ok(()), "the rest may come");
    assert_eq!(take(LINE_BYTES_MAX, b"\r\n"), Ok(()));
    assert_eq!(take(LINE_BYTES_MAX + 1, b""), Err("a line of a reply has no end"));
}
