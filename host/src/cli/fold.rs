//! Makes components cheaper to instantiate: two core instances instead of three, and one table instead of two.
//!
//! A function that a plugin imports is lowered with the plugin's memory, so only after the plugin is instantiated, which
//! wants its imports before that. `wit-component` breaks the circle with a module of its own, the shim: a table, and for
//! each import a function that calls through it. Another module, the fixup, fills the table afterwards. Here the shim's
//! functions move into the plugin's module, and their places to the end of its table. Functions are numbered with the
//! imports first, and the shim's take just those numbers: nothing else in the module changes.
//!
//! ```text
//! before: 0 = the shim      1 = list of 0's functions   2 = the plugin (1)   3 = list of lowered functions   4 = the fixup (3)
//! after:  0 = the plugin    1 = list of 0's functions   2 = nothing          3 = list of lowered functions   4 = the fixup (3)
//! ```

use wasm_encoder::{
    Component, ConstExpr, Encode, ExportKind, Function, InstanceSection, Module, ModuleArg, RawSection, RefType,
    TableType,
};
use wasmparser::{
    BinaryReader, BinaryReaderError as Error, ComponentAlias, ComponentAliasSectionReader, ExternalKind, FuncType,
    ImportSectionReader, Instance, InstanceSectionReader, TableInit, TableSectionReader, TypeRef, TypeSectionReader,
};

/// What `wit-component` calls the table of the shim. Its functions are called "0", "1" and so on.
const TABLE: &str = "$imports";
/// Bytes before the first section, of modules and of components.
const HEADER_BYTES: usize = 8;

/// Sections of a component.
mod of_component {
    pub const CORE_MODULE: u8 = 1;
    pub const CORE_INSTANCE: u8 = 2;
    pub const ALIAS: u8 = 6;
    pub const CANON: u8 = 8;
}

/// Sections of a module.
mod of_module {
    pub const TYPE: u8 = 1;
    pub const IMPORT: u8 = 2;
    pub const FUNCTION: u8 = 3;
    pub const TABLE: u8 = 4;
    pub const EXPORT: u8 = 7;
    pub const ELEMENT: u8 = 9;
    pub const CODE: u8 = 10;
}

/// The modules as `wit-component` writes them: the plugin's own, the shim, the fixup.
const MAIN: u32 = 0;
const SHIM: u32 = 1;
/// The instance of the shim.
const SHIMS: u32 = 0;

type Section<'a> = (u8, &'a [u8]);

/// The same component without its shim. None: it has none, or it is made in a way that is not known here.
pub fn fold(wasm: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let sections = sections(wasm)?;
    let modules: Vec<_> = sections.iter().filter(|(id, _)| *id == of_component::CORE_MODULE).map(|s| s.1).collect();
    let &[main, _shim, fixup] = &modules[..] else { return Ok(None) };
    let Some((place, imports)) = wiring(&sections)? else { return Ok(None) };
    let Some(table) = Table::of(main, &imports)? else { return Ok(None) };
    let Some(main) = with_shim(main, &imports, &table)? else { return Ok(None) };
    let Some(fixup) = with_table(fixup, &table)? else { return Ok(None) };
    // The shim's module stays in its place, empty and never instantiated, so that the modules keep their numbers.
    let mut modules = [main, Module::new().finish(), fixup].into_iter();
    let mut out = Component::new();
    let mut instances = 0;
    for (id, body) in sections {
        let data = match id {
            of_component::CORE_MODULE => modules.next().unwrap_or_default(),
            of_component::CORE_INSTANCE => instantiations(body, place, &mut instances)?,
            of_component::ALIAS => match aliases(body, place)? {
                Some(data) => data,
                None => return Ok(None),
            },
            _ => body.to_vec(),
        };
        out.section(&RawSection { id, data: &data });
    }
    Ok(Some(out.finish()))
}

fn sections(wasm: &[u8]) -> Result<Vec<Section<'_>>, Error> {
    let mut reader = BinaryReader::new(wasm, 0);
    reader.read_bytes(HEADER_BYTES)?;
    let mut sections = Vec::new();
    while !reader.eof() {
        let (id, bytes) = (reader.read_u8()?, reader.read_var_u32()?);
        sections.push((id, reader.read_bytes(bytes as usize)?));
    }
    Ok(sections)
}

/// A function that the plugin's module imports, and what the shim calls it.
struct Import<'a> {
    module: &'a str,
    name: &'a str,
    shim: &'a str,
}

/// Which core instance is that of the plugin's own module, and what it imports. None if not all of that is the shim's.
fn wiring<'a>(sections: &[Section<'a>]) -> Result<Option<(u32, Vec<Import<'a>>)>, Error> {
    let mut functions: Vec<&str> = Vec::new();
    // Of each instance so far, if it is a mere list of exports: name, and the shim's name.
    let mut lists: Vec<Vec<(&str, &str)>> = Vec::new();
    for &(id, body) in sections {
        if id == of_component::CANON {
            return Ok(None);
        }
        if id == of_component::ALIAS {
            for alias in ComponentAliasSectionReader::new(BinaryReader::new(body, 0))? {
                match alias? {
                    ComponentAlias::CoreInstanceExport { kind: ExternalKind::Func, instance_index: SHIMS, name } => {
                        functions.push(name);
                    }
                    ComponentAlias::CoreInstanceExport { .. } => return Ok(None),
                    _ => {}
                }
            }
        }
        if id != of_component::CORE_INSTANCE {
            continue;
        }
        for instance in InstanceSectionReader::new(BinaryReader::new(body, 0))? {
            match instance? {
                Instance::Instantiate { module_index: MAIN, args } => {
                    let mut imports = Vec::new();
                    for arg in &args {
                        let list = lists.get(arg.index as usize).into_iter().flatten();
                        imports.extend(list.map(|&(name, shim)| Import { module: arg.name, name, shim }));
                    }
                    return Ok(Some((lists.len() as u32, imports)));
                }
                Instance::Instantiate { .. } => lists.push(Vec::new()),
                Instance::FromExports(exports) => {
                    let shim = |index: u32| functions.get(index as usize).copied();
                    let functions = exports.iter().filter(|export| export.kind == ExternalKind::Func);
                    lists.push(functions.filter_map(|export| Some((export.name, shim(export.index)?))).collect());
                }
            }
        }
    }
    Ok(None)
}

/// The section of core instances: where the shim was instantiated the plugin is, and later nothing.
fn instantiations(body: &[u8], place: u32, count: &mut u32) -> Result<Vec<u8>, Error> {
    let mut out = InstanceSection::new();
    for instance in InstanceSectionReader::new(BinaryReader::new(body, 0))? {
        match instance? {
            Instance::Instantiate { .. } if *count == place => {
                out.export_items([] as [(&str, ExportKind, u32); 0]);
            }
            Instance::Instantiate { module_index, args } => {
                let module = if module_index == SHIM { MAIN } else { module_index };
                out.instantiate(module, args.iter().map(|arg| (arg.name, ModuleArg::Instance(arg.index))));
            }
            Instance::FromExports(exports) => {
                out.export_items(exports.iter().map(|export| (export.name, kind(export.kind), export.index)));
            }
        }
        *count += 1;
    }
    let mut data = Vec::new();
    out.encode(&mut data);
    // `encode` writes the length first.
    let mut reader = BinaryReader::new(&data, 0);
    let bytes = reader.read_var_u32()?;
    Ok(reader.read_bytes(bytes as usize)?.to_vec())
}

fn kind(kind: ExternalKind) -> ExportKind {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
        ExternalKind::Table => ExportKind::Table,
        ExternalKind::Memory => ExportKind::Memory,
        ExternalKind::Global => ExportKind::Global,
        ExternalKind::Tag => ExportKind::Tag,
    }
}

/// The section of aliases: what was the plugin's instance has become the shim's.
fn aliases(body: &[u8], place: u32) -> Result<Option<Vec<u8>>, Error> {
    let mut data = body.to_vec();
    for item in ComponentAliasSectionReader::new(BinaryReader::new(body, 0))?.into_iter_with_offsets() {
        let (at, alias) = item?;
        if let ComponentAlias::CoreInstanceExport { instance_index, .. } = alias
            && instance_index == place
        {
            // The sort, two bytes; what is aliased, one byte; the instance, one byte up to 127.
            let Some(index) = data.get_mut(at + 3).filter(|byte| u32::from(**byte) == place && place < 128) else {
                return Ok(None);
            };
            *index = SHIMS as u8;
        }
    }
    Ok(Some(data))
}

/// The plugin's table, with room for the shim's functions at its end.
struct Table {
    /// The first of the new places.
    begin: u32,
    count: u32,
    /// As sections write it.
    ty: Vec<u8>,
}

impl Table {
    fn of(main: &[u8], imports: &[Import<'_>]) -> Result<Option<Self>, Error> {
        let sections = sections(main)?;
        let Some((_, body)) = sections.iter().find(|(id, _)| *id == of_module::TABLE) else { return Ok(None) };
        let mut tables = TableSectionReader::new(BinaryReader::new(body, 0))?.into_iter();
        let (Some(table), None) = (tables.next().transpose()?, tables.next()) else { return Ok(None) };
        let (ty, count) = (table.ty, imports.len() as u32);
        let Ok(begin) = u32::try_from(ty.initial) else { return Ok(None) };
        let plain = ty.element_type.is_func_ref() && !ty.table64 && !ty.shared;
        if !plain || !matches!(table.init, TableInit::RefNull) {
            return Ok(None);
        }
        let more = |elements: u64| elements.saturating_add(u64::from(count));
        Ok(Some(Self { begin, count, ty: table_type(more(ty.initial), ty.maximum.map(more)) }))
    }
}

fn table_type(minimum: u64, maximum: Option<u64>) -> Vec<u8> {
    let mut data = Vec::new();
    TableType { element_type: RefType::FUNCREF, table64: false, minimum, maximum, shared: false }.encode(&mut data);
    data
}

/// The fixup, for the plugin's table instead of the shim's.
fn with_table(fixup: &[u8], table: &Table) -> Result<Option<Vec<u8>>, Error> {
    let shims = table_type(u64::from(table.count), Some(u64::from(table.count)));
    // One segment, of functions, into the first table.
    let segment = |begin: u32| {
        let mut data = vec![1, 0];
        ConstExpr::i32_const(begin.cast_signed()).encode(&mut data);
        data
    };
    let (was, is) = (segment(0), segment(table.begin));
    let mut out = Module::new();
    for (id, body) in sections(fixup)? {
        // The table is the last import.
        let data = match id {
            of_module::IMPORT => body.strip_suffix(&shims[..]).map(|rest| [rest, &table.ty].concat()),
            of_module::ELEMENT => body.strip_prefix(&was[..]).map(|rest| [&is[..], rest].concat()),
            _ => Some(body.to_vec()),
        };
        let Some(data) = data else { return Ok(None) };
        out.section(&RawSection { id, data: &data });
    }
    Ok(Some(out.finish()))
}

/// The plugin's module with the shim in it. None if it imports anything that the shim does not have.
fn with_shim(main: &[u8], shims: &[Import<'_>], table: &Table) -> Result<Option<Vec<u8>>, Error> {
    let sections = sections(main)?;
    let body = |id: u8| sections.iter().find(|section| section.0 == id).map(|section| section.1);
    let (Some(types), Some(imports)) = (body(of_module::TYPE), body(of_module::IMPORT)) else { return Ok(None) };
    let types: Vec<FuncType> =
        TypeSectionReader::new(BinaryReader::new(types, 0))?.into_iter_err_on_gc_types().collect::<Result<_, _>>()?;
    let (mut declared, mut code, mut exports) = (Vec::new(), Vec::new(), Vec::new());
    let mut slots = Vec::new();
    for (at, import) in (0u32..).zip(ImportSectionReader::new(BinaryReader::new(imports, 0))?.into_imports()) {
        let import = import?;
        let found = shims.iter().find(|shim| (shim.module, shim.name) == (import.module, import.name));
        let (TypeRef::Func(index), Some(found)) = (import.ty, found) else { return Ok(None) };
        let (Some(ty), Ok(slot)) = (types.get(index as usize), found.shim.parse::<u32>()) else { return Ok(None) };
        index.encode(&mut declared);
        let mut function = Function::new([]);
        let mut instructions = function.instructions();
        for param in 0..ty.params().len() as u32 {
            instructions.local_get(param);
        }
        instructions.i32_const((table.begin + slot).cast_signed()).call_indirect(0, index).end();
        function.encode(&mut code);
        exports.push((found.shim, ExportKind::Func, at));
        slots.push(slot);
    }
    slots.sort_unstable();
    if !slots.into_iter().eq(0..table.count) {
        return Ok(None);
    }
    exports.push((TABLE, ExportKind::Table, 0));
    let mut exported = Vec::new();
    for (name, kind, index) in &exports {
        name.encode(&mut exported);
        kind.encode(&mut exported);
        index.encode(&mut exported);
    }
    let mut out = Module::new();
    for (id, body) in sections {
        let data = match id {
            of_module::IMPORT => continue,
            of_module::FUNCTION => joined(table.count, &declared, body, true)?,
            of_module::TABLE => [&[1], &table.ty[..]].concat(),
            of_module::EXPORT => joined(exports.len() as u32, &exported, body, false)?,
            of_module::CODE => joined(table.count, &code, body, true)?,
            _ => body.to_vec(),
        };
        out.section(&RawSection { id, data: &data });
    }
    Ok(Some(out.finish()))
}

/// A section, which is a count and so many items, with more items before or after its own.
fn joined(count: u32, items: &[u8], body: &[u8], before: bool) -> Result<Vec<u8>, Error> {
    let mut reader = BinaryReader::new(body, 0);
    let own = reader.read_var_u32()?;
    let rest = &body[reader.original_position()..];
    let mut data = Vec::new();
    (own + count).encode(&mut data);
    let (first, last) = if before { (items, rest) } else { (rest, items) };
    data.extend_from_slice(first);
    data.extend_from_slice(last);
    Ok(data)
}
