//! The envelope that the host puts around the data of an emitted event: one list of members, from which come both the bytes
//! that are published and the tree that is held against the schema.

use std::io::Write as _;

use tidemill_json::Json;
use tidemill_json::tree::{Member, Members};

use tidemill_schema::event::HOPS_MEMBER;

/// White space of JSON (RFC 8259).
const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];
/// What the members take beside the data, about.
const MEMBER_BYTES: usize = 512;

/// Names, which need no escapes, and texts.
pub(crate) type Texts<'a> = [(&'static str, &'a str); 8];

pub(crate) struct Outgoing<'a> {
    texts: Texts<'a>,
    /// See [`HOPS_MEMBER`].
    hops: u32,
    attributes: Members<'a>,
    data: &'a str,
    tree: Json<'a>,
}

impl<'a> Outgoing<'a> {
    /// `data` has to be exactly one JSON value: with anything else a guest could write members of the envelope.
    pub(super) fn new(
        texts: Texts<'a>,
        hops: u32,
        attributes: &'a [(String, String)],
        data: &'a [u8],
    ) -> Result<Self, String> {
        let data = str::from_utf8(data).map_err(|error| error.to_string())?.trim_matches(SPACE);
        let tree = Json::read(data).map_err(|error| error.to_string())?;
        // Of several with one name the last stays: a reader of JSON may take any of them.
        let attributes = Members::new(attributes.iter().map(|(name, value)| member(name, value)).collect());
        Ok(Self { texts, hops, attributes, data, tree })
    }

    /// As it is published. The data stays as the guest wrote it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.data.len() + MEMBER_BYTES);
        for (name, text) in self.texts {
            bytes.extend_from_slice(if bytes.is_empty() { b"{\"" } else { b",\"" });
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b"\":");
            write_text(&mut bytes, text);
        }
        // Writing to a Vec never fails.
        let _ = write!(bytes, ",\"{HOPS_MEMBER}\":{}", self.hops);
        for (index, attribute) in self.attributes.iter().enumerate() {
            bytes.extend_from_slice(if index == 0 { b",\"attributes\":{" } else { b"," });
            write_text(&mut bytes, &attribute.name);
            bytes.push(b':');
            write_text(&mut bytes, attribute.value.as_str().unwrap_or_default());
        }
        bytes.extend_from_slice(if self.attributes.is_empty() { b",\"data\":" } else { b"},\"data\":" });
        bytes.extend_from_slice(self.data.as_bytes());
        bytes.push(b'}');
        bytes
    }

    /// What a reader of the bytes gets, but for the hops: no schema knows of them.
    pub(crate) fn into_tree(self) -> Json<'a> {
        let mut members = Vec::with_capacity(self.texts.len() + 2);
        members.extend(self.texts.map(|(name, value)| member(name, value)));
        if !self.attributes.is_empty() {
            members.push(Member { name: "attributes".into(), value: Json::Object(self.attributes) });
        }
        members.push(Member { name: "data".into(), value: self.tree });
        Json::Object(Members::new(members))
    }
}

fn member<'a>(name: &'a str, text: &'a str) -> Member<'a> {
    Member { name: name.into(), value: Json::String(text.into()) }
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    // Neither a text nor a Vec can fail.
    serde_json::to_writer(bytes, text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemill_json::Envelope;

    use super::*;

    fn texts(text: &str) -> Texts<'_> {
        ["event_id", "event_type", "version", "timestamp", "correlation_id", "causation_id", "source", "key"]
            .map(|name| (name, text))
    }

    proptest! {
        #[test]
        fn who_reads_the_bytes_gets_the_tree(
            text in any::<String>(),
            attributes in prop::collection::vec(("[a-c\"é]{0,2}", any::<String>()), 0..40),
            data in prop_oneof![
                Just("\t{ \"a\" : [1, 2.5e3, \"\\u00e9\"], \"a\": null }\r\n".to_owned()),
                any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
            ],
        ) {
            let outgoing = Outgoing::new(texts(&text), 7, &attributes, data.as_bytes()).unwrap();
            let bytes = outgoing.bytes();
            let mut envelope = Envelope::read(str::from_utf8(&bytes).unwrap()).unwrap();
            prop_assert_eq!(envelope.take(HOPS_MEMBER), Some(Json::Number(7.into())));
            prop_assert_eq!(envelope.into_tree().unwrap(), outgoing.into_tree());
        }
    }

    #[test]
    fn data_that_is_not_one_value_is_refused() {
        let refused = |data: &[u8]| Outgoing::new(texts("t"), 1, &[], data).is_err();
        for data in [&b""[..], b" ", b"1 2", b"1,\"key\":\"x\"", b"{}}", b"\x0c1", b"\"\xff\"", b"\"\\ud800\""] {
            assert!(refused(data), "{data:?}");
        }
    }
}
