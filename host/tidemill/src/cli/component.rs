//! `tidemill plugin ls|check|stamp`: looking at components, and writing their manifests.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};

use super::out;
use super::out::outln;
use super::table::{Table, thousands};
use super::{Globals, UsageError};
use tidemill_config::{self as config, Grants};
use tidemill_runtime::loading;
use tidemill_sandbox::capability::context::Permissions;
use tidemill_sandbox::capability::{self, CAPABILITIES};
use tidemill_sandbox::component::compile::Compiler;
use tidemill_sandbox::component::inspect::inspect;
use tidemill_sandbox::component::load::{ComponentReader, InspectedComponent};
use tidemill_sandbox::component::manifest;
use tidemill_sandbox::component::manifest::Manifest;
use tidemill_sandbox::component::trust::Trust;
use tidemill_sandbox::{Engine, Error};

/// Every handler's plugin: whose it is, what it asks for, and what of that it is granted. Nothing is compiled.
pub(crate) fn ls(globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("error");
    let (config, checked) = globals.load_checked()?;
    let intake = loading::intake(&config).map_err(|error| UsageError(error.to_string()))?;
    let mut refused = false;
    for (name, handler) in &config.handlers {
        let terms = loading::terms(&config, name, handler, &checked).map_err(|error| UsageError(error.to_string()))?;
        let row = Row { name, handler, terms };
        let looked = intake.inspect(&config.path(&handler.plugin), handler.digest.as_deref(), name);
        let refusal = match &looked {
            Ok(looked) => looked.check_granted(&row.terms).err(),
            Err(_) => None,
        };
        refused |= refusal.is_some() || looked.is_err();
        if globals.json {
            out::json(&row.json(&looked, refusal.as_ref()));
        } else {
            row.print(&looked, refusal.as_ref());
        }
    }
    Ok(ExitCode::from(if refused { 2 } else { 0 }))
}

struct Row<'a> {
    name: &'a str,
    handler: &'a config::HandlerConfig,
    terms: Permissions,
}

/// One capability as the two sides see it. None: not asked for, or not granted.
struct Right {
    capability: &'static str,
    asked: Option<String>,
    granted: Option<String>,
}

impl Row<'_> {
    /// The capabilities that need a grant, as far as either side speaks of them.
    fn rights(&self, looked: &InspectedComponent) -> Vec<Right> {
        let rows = CAPABILITIES.iter().filter(|row| !row.example.is_empty());
        let right = |row: &tidemill_sandbox::capability::Capability| {
            let imports = looked.found.imports.iter().filter_map(|import| capability::of_import(import));
            let imported = imports.map(|(imported, _)| imported.name).any(|name| name == row.name);
            let permissions = looked.manifest.permissions.as_ref();
            let asked = match permissions.filter(|permissions| permissions.has(row.name)) {
                Some(permissions) => Some(words(permissions.list(row.name))),
                None => (imported && permissions.is_none()).then(|| "any (no manifest says less)".to_owned()),
            };
            let granted = (row.granted)(&self.terms).then(|| words(granted(&self.handler.grants, row.name).as_deref()));
            Right { capability: row.name, asked, granted }
        };
        rows.map(right).filter(|right| right.asked.is_some() || right.granted.is_some()).collect()
    }

    fn json(&self, looked: &Result<InspectedComponent, Error>, refusal: Option<&Error>) -> Value {
        let file = self.handler.plugin.display().to_string();
        match looked {
            Err(error) => json!({ "handler": self.name, "file": file, "refused": error.to_string() }),
            Ok(looked) => {
                let rights: Vec<Value> = (self.rights(looked).iter())
                    .map(|right| json!({ "capability": right.capability, "asked": right.asked, "granted": right.granted }))
                    .collect();
                let mut value = about(looked);
                value["handler"] = self.name.into();
                value["file"] = file.into();
                value["pinned"] = self.handler.digest.is_some().into();
                value["capabilities"] = rights.into();
                value["refused"] = refusal.map(ToString::to_string).into();
                value
            }
        }
    }

    fn print(&self, looked: &Result<InspectedComponent, Error>, refusal: Option<&Error>) {
        outln!("{}: {}", self.name, self.handler.plugin.display());
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => return out::lines(&format_args!("  refused: {error}")),
        };
        let pinned = if self.handler.digest.is_some() { ", pinned" } else { "" };
        outln!("  {}{pinned}", describe(looked));
        let mut table = Table::new(["  capability", "asked", "granted"]);
        let or_no = |side: Option<String>| side.unwrap_or_else(|| "no".to_owned());
        for right in self.rights(looked) {
            table.row([format!("  {}", right.capability), or_no(right.asked), or_no(right.granted)]);
        }
        out::table(&table);
        if let Some(error) = refusal {
            out::lines(&format_args!("  refused: {error}"));
        }
    }
}

/// The list of a grant, where it has one.
fn granted(grants: &Grants, capability: &str) -> Option<Vec<String>> {
    match capability {
        "emit" => grants.emit.as_ref().map(|list| list.iter().map(|pattern| pattern.text.clone()).collect()),
        _ => None,
    }
}

fn words(list: Option<&[String]>) -> String {
    match list {
        None => "yes".to_owned(),
        Some([]) => "nothing".to_owned(),
        Some(list) => list.join(", "),
    }
}

fn about(looked: &InspectedComponent) -> Value {
    let Manifest { name, version, sdk, wit, .. } = &looked.manifest;
    json!({
        "sha256": looked.origin.sha256, "bytes": looked.found.bytes, "signed_by": looked.origin.signed_by,
        "name": name, "version": version, "sdk": sdk, "wit": wit.as_deref().or(looked.found.handler_version()),
        "imports": looked.found.imports,
    })
}

/// `payment-service 0.1.0, 69 637 bytes, sha256:..., rust 0.1.0, wit 0.1.1, unsigned`
fn describe(looked: &InspectedComponent) -> String {
    let Manifest { name, version, sdk, .. } = &looked.manifest;
    let name = [name.as_deref(), version.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let signed = match &looked.origin.signed_by {
        Some(key) => format!("signed by {}", key.display()),
        None => "no signature checked".to_owned(),
    };
    let parts = [
        if name.is_empty() { "(no manifest)".to_owned() } else { name },
        format!("{} bytes", thousands(looked.found.bytes as u64)),
        format!("sha256:{}", looked.origin.sha256),
        sdk.clone().unwrap_or_else(|| "sdk unknown".to_owned()),
        format!("wit {}", looked.found.handler_version().unwrap_or("unknown")),
        signed,
    ];
    parts.join(", ")
}

/// Whether a host would accept this file. It is compiled again, so that the time means something.
pub(super) fn check(file: &Path, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    // The bounds of the configuration, where there is one; a component can be looked at anywhere.
    let settings = if globals.config.exists() { globals.load()?.plugins } else { config::PluginsConfig::default() };
    let intake = ComponentReader { bytes_max: settings.component_bytes_max.as_u64(), trust: Trust::default() };
    let refused = |error: Error| UsageError(error.to_string());
    let handler = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let looked = intake.inspect(file, None, &handler).map_err(refused)?;
    let engine = Engine::new(1, settings.stack.as_u64() as usize).map_err(refused)?;
    let begun = Instant::now();
    looked.compile(&engine, &Compiler::without_cache(&settings), &handler).map_err(refused)?;
    let compiled = begun.elapsed();
    let found = &looked.found;
    let counts =
        [("core modules", found.core_modules), ("core instances", found.core_instances), ("memories", found.memories)];
    if globals.json {
        let mut value = about(&looked);
        value["ok"] = true.into();
        value["exports"] = json!(found.exports);
        value["custom_sections"] = json!(found.custom);
        value["permissions"] = json!(looked.manifest.permissions);
        value["compile_ms"] = json!(compiled.as_millis());
        for (what, count) in counts {
            value[what.replace(' ', "_")] = count.into();
        }
        out::json(&value);
    } else {
        outln!("good: {}", describe(&looked));
        outln!("  exports {}", found.exports.join(", "));
        outln!("  imports {}", if found.imports.is_empty() { "nothing".to_owned() } else { found.imports.join(", ") });
        if let Some(permissions) = &looked.manifest.permissions {
            outln!("  asks for {}", serde_json::to_string(permissions)?);
        }
        let counts = counts.map(|(what, count)| format!("{count} {what}"));
        outln!("  made of {}; compiled in {} ms", counts.join(", "), compiled.as_millis());
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the manifest of a TOML file into a component.
pub(super) fn stamp(component: &Path, file: &Path, out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let wrong = |what: String| UsageError(format!("{}: {what}", file.display()));
    let value: Value = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let manifest = strict(value).map_err(wrong)?;
    let wasm = std::fs::read(component).with_context(|| format!("reading {}", component.display()))?;
    let stamped = stamped(&wasm, manifest).map_err(|what| UsageError(format!("{}: {what}", component.display())))?;
    let out = out.unwrap_or_else(|| component.to_owned());
    replace(&out, &stamped)?;
    outln!("{} ({} bytes)", out.display(), stamped.len());
    Ok(ExitCode::SUCCESS)
}

/// A manifest that a person wrote: an unknown key is a typing error.
pub(crate) fn strict(value: Value) -> Result<Manifest, String> {
    let read = manifest::read(value)?;
    if read.unknown.is_empty() {
        return Ok(read.manifest);
    }
    Err(format!("unknown keys: {}\n  hint: docs/guides/plugins.md lists those of a manifest", read.unknown.join(", ")))
}

/// The component with the manifest in it; the version of the worlds is read off the component.
pub(super) fn stamped(wasm: &[u8], mut manifest: Manifest) -> Result<Vec<u8>, String> {
    let found = inspect(wasm)?;
    manifest.wit = found.handler_version().map(str::to_owned).or(manifest.wit);
    manifest::stamp(wasm, &manifest)
}

/// Beside it and renamed: a host that watches the file never reads half of it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let beside = path.with_file_name(name);
    std::fs::write(&beside, bytes)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("writing {}", path.display()))
}
