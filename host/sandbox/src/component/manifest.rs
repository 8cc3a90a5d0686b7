//! What a plugin declares of itself and requests: JSON in the custom section `tidemill:manifest` of its component.
//!
//! ```json
//! {"name": "payment-service", "version": "0.1.0", "sdk": "rust 0.1.0", "wit": "0.1.1",
//!  "permissions": {"emit": ["Payment.Order.*"], "state": true}}
//! ```
//!
//! A permission takes effect if it is requested **and** granted. Without a manifest, or without `permissions` in it, a
//! plugin requests what it imports. `permissions` is the whole list: an import that is not in it is refused.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::BinaryReader;

use super::inspect::{Inspected, SECTION};
use crate::capability::context::Permissions;
use tidemill_core::limits;
use tidemill_core::policy::outbound::Grant;
use tidemill_core::policy::route::Pattern;

const KEYS: [&str; 5] = ["name", "version", "sdk", "wit", "permissions"];
const PERMISSION_KEYS: [&str; 6] = ["emit", "state", "timer", "http", "secrets", "wasi"];

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The library that it is built with, and its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdk: Option<String>,
    /// The version of the worlds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<RequestedPermissions>,
}

/// The requested permissions. An empty list requests the interface, and nothing through it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestedPermissions {
    /// Patterns of event types, as in the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emit: Option<Vec<String>>,
    pub state: bool,
    pub timer: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<String>>,
    /// Names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasi: Option<Vec<String>>,
}

/// A manifest as it was read, and the keys in it that this version does not know.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ManifestReading {
    pub manifest: Manifest,
    pub unknown: Vec<String>,
}

/// The manifest of a component, if it has one.
pub fn of(wasm: &[u8], found: &Inspected) -> Result<Option<ManifestReading>, String> {
    let section = match &found.manifests[..] {
        [] => return Ok(None),
        [one] => wasm.get(one.clone()).unwrap_or_default(),
        more => return Err(format!("it has {} manifests", more.len())),
    };
    let max = limits::MANIFEST_BYTES.as_u64();
    if section.len() as u64 > max {
        return Err(format!("its manifest has {} bytes; at most {max} are allowed", section.len()));
    }
    let value = serde_json::from_slice(section).map_err(|error| format!("its manifest is not JSON: {error}"))?;
    read(value).map(Some).map_err(|what| format!("its manifest: {what}"))
}

/// Reads a manifest, wherever it comes from.
pub fn read(value: Value) -> Result<ManifestReading, String> {
    let mut unknown = Vec::new();
    let mut look = |value: &Value, prefix: &str, known: &[&str]| {
        let keys = value.as_object().into_iter().flat_map(|object| object.keys());
        unknown.extend(
            keys.filter(|key| !known.contains(&key.as_str())).map(|key| format!("{prefix}{}", key.escape_debug())),
        );
    };
    look(&value, "", &KEYS);
    look(&value["permissions"], "permissions.", &PERMISSION_KEYS);
    let manifest: Manifest = serde_json::from_value(value).map_err(|error| error.to_string())?;
    check(&manifest)?;
    Ok(ManifestReading { manifest, unknown })
}

fn check(manifest: &Manifest) -> Result<(), String> {
    let Manifest { name, version, sdk, wit, permissions } = manifest;
    let permissions = permissions.clone().unwrap_or_default();
    let words = [name, version, sdk, wit].into_iter().flatten();
    let lists =
        [&permissions.emit, &permissions.http, &permissions.secrets, &permissions.wasi].into_iter().flatten().flatten();
    // They are shown on people's terminals.
    if let Some(text) = words.chain(lists).find(|text| text.chars().any(char::is_control)) {
        return Err(format!("{text:?} holds control characters"));
    }
    for text in permissions.emit.iter().flatten() {
        text.parse::<Pattern>().map_err(|error| format!("permissions.emit: {error}"))?;
    }
    for text in permissions.http.iter().flatten() {
        text.parse::<Grant>().map_err(|error| format!("permissions.http: {error}"))?;
    }
    Ok(())
}

/// The component with this manifest in it, in place of any that it has.
pub fn stamp(wasm: &[u8], manifest: &Manifest) -> Result<Vec<u8>, String> {
    let text = serde_json::to_string(manifest).map_err(|error| error.to_string())?;
    if text.len() as u64 > limits::MANIFEST_BYTES.as_u64() {
        return Err(format!("the manifest has {} bytes; at most {} are allowed", text.len(), limits::MANIFEST_BYTES));
    }
    const HEADER: usize = 8;
    let mut stamped = wasm.get(..HEADER).ok_or("too short")?.to_vec();
    let mut reader = BinaryReader::new(&wasm[HEADER..], HEADER);
    while !reader.eof() {
        let begins = reader.original_position();
        let is_manifest = section_is_manifest(&mut reader).map_err(|error| error.to_string())?;
        if !is_manifest {
            stamped.extend_from_slice(&wasm[begins..reader.original_position()]);
        }
    }
    CustomSection { name: SECTION.into(), data: text.as_bytes().into() }.append_to_component(&mut stamped);
    Ok(stamped)
}

/// Reads one section of a component, to its end.
fn section_is_manifest(reader: &mut BinaryReader<'_>) -> wasmparser::Result<bool> {
    const CUSTOM: u8 = 0;
    let id = reader.read_u8()?;
    let bytes = reader.read_var_u32()? as usize;
    let at = reader.original_position();
    let content = reader.read_bytes(bytes)?;
    Ok(id == CUSTOM && BinaryReader::new(content, at).read_string()? == SECTION)
}

impl RequestedPermissions {
    /// Whether it requests the capability of this name. What needs no grant need not be requested.
    pub fn has(&self, capability: &str) -> bool {
        match capability {
            "emit" => self.emit.is_some(),
            "state" => self.state,
            "timer" => self.timer,
            "http" => self.http.is_some(),
            "secrets" => self.secrets.is_some(),
            "wasi-clocks" | "wasi-random" | "wasi-stdio" => {
                self.wasi.iter().flatten().any(|part| capability.strip_prefix("wasi-") == Some(part))
            }
            name if name.starts_with("wasi") => self.wasi.is_some(),
            _ => true,
        }
    }

    /// The requested list, for people.
    pub fn list(&self, capability: &str) -> Option<&[String]> {
        let list = match capability {
            "emit" => &self.emit,
            "http" => &self.http,
            "secrets" => &self.secrets,
            name if name.starts_with("wasi") => &self.wasi,
            _ => &None,
        };
        list.as_deref()
    }

    /// Removes from the grants what is not requested.
    pub fn narrow(&self, terms: &mut Permissions) {
        // That the patterns can be read was seen when the manifest was.
        let patterns = self.emit.iter().flatten().filter_map(|text| text.parse().ok());
        terms.asked_emit = Some(patterns.collect());
        if let Some(http) = &mut terms.http {
            http.narrow(self.http.iter().flatten().filter_map(|text| text.parse().ok()).collect());
        }
        terms.secrets.narrow(self.secrets.as_deref().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::inspect::inspect;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn read_back(wasm: &[u8]) -> Result<Option<ManifestReading>, String> {
        of(wasm, &inspect(wasm).unwrap())
    }

    fn manifest(name: &str) -> Manifest {
        Manifest {
            name: Some(name.to_owned()),
            permissions: Some(RequestedPermissions { state: true, ..RequestedPermissions::default() }),
            ..Manifest::default()
        }
    }

    #[test]
    fn a_stamp_takes_the_place_of_the_one_before_and_of_nothing_else() {
        assert_eq!(read_back(EMPTY), Ok(None));
        let mut wasm = EMPTY.to_vec();
        CustomSection { name: "other".into(), data: b"x"[..].into() }.append_to_component(&mut wasm);
        let once = stamp(&wasm, &manifest("a")).unwrap();
        let twice = stamp(&once, &manifest("b")).unwrap();
        assert_eq!((once.len(), &once[..wasm.len()]), (twice.len(), &wasm[..]));
        let read = read_back(&twice).unwrap().unwrap();
        assert_eq!((read.manifest, read.unknown.len()), (manifest("b"), 0));
    }

    /// Reaches `MANIFEST_BYTES`.
    #[test]
    fn a_manifest_has_a_bound() {
        let max = limits::MANIFEST_BYTES.as_u64() as usize;
        let around = serde_json::to_string(&manifest("")).unwrap().len();
        let stamped = |bytes: usize| stamp(EMPTY, &manifest(&"x".repeat(bytes - around)));
        assert!(read_back(&stamped(max).unwrap()).unwrap().is_some());
        assert!(stamped(max + 1).unwrap_err().contains("has 16385 bytes; at most"));
        let mut wasm = EMPTY.to_vec();
        let text = format!("{:1$}", "{}", max + 1);
        CustomSection { name: SECTION.into(), data: text.as_bytes().into() }.append_to_component(&mut wasm);
        assert!(read_back(&wasm).unwrap_err().contains("has 16385 bytes; at most 16384"));
    }

    #[test]
    fn bad_manifests_are_refused_and_unknown_keys_are_named() {
        let with = |sections: &[&str]| {
            let mut wasm = EMPTY.to_vec();
            for text in sections {
                CustomSection { name: SECTION.into(), data: text.as_bytes().into() }.append_to_component(&mut wasm);
            }
            read_back(&wasm)
        };
        let long = format!("{{\"name\": \"{}\"}}", "x".repeat(20_000));
        for (sections, said) in [
            (&["{}", "{}"][..], "it has 2 manifests"),
            (&["{"], "its manifest is not JSON: "),
            (&["[1]"], "its manifest: "),
            (&["{\"permissions\": {\"emit\": [\"a b\"]}}"], "its manifest: permissions.emit: "),
            (&["{\"name\": \"\\u001b[2J\"}"], "control characters"),
            (&[&long], "its manifest has 20012 bytes; at most 16384 are allowed"),
        ] {
            let refused = with(sections).unwrap_err();
            assert!(refused.contains(said), "wanted {said}\n found {refused}");
        }
        let read = with(&["{\"nmae\": 1, \"permissions\": {\"queue\": true}}"]).unwrap().unwrap();
        assert_eq!(read.unknown, ["nmae", "permissions.queue"]);
    }

    #[test]
    fn what_is_not_in_the_list_is_not_asked_for() {
        let permissions =
            RequestedPermissions { emit: Some(Vec::new()), wasi: Some(Vec::new()), ..RequestedPermissions::default() };
        let names = ["types", "log", "emit", "wasi-io", "wasi-clocks", "state", "http", "secrets", "timer"];
        assert_eq!(
            names.map(|name| permissions.has(name)),
            [true, true, true, true, false, false, false, false, false]
        );
    }
}
