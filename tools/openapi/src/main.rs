//! Writes the API's description, `functions/gateway/openapi.json`.

fn main() {}
