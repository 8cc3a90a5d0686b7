//! Bindings for `wit/0.1.1`, generated. They serve every 0.1: wasmtime takes an import of `@0.1.0` for one of `@0.1.1`,
//! as long as a version only adds.

wasmtime::component::bindgen!({
    path: "../../wit/0.1.1",
    world: "handler-plugin",
    // The event is lent to the guest: no copy on the host's side.
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
});

/// The optional role `lifecycle`.
pub(crate) mod lifecycle {
    wasmtime::component::bindgen!({ path: "../../wit/0.1.1", world: "lifecycle-plugin" });
}
