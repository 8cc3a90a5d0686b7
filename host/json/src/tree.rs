//! The tree: what JSON there can be.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use serde_json::{Number, Value};

use crate::bounds;
use crate::number::{Decimal, nearest};

/// Objects with more members than this are kept sorted by name and searched by halves: no event can make looking slow.
const SCANNED_MAX: usize = 16;

/// How much of a value is shown where it is wrong: bytes of text, and values.
pub(crate) const SHOWN_BYTES: usize = 300;
const SHOWN_VALUES: usize = 32;

/// One JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    /// An integer of 64 bits, or a float that is what is written.
    Number(Number),
    /// The text of any other number.
    Long(Cow<'a, str>),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Members<'a>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Member<'a> {
    pub name: Cow<'a, str>,
    pub value: Json<'a>,
}

/// The members of an object, each name once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members<'a>(Vec<Member<'a>>);

impl<'a> Members<'a> {
    /// Of several members with one name the last one stays, as nearly all readers of JSON have it.
    pub fn new(mut all: Vec<Member<'a>>) -> Self {
        if all.len() > SCANNED_MAX {
            // Stable: of equal names the later ones stay behind.
            all.sort_by(|a, b| a.name.cmp(&b.name));
            all.dedup_by(|later, earlier| {
                let repeated = later.name == earlier.name;
                if repeated {
                    std::mem::swap(later, earlier);
                }
                repeated
            });
            return Self(all);
        }
        let mut at = 1;
        while at < all.len() {
            match all[..at].iter().position(|member| member.name == all[at].name) {
                Some(first) => all[first] = all.remove(at),
                None => at += 1,
            }
        }
        Self(all)
    }

    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        let members = &self.0;
        let at = match members.len() > SCANNED_MAX {
            true => members.binary_search_by(|member| (*member.name).cmp(name)).ok(),
            false => members.iter().position(|member| member.name == name),
        };
        at.map(|at| &members[at].value)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Member<'a>> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Json<'a> {
    /// The exact value of a number; none of anything else.
    pub fn decimal(&self) -> Option<Decimal> {
        match self {
            Self::Number(number) => Some(Decimal::of(number)),
            Self::Long(text) => {
                bounds::steps(text.len());
                Some(Decimal::parse(text))
            }
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The member of an object.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Self::Object(members) => members.get(name),
            _ => None,
        }
    }

    /// What a JSON pointer points at (RFC 6901).
    pub fn pointer(&self, pointer: &str) -> Option<&Json<'a>> {
        if pointer.is_empty() {
            return Some(self);
        }
        let mut parts = pointer.strip_prefix('/')?.split('/');
        parts.try_fold(self, |value, part| match value {
            Self::Object(members) if part.contains('~') => members.get(&part.replace("~1", "/").replace("~0", "~")),
            Self::Object(members) => members.get(part),
            Self::Array(items) => items.get(index(part)?),
            _ => None,
        })
    }

    /// Whether both are one value for JSON Schema: numbers by what they are worth, objects in any order.
    pub fn same(&self, other: &Json<'_>) -> bool {
        match (self, other) {
            (Self::Number(a), Json::Number(b)) if a.is_f64() == b.is_f64() => a == b,
            (Self::Number(_) | Self::Long(_), Json::Number(_) | Json::Long(_)) => self.decimal() == other.decimal(),
            (Self::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Self::Object(a), Json::Object(b)) => {
                a.len() == b.len() && a.iter().all(|m| b.get(&m.name).is_some_and(|value| m.value.same(value)))
            }
            (Self::String(a), Json::String(b)) => a == b,
            (Self::Bool(a), Json::Bool(b)) => a == b,
            (Self::Null, Json::Null) => true,
            _ => false,
        }
    }

    /// A hash that is the same for values that are the [`same`](Self::same), under keys that no sender of events knows.
    pub fn hash(&self, keys: &RandomState) -> u64 {
        match self {
            Self::Null => keys.hash_one(0),
            Self::Bool(value) => keys.hash_one(value),
            // Zero has no sign here.
            Self::Number(number) => keys.hash_one((number.as_f64().unwrap_or_default() + 0.0).to_bits()),
            Self::Long(text) => keys.hash_one((nearest(text) + 0.0).to_bits()),
            Self::String(text) => {
                bounds::text(text.len());
                keys.hash_one(text)
            }
            Self::Array(items) => {
                let mut hasher = keys.build_hasher();
                items.iter().for_each(|item| hasher.write_u64(item.hash(keys)));
                hasher.finish()
            }
            Self::Object(members) => {
                let hashes = members.iter().map(|member| keys.hash_one((&*member.name, member.value.hash(keys))));
                keys.hash_one(("object", hashes.fold(0, u64::wrapping_add)))
            }
        }
    }

    /// The same, borrowing nothing.
    pub(crate) fn into_static(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Number(number) => Json::Number(number),
            Self::Long(text) => Json::Long(text.into_owned().into()),
            Self::String(text) => Json::String(text.into_owned().into()),
            Self::Array(items) => Json::Array(items.into_iter().map(Json::into_static).collect()),
            Self::Object(members) => {
                let member = |m: Member<'_>| Member { name: m.name.into_owned().into(), value: m.value.into_static() };
                Json::Object(Members(members.0.into_iter().map(member).collect()))
            }
        }
    }

    /// A copy of the beginning of it, to be shown: at most 300 bytes of text, and 32 values.
    pub fn beginning(&self) -> Value {
        beginning(self, &mut SHOWN_BYTES.clone(), &mut SHOWN_VALUES.clone())
    }

    /// The same as a value of serde_json: a copy, for errors and the like.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Long(text) => Value::from(nearest(text)),
            Self::String(text) => Value::String(text.clone().into_owned()),
            Self::Array(items) => Value::Array(items.iter().map(Json::to_value).collect()),
            Self::Object(members) => {
                Value::Object(members.iter().map(|m| (m.name.clone().into_owned(), m.value.to_value())).collect())
            }
        }
    }
}

/// Digits without a sign and without zeros before them.
fn index(part: &str) -> Option<usize> {
    let written_plainly = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    written_plainly.then(|| part.parse().ok()).flatten()
}

/// As JSON.
impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}

fn beginning(json: &Json<'_>, bytes: &mut usize, values: &mut usize) -> Value {
    *values = values.saturating_sub(1);
    let mut cut = |text: &str| {
        let shown = &text[..text.floor_char_boundary(*bytes)];
        *bytes -= shown.len();
        if shown.len() < text.len() { format!("{shown}...") } else { shown.to_owned() }
    };
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => Value::Number(number.clone()),
        Json::Long(text) => Value::from(nearest(text)),
        Json::String(text) => Value::String(cut(text)),
        Json::Array(items) => {
            let mut shown = Vec::new();
            for item in items {
                if *values == 0 {
                    break;
                }
                shown.push(beginning(item, bytes, values));
            }
            Value::Array(shown)
        }
        Json::Object(members) => {
            let mut shown = serde_json::Map::new();
            for member in members.iter() {
                if *values == 0 {
                    break;
                }
                let name = member.name[..member.name.floor_char_boundary(*bytes)].to_owned();
                *bytes -= name.len();
                shown.insert(name, beginning(&member.value, bytes, values));
            }
            Value::Object(shown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Json<'_> {
        Json::read(text).unwrap()
    }

    #[test]
    fn it_reads_what_serde_json_reads() {
        for text in [
            "null",
            "[true,false,-1,18446744073709551615,1.5e300,\"\",[],{}]",
            r#"{"a":{"b":[1,2,{"c":"d\n\u00e9🦀"}]},"é":"\"","x\ty":0.0}"#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(text).to_value(), value);
        }
        for text in ["", "{", "[1,]", "1e400", "\"\\ud800\"", "nul", "1 2", "{\"a\"}", "{1:2}", "\u{feff}1"] {
            let ours = Json::read(text).unwrap_err().to_string();
            assert_eq!(ours, serde_json::from_str::<Value>(text).unwrap_err().to_string(), "{text}");
        }
        let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Json::read(&deep(127)).is_ok());
        assert!(Json::read(&deep(128)).unwrap_err().to_string().contains("recursion limit"));
    }

    #[test]
    fn numbers_that_are_not_what_is_read_keep_their_text() {
        let long = |text: &str| match Json::read_as_written(text).unwrap() {
            Json::Long(text) => Some(text.into_owned()),
            _ => None,
        };
        for text in ["18446744073709551616", "-9223372036854775809", "17.0000000000000000001", "1e-400", "0.1e-330"] {
            assert_eq!(long(text).as_deref(), Some(text));
        }
        for text in ["1e-400", "4.9e-324", "-1E-0999"] {
            assert!(matches!(Json::read(text), Ok(Json::Long(_))), "{text}");
        }
        assert!(matches!(Json::read("[0.0,\"1e-999\",1]").unwrap().pointer("/0"), Some(Json::Number(_))));
        for text in ["18446744073709551615", "-1", "0", "-0.0", "1e22", "17.50", "0.30000000000000004", "1e300"] {
            assert_eq!(long(text), None, "{text}");
        }
        let text = r#"{"1e99":["\\\"",1,-2.5e1,"123 \u0031",{"18446744073709551616":18446744073709551616.0}],"x":[1e1,
            18446744073709551617],"x":[7, 18446744073709551618 ]}"#;
        let tree = read(text);
        let at = |pointer: &str| tree.pointer(pointer).cloned();
        assert_eq!(at("/1e99/4/18446744073709551616"), Some(Json::Long("18446744073709551616.0".into())));
        assert_eq!(
            at("/x"),
            Some(Json::Array(vec![Json::Number(7.into()), Json::Long("18446744073709551618".into())]))
        );
        assert_eq!(tree.to_value(), serde_json::from_str::<Value>(text).unwrap());
    }

    /// Reaches `SCANNED_MAX`.
    #[test]
    fn of_equal_names_the_last_stays_in_small_objects_and_large_ones() {
        for count in [1, 5, SCANNED_MAX, SCANNED_MAX + 1, 200] {
            let members = |round: usize| (0..count).map(move |number| format!("\"m{number}\":{}", number + round));
            let text = format!("{{{}}}", members(0).chain(members(1000)).collect::<Vec<_>>().join(","));
            let Json::Object(object) = read(&text) else { panic!() };
            assert_eq!(object.len(), count);
            for number in 0..count {
                assert_eq!(object.get(&format!("m{number}")), Some(&Json::Number((number + 1000).into())));
            }
            assert_eq!((object.get("m"), object.get("m99999")), (None, None));
        }
    }

    /// Reaches `SHOWN_BYTES` and `SHOWN_VALUES`.
    #[test]
    fn what_is_shown_has_its_bounds() {
        let shown = |text: &str| read(text).beginning();
        let text = |bytes: usize| "x".repeat(bytes);
        assert_eq!(shown(&format!("\"{}\"", text(SHOWN_BYTES))), Value::from(text(SHOWN_BYTES)));
        assert_eq!(shown(&format!("\"{}\"", text(SHOWN_BYTES + 1))), Value::from(text(SHOWN_BYTES) + "..."));
        let both = format!(r#"{{"{0}":"{0}","{1}":"{0}"}}"#, text(SHOWN_BYTES / 2), "y".repeat(SHOWN_BYTES));
        let both = shown(&both);
        let words = both.as_object().unwrap().iter();
        let bytes = words.map(|(name, value)| name.len() + value.as_str().unwrap().trim_end_matches("...").len());
        assert_eq!(bytes.sum::<usize>(), SHOWN_BYTES, "names and texts together");
        // The array is one of the values.
        for (items, wanted) in [(SHOWN_VALUES - 1, SHOWN_VALUES - 1), (SHOWN_VALUES, SHOWN_VALUES - 1)] {
            let array = format!("[{}]", vec!["0"; items].join(","));
            assert_eq!(shown(&array).as_array().map(Vec::len), Some(wanted));
        }
    }

    #[test]
    fn pointers_point_where_those_of_serde_json_do() {
        let text = r#"{"a/b":{"m~n":[10,{"":"x"}]},"":1,"data":{"k":"v"}}"#;
        let (tree, value) = (read(text), serde_json::from_str::<Value>(text).unwrap());
        for pointer in [
            "",
            "/",
            "/a~1b",
            "/a~1b/m~0n/0",
            "/a~1b/m~0n/1/",
            "/a~1b/m~0n/01",
            "/a~1b/m~0n/+1",
            "/a~1b/m~0n/2",
            "/a~1b/m~0n/-",
            "/data/k",
            "/data/k/x",
            "data/k",
            "/none",
            "/data//k",
        ] {
            assert_eq!(tree.pointer(pointer).map(Json::to_value).as_ref(), value.pointer(pointer), "{pointer}");
        }
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let Json::Object(members) = read(r#"{"plain":"text","esc\u0061ped":"a\tb"}"#) else { panic!() };
        let borrowed = |text: &Cow<'_, str>| matches!(text, Cow::Borrowed(_));
        let found: Vec<_> = members
            .iter()
            .map(|m| (borrowed(&m.name), matches!(&m.value, Json::String(text) if borrowed(text))))
            .collect();
        assert_eq!(found, [(true, true), (false, false)]);
    }
}
