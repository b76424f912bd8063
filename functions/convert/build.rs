//! How much memory the Worker's wasm may have: what Workers give an isolate is 128 MB, of which JavaScript has the file once more. Where there is no more, reading ends and not the isolate.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        println!("cargo:rustc-link-arg-cdylib=--max-memory={}", 96 << 20);
    }
}
