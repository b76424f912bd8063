//! Writes the API's description, `functions/gateway/openapi.json`, from what the functions say of themselves. A test fails when the file in the
//! repository is not what this program writes.

mod complete;
mod gateway;
mod merge;

use serde_json::{Value, json};
use std::path::Path;

fn main() -> std::io::Result<()> {
    std::fs::write(file(), text())
}

/// Where the gateway takes it from.
fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../functions/gateway/openapi.json")
}

/// The document as it is stored: sorted and indented, so that a change of the API is a readable change of the file.
fn text() -> String {
    let mut text = serde_json::to_string_pretty(&merge::sorted(document())).unwrap_or_default();
    text.push('\n');
    text
}

/// The whole API.
fn document() -> Value {
    let functions = [provision::document(), invoke_turn::routes::document(), billing::document(), grants::document(), memory::document()];
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "astra-edge",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Isolated teams of AI agents for each customer, with hard budgets. Every response has X-Request-Id, the caller's if sent. Lists page by \
                            cursor. Unknown fields and query parameters are refused by name. Errors are RFC 9457 problems with a stable `code`.",
        },
        "servers": [{ "url": "/" }],
        "paths": {},
        "components": {},
    });
    for function in functions {
        merge::add(&mut document, &serde_json::to_value(function).unwrap_or_default());
    }
    merge::add(&mut document, &gateway::document());
    complete::complete(&mut document);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_the_code_says() {
        let stored = std::fs::read_to_string(file()).unwrap_or_default();
        assert!(stored == text(), "functions/gateway/openapi.json is stale: cargo run -p openapi");
    }
}
