//! How much memory the wasm of a quick build may have, `MEMORY_WASM_MIB` as scripts/build sets it: so that the tests see it when a document is held as a whole. What is deployed has no such
//! bound: a task that ends there leaves its memory behind, and only Workers' own limit makes them throw such an isolate away.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MEMORY_WASM_MIB");
    let bound = std::env::var("MEMORY_WASM_MIB").ok().and_then(|mib| mib.parse::<u32>().ok());
    if let (Some(mib), Ok("wasm32")) = (bound, std::env::var("CARGO_CFG_TARGET_ARCH").as_deref()) {
        println!("cargo:rustc-link-arg-cdylib=--max-memory={}", mib << 20);
    }
}
