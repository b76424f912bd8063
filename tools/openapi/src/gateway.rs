//! The gateway's own two routes.

use serde_json::{Value, json};

/// Their description.
pub(crate) fn document() -> Value {
    let health = |description: &str| json!({ "description": description, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Health" } } } });
    json!({
        "paths": {
            "/openapi.json": { "get": {
                "operationId": "describe", "tags": ["gateway"], "summary": "This document.", "security": [],
                "responses": { "200": { "description": "OpenAPI 3.1", "content": { "application/json": { "schema": { "type": "object" } } } } },
            } },
            "/healthz": { "get": {
                "operationId": "checkHealth", "tags": ["gateway"], "summary": "Which parts are reachable.", "security": [],
                "responses": { "200": health("All parts are"), "503": health("Some part is not") },
            } },
        },
        "components": { "schemas": { "Health": {
            "type": "object",
            "required": ["status", "parts"],
            "properties": {
                "status": { "type": "string", "enum": ["ok", "degraded"] },
                "parts": {
                    "type": "object",
                    "description": "By function: what it can reach, or that it cannot be reached itself.",
                    "additionalProperties": { "oneOf": [
                        { "type": "object", "additionalProperties": { "type": "string", "enum": ["ok", "unreachable", "incomplete"] } },
                        { "type": "string", "enum": ["unreachable", "failing"] },
                    ] },
                },
            },
        } } },
    })
}
