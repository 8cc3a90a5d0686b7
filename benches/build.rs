//! WorkerContext on the profile that the benches are built in: figures of two profiles are not to be compared.

fn main() {
    for name in ["PROFILE", "OPT_LEVEL"] {
        println!("cargo::rustc-env={name}={}", std::env::var(name).unwrap_or_default());
    }
    println!("cargo::rerun-if-changed=build.rs");
}
