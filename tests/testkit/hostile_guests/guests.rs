//! Hostile components, made of core modules in text form. What a Rust guest can do as well is in `tests/guests/mischief`.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The world of these guests: that of a plugin, and what no plugin has.
const WORLD: &str = r#"
    package hostile:guests;
    interface bag { resource thing; }
    interface foreign { open: func(); }
    world hostile {
        include tidemill:plugin/handler-plugin@0.1.1;
        import foreign;
    }
    world hoarder {
        include tidemill:plugin/handler-plugin@0.1.1;
        export bag;
    }
"#;

/// A component of that world around a core module.
fn component(world: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_path(crate::root().join("wit/0.1.1")).expect("the worlds can be read");
    let package = resolve.push_str("hostile.wit", WORLD).expect("a good world");
    let world = resolve.select_world(&[package], Some(world)).expect("one of the worlds above");
    let mut core = wat::parse_str(module).expect("a good module");
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).expect("the world fits into it");
    // Not validated: the host has to do that.
    ComponentEncoder::default().module(&core).expect("a module of the world").encode().expect("a component")
}

/// A module with these imports and items, and with this body for `handle`. Its result lies at 1024, where all is zero:
/// that is ok.
fn module(imports: &str, memory_pages: u32, items: &str, body: &str) -> String {
    format!(
        r#"(module
        {imports}
        (memory $memory (export "memory") {memory_pages})
        {items}
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 65536)
        (func $handle (export "tidemill:plugin/handler@0.1.1#handle")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            {body}
            i32.const 1024))"#
    )
}

fn plugin(imports: &str, memory_pages: u32, items: &str, body: &str) -> Vec<u8> {
    component("hostile", &module(imports, memory_pages, items, body))
}

const EMIT: &str = r#"(import "tidemill:plugin/emit@0.1.1" "emit"
    (func $emit (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;

pub(super) fn loop_in_start() -> Vec<u8> {
    plugin("", 2, "(func $begin (loop (br 0))) (start $begin)", "")
}

pub(super) fn memory_bomb_in_start() -> Vec<u8> {
    plugin("", 2, "(func $begin (loop (drop (memory.grow (i32.const 100))) (br 0))) (start $begin)", "")
}

/// Each of them stays below the bound of one.
pub(super) fn two_memories_that_grow() -> Vec<u8> {
    let body = "(loop (drop (memory.grow $memory (i32.const 16))) (drop (memory.grow $other (i32.const 16))) (br 0))";
    plugin("", 2, "(memory $other 1)", body)
}

pub(super) fn many_memories() -> Vec<u8> {
    plugin("", 2, &"(memory 1)".repeat(90), "")
}

pub fn table_bomb() -> Vec<u8> {
    let body = "(loop (drop (table.grow $table (ref.null func) (i32.const 1000))) (br 0))";
    plugin("", 2, "(table $table 1 funcref)", body)
}

/// Two of half the size.
pub(super) fn two_tables_that_grow() -> Vec<u8> {
    let body = "(drop (table.grow $a (ref.null func) (i32.const 60000))) \
                (drop (table.grow $b (ref.null func) (i32.const 60000)))";
    plugin("", 2, "(table $a 1 funcref) (table $b 1 funcref)", body)
}

/// Frames of many values that are all needed after the call.
pub fn stack_bomb() -> Vec<u8> {
    let locals = "(local i64)".repeat(100);
    let fill: String = (1..100).map(|n| format!("(local.set {n} (i64.mul (local.get 0) (i64.const {n})))")).collect();
    let sum: String = (1..100).map(|n| format!("(i64.xor (local.get {n}))")).collect();
    let next = "(call $dive_deeper (i64.add (local.get 0) (i64.const 1)))";
    let dive = format!("(func $dive_deeper (param i64) (result i64) {locals} {fill} {next} {sum})");
    plugin("", 2, &dive, "(drop (call $dive_deeper (i64.const 1)))")
}

/// A reason of 1 GiB, of which the guest has next to nothing.
pub(super) fn a_gigabyte_for_a_reason() -> Vec<u8> {
    plugin("", 2, "", &rejects(0, 1 << 30))
}

pub(super) fn bad_utf8_for_a_reason() -> Vec<u8> {
    plugin("", 2, r#"(data (i32.const 2048) "\ff\fe")"#, &rejects(2048, 2))
}

/// Writes `err(reject(string))` where the result is looked for.
fn rejects(pointer: u32, length: u32) -> String {
    format!(
        "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1032) (i32.const 1)) \
         (i32.store (i32.const 1040) (i32.const {pointer})) (i32.store (i32.const 1044) (i32.const {length}))"
    )
}

pub(super) fn bad_utf8_in_an_emit() -> Vec<u8> {
    plugin(EMIT, 2, r#"(data (i32.const 2048) "\ff\fe")"#, &emits(2048, 2, 0))
}

pub(super) fn attributes_without_end() -> Vec<u8> {
    plugin(EMIT, 64, "", &emits(2048, 1, 100_000))
}

/// Emits an event with that kind, and with so many attributes without a name and a value.
fn emits(kind: u32, kind_bytes: u32, attributes: u32) -> String {
    format!(
        "(call $emit (i32.const {kind}) (i32.const {kind_bytes}) (i32.const 1) (i32.const 0) (i32.const 0) \
         (i32.const 0) (i32.const 131072) (i32.const {attributes}) (i32.const 0) (i32.const 0) (i32.const 512))"
    )
}

pub(super) fn host_call_storm() -> Vec<u8> {
    let time = r#"(import "tidemill:plugin/delivery@0.1.1" "time" (func $time (param i32)))"#;
    plugin(time, 2, "", "(loop (call $time (i32.const 512)) (br 0))")
}

pub fn hoard_of_handles() -> Vec<u8> {
    let new = r#"(import "[export]hostile:guests/bag" "[resource-new]thing" (func $new (param i32) (result i32)))"#;
    component("hoarder", &module(new, 2, "", "(loop (drop (call $new (i32.const 1))) (br 0))"))
}

/// 16 MiB of data in a memory of 128 MiB.
pub(super) fn huge_data() -> Vec<u8> {
    plugin("", 2048, &format!(r#"(data (i32.const 131072) "{}")"#, "x".repeat(16 << 20)), "")
}

pub(super) fn foreign_import() -> Vec<u8> {
    plugin(r#"(import "hostile:guests/foreign" "open" (func $open))"#, 2, "", "(call $open)")
}

pub(super) fn wrong_world() -> Vec<u8> {
    wat::parse_str("(component)").expect("a good component")
}

pub(super) fn wrong_version() -> Vec<u8> {
    let text = r#"(component (instance $i) (export "tidemill:plugin/handler@0.9.0" (instance $i)))"#;
    wat::parse_str(text).expect("a good component")
}

pub(super) fn core_module() -> Vec<u8> {
    wat::parse_str("(module)").expect("a good module")
}

/// The Rust guest that does as its event says.
/// One function whose every local lives through thousands of branches: a few hundred kilobytes that the compiler needs
/// gigabytes and minutes for.
pub fn compile_bomb() -> Vec<u8> {
    let locals = 500;
    let mut spare = format!("(func (param i32) (local {})", "i32 ".repeat(locals));
    for step in 0..60_000 {
        let (to, from) = (1 + step % locals, 1 + (step * 7 + 3) % locals);
        spare.push_str(&format!(
            "(if (local.get 0) (then (local.set {to} (i32.add (local.get {from}) (local.get {to})))))\n"
        ));
    }
    spare.push(')');
    plugin("", 1, &spare, "")
}

pub(super) fn caller() -> Vec<u8> {
    std::fs::read(crate::guest("caller")).expect("a component")
}

pub(super) fn wasi_user() -> Vec<u8> {
    std::fs::read(crate::guest("wasi-user")).expect("a component")
}

pub(super) fn mischief() -> Vec<u8> {
    std::fs::read(crate::guest("mischief")).expect("a guest can be read")
}
