//! Looking at a component before anything is compiled: what it is, what it imports and exports, what it is made of. It is
//! read section by section, and nothing in it is run.

use std::ops::Range;

use wasmparser::{Encoding, Parser, Payload};

use crate::abi;
use crate::capability;
use crate::error::Error;

/// Names that a component may import or export, and its custom sections. The names of the worlds are a dozen, those of whole
/// language runtimes four.
const NAMES_MAX: usize = 1000;

/// The name of the custom section.
pub const SECTION: &str = "tidemill:manifest";

/// The newest version of the worlds, for hints.
pub(super) const LATEST: &str = abi::VERSIONS[abi::VERSIONS.len() - 1];

/// What a component shows of itself.
#[derive(Debug, Default)]
pub struct Inspected {
    pub bytes: usize,
    /// As they are written in it: `tidemill:plugin/emit@0.1.0`.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Counted at every depth: what it defines.
    pub core_modules: u32,
    pub core_instances: u32,
    pub memories: u32,
    /// Its custom sections, each with its bytes. `name` and `producers` are the tools' own.
    pub custom: Vec<(String, usize)>,
    /// Where its manifests lie. One that is good has at most one.
    pub(crate) manifests: Vec<Range<usize>>,
}

/// Reads the component's sections. The error says what it is instead.
pub fn inspect(wasm: &[u8]) -> Result<Inspected, String> {
    if Parser::is_core_wasm(wasm) {
        return Err("it is a core module\n  hint: encode it as a component (cargo xtask guests does)".to_owned());
    }
    if !Parser::is_component(wasm) {
        return Err("it does not begin as one".to_owned());
    }
    let mut found = Inspected { bytes: wasm.len(), ..Inspected::default() };
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(|error| error.to_string())?;
        match payload {
            Payload::Version { encoding, .. } => {
                depth += 1;
                found.core_modules += u32::from(encoding == Encoding::Module);
            }
            Payload::End(_) => depth -= 1,
            // A section's own word on how much is in it: not believed further than it can be counted.
            Payload::InstanceSection(section) => {
                found.core_instances = found.core_instances.saturating_add(section.count());
            }
            Payload::MemorySection(section) => found.memories = found.memories.saturating_add(section.count()),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    let import = import.map_err(|error| error.to_string())?;
                    push(&mut found.imports, import.name.name)?;
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let export = export.map_err(|error| error.to_string())?;
                    push(&mut found.exports, export.name.name)?;
                }
            }
            Payload::CustomSection(section) if depth == 1 => {
                // Not passed over: its manifest might be among those behind.
                if found.custom.len() >= NAMES_MAX {
                    return Err(format!("it has more than {NAMES_MAX} custom sections"));
                }
                found.custom.push((section.name().to_owned(), section.data().len()));
                if section.name() == SECTION {
                    let from = section.data_offset();
                    found.manifests.push(from..from + section.data().len());
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn push(names: &mut Vec<String>, name: &str) -> Result<(), String> {
    if names.len() >= NAMES_MAX {
        return Err(format!("it imports or exports more than {NAMES_MAX} names"));
    }
    if name.chars().any(char::is_control) {
        return Err(format!("the name {name:?} holds control characters"));
    }
    names.push(name.to_owned());
    Ok(())
}

impl Inspected {
    /// Is it built for a world of ours? Said in the words of the worlds.
    pub(crate) fn check_world(&self, handler: &str) -> Result<(), Error> {
        let wrong = |what: String, hint: String| Err(Error::WrongWorld { handler: handler.to_owned(), what, hint });
        let wanted = format!("{}/handler@", abi::PACKAGE);
        let Some(version) = self.handler_version() else {
            let listed = if self.exports.is_empty() { "nothing".to_owned() } else { self.exports.join(", ") };
            return wrong(
                format!("it does not export {wanted}{LATEST}; it exports {listed}"),
                format!("build it for the world handler-plugin of wit/{LATEST}"),
            );
        };
        if !abi::VERSIONS.contains(&version) {
            return wrong(
                format!("it is built for {} {version}; this host speaks {}", abi::PACKAGE, abi::VERSIONS.join(", ")),
                "build it again with the interfaces of this host, or take a newer host".to_owned(),
            );
        }
        self.imports.iter().try_for_each(|import| check_offered(import, handler))
    }

    /// Whether it has the optional role.
    pub(crate) fn has_lifecycle(&self) -> bool {
        let wanted = format!("{}/lifecycle@", abi::PACKAGE);
        self.exports.iter().any(|name| name.starts_with(&wanted))
    }

    /// The version of the worlds that it exports `handler` of.
    pub fn handler_version(&self) -> Option<&str> {
        let wanted = format!("{}/handler@", abi::PACKAGE);
        self.exports.iter().find_map(|name| name.strip_prefix(&wanted))
    }
}

/// Is it an interface that this host links, in a version that it supports?
fn check_offered(import: &str, handler: &str) -> Result<(), Error> {
    let wrong = |what: String, hint: String| Err(Error::WrongWorld { handler: handler.to_owned(), what, hint });
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    let Some((_, offered)) = capability::of_import(import) else {
        return wrong(format!("it imports \"{import}\", which this host does not offer"), hint_for_import(interface));
    };
    if !offered.supports(version) {
        return wrong(
            format!("it imports \"{import}\"; this host speaks {}", offered.spoken()),
            format!("build it with the interfaces of wit/{}", abi::VERSIONS.join(" or wit/")),
        );
    }
    Ok(())
}

fn hint_for_import(interface: &str) -> String {
    if interface.starts_with("wasi:") {
        return "of WASI there are clocks, random and stdio; for the rest use the stub options of your tool (docs/guides/languages.md)"
            .to_owned();
    }
    let interfaces = capability::CAPABILITIES.iter().flat_map(|row| row.interfaces);
    let offered: Vec<&str> = interfaces.map(|interface| interface.name).collect();
    format!("the host offers {}", offered.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_lies_about_its_length_is_harmless() {
        // Two sections of core instances (id 2) that say 2^32 - 1 each and hold none.
        let lie: [u8; 7] = [2, 5, 0xff, 0xff, 0xff, 0xff, 0x0f];
        let wasm = [&b"\0asm\x0d\0\x01\0"[..], &lie, &lie].concat();
        assert_eq!(inspect(&wasm).unwrap().core_instances, u32::MAX);
    }

    /// Reaches `NAMES_MAX`.
    #[test]
    fn names_and_custom_sections_have_a_bound() {
        let exports = |count: usize| {
            let mut section = wasm_encoder::ComponentExportSection::new();
            for n in 0..count {
                section.export(&*format!("e{n}"), wasm_encoder::ComponentExportKind::Func, 0, None);
            }
            let mut component = wasm_encoder::Component::new();
            component.section(&section);
            inspect(&component.finish()).map(|found| found.exports.len())
        };
        assert_eq!(exports(NAMES_MAX), Ok(NAMES_MAX));
        assert!(exports(NAMES_MAX + 1).unwrap_err().contains("imports or exports more than 1000 names"));
        let customs = |count: usize| {
            let mut component = wasm_encoder::Component::new();
            for _ in 1..count {
                component.section(&wasm_encoder::CustomSection { name: "x".into(), data: b"".into() });
            }
            component.section(&wasm_encoder::CustomSection { name: SECTION.into(), data: b"{}".into() });
            inspect(&component.finish()).map(|found| found.manifests.len())
        };
        assert_eq!(customs(NAMES_MAX), Ok(1), "the last one is seen");
        assert!(customs(NAMES_MAX + 1).unwrap_err().contains("more than 1000 custom sections"));
    }

    #[test]
    fn names_with_control_characters_are_refused() {
        // An export (section 11) of a function under the name "\x1b".
        let wasm = [&b"\0asm\x0d\0\x01\0"[..], &[11, 7, 1, 0, 1, 0x1b, 1, 0, 0]].concat();
        assert!(inspect(&wasm).unwrap_err().contains("control characters"));
    }
}
