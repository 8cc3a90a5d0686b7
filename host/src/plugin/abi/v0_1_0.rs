//! Bindings for `wit/0.1.0`, generated. Frozen with that folder.

wasmtime::component::bindgen!({
    path: "../wit/0.1.0",
    world: "handler-plugin",
    // The event is lent to the guest: no copy on the host's side.
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
});
