//! Writes the API's description, `functions/gateway/openapi.json`.

fn main() {
    for d in [provision::document(), billing::document()] {
        println!("{}", serde_json::to_string_pretty(&d).unwrap());
    }
}
