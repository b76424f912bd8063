//! What holds for every operation by the way it is served, written once: the bearer token, and the problems that can come back.
//!
//! A handler documents what is its own (a 409, say, without a body); which of the common problems it can answer follows from what it takes:
//!
//! - a token: 401, 403, and 503, because checking and answering need configuration, database or counter;
//! - a workspace in the path: 404; any parameter in the path: 400, where it is not UTF-8;
//! - a query or a name of the caller's choosing in the path: 422;
//! - a body: 400, 413, 415, 422.

use astra_kernel::Code;
use serde_json::{Map, Value, json};

/// Operations that run a turn: a limit can refuse it, and the model's provider can fail it.
const TURNS: [&str; 2] = ["createTurn", "smokeTest"];

/// Completes a document.
pub(crate) fn complete(document: &mut Value) {
    document["security"] = json!([{ "bearer": [] }]);
    document["components"]["securitySchemes"] = json!({ "bearer": {
        "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "POST /workspaces/{workspaceId}/tokens issues them.",
    } });
    document["components"]["schemas"]["Problem"] = problem();
    document["components"]["responses"] =
        STATUSES.iter().map(|(status, name)| ((*name).to_owned(), response(*status))).collect::<Map<_, _>>().into();
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for (path, item) in paths {
        for (_, operation) in item.as_object_mut().into_iter().flatten() {
            if operation["security"] != json!([]) && operation["security"] != json!([{}]) {
                complete_operation(path, operation);
            }
        }
    }
}

fn complete_operation(path: &str, operation: &mut Value) {
    let takes = |place: &str| operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == place).count();
    let (in_path, in_query, in_header) = (takes("path"), takes("query"), takes("header"));
    let mut statuses = vec![401, 403, 503];
    if path.contains("{workspaceId}") {
        statuses.push(404);
    }
    if in_path > 0 {
        statuses.push(400);
    }
    if in_path > usize::from(path.contains("{workspaceId}")) || in_query + in_header > 0 {
        statuses.push(422);
    }
    if operation["requestBody"].is_object() {
        statuses.extend([400, 413, 415, 422]);
    }
    if TURNS.iter().any(|id| operation["operationId"] == *id) {
        statuses.extend([409, 429, 502, 504]);
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, described) in responses.iter_mut() {
        if status.as_str() >= "400" && described["content"].is_null() {
            described["content"] = problem_content();
        }
    }
    for status in statuses {
        let name = STATUSES.iter().find(|(known, _)| *known == status).map_or("", |(_, name)| name);
        responses.entry(status.to_string()).or_insert_with(|| json!({ "$ref": format!("#/components/responses/{name}") }));
    }
}

/// The problems that are described here, by status.
const STATUSES: [(u16, &str); 12] = [
    (400, "BadRequest"),
    (401, "Unauthorized"),
    (403, "Forbidden"),
    (404, "NotFound"),
    (409, "Conflict"),
    (413, "PayloadTooLarge"),
    (415, "UnsupportedMediaType"),
    (422, "Unprocessable"),
    (429, "QuotaExceeded"),
    (502, "UpstreamError"),
    (503, "Unavailable"),
    (504, "UpstreamTimeout"),
];

fn problem_content() -> Value {
    json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } })
}

fn response(status: u16) -> Value {
    let titles: Vec<_> = Code::ALL.into_iter().filter(|code| code.status() == status).map(Code::title).collect();
    let mut response = json!({ "description": titles.join(" · "), "content": problem_content() });
    match status {
        429 | 503 => {
            response["headers"] = json!({ "Retry-After": { "description": "Seconds after which trying again may help", "schema": { "type": "integer", "minimum": 1 } } });
        }
        401 => response["headers"] = json!({ "WWW-Authenticate": { "schema": { "type": "string" } } }),
        _ => {}
    }
    response
}

/// The shape of `astra_kernel::Problem`'s document.
fn problem() -> Value {
    let codes: Vec<_> = Code::ALL.into_iter().map(Code::as_str).collect();
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "code", "detail", "instance", "requestId"],
        "properties": {
            "type": { "type": "string", "format": "uri", "description": "`urn:astra-edge:problem:` and the code." },
            "title": { "type": "string", "description": "The same for every problem of this code." },
            "status": { "type": "integer", "description": "The HTTP status.", "minimum": 400, "maximum": 599 },
            "code": { "type": "string", "enum": codes, "description": "What happened, as a stable word." },
            "detail": { "type": "string", "description": "This occurrence: what, where, what to do." },
            "instance": { "type": "string", "description": "The path that was asked." },
            "requestId": { "type": "string", "description": "The request's id, as in X-Request-Id." },
            "errors": {
                "type": "array",
                "description": "The fields at fault.",
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {
                        "pointer": { "type": "string", "description": "A JSON pointer (RFC 6901) into the body, or a parameter's name." },
                        "detail": { "type": "string", "description": "What does not fit and what would." },
                    },
                },
            },
            "limit": { "type": "string", "description": "For `quota_exceeded`: the limit's name." },
            "used": { "type": "integer", "format": "int64", "description": "For `quota_exceeded`: how much of it is used, in its unit." },
            "resetsAt": { "type": "string", "format": "date-time", "description": "For `quota_exceeded`: when it starts anew." },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use astra_kernel::{Problem, Timestamp};
    use std::collections::BTreeSet;

    #[test]
    fn the_problems_shape_is_the_codes() {
        let mut full = Problem::field("/x", "y");
        full.limit = Some("maxAgents".into());
        full.used = Some(1);
        full.resets_at = Some(Timestamp(0));
        let written = serde_json::to_value(full.document("/", "r")).expect("it serialises");
        let names = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&written), names(&problem()["properties"]));
        let bare = serde_json::to_value(Problem::new(Code::NotFound, "x").document("/", "r")).expect("it serialises");
        let required = problem()["required"].as_array().expect("a list").iter().map(|n| n.as_str().expect("a name").to_owned()).collect();
        assert_eq!(names(&bare), required);
    }

    #[test]
    fn every_status_of_a_code_that_is_answered_has_a_response() {
        for code in Code::ALL {
            // 405 belongs to methods that are not described; 500 is a fault, not an answer.
            let described = STATUSES.iter().any(|(status, _)| *status == code.status());
            assert!(described || [405, 500].contains(&code.status()), "{code:?}");
        }
    }

    #[test]
    fn operations_get_the_problems_that_follow_from_what_they_take() {
        let mut document = json!({ "components": { "schemas": {} }, "paths": {
            "/workspaces/{workspaceId}/x": { "get": { "parameters": [{ "in": "path" }], "responses": { "200": {} } } },
            "/y": { "post": { "requestBody": {}, "responses": { "201": {}, "409": { "description": "mine" } } } },
            "/open": { "get": { "security": [], "responses": { "200": {} } } },
        } });
        complete(&mut document);
        let statuses = |path: &str, method: &str| {
            document["paths"][path][method]["responses"].as_object().expect("responses").keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(statuses("/workspaces/{workspaceId}/x", "get"), "200 400 401 403 404 503");
        assert_eq!(statuses("/y", "post"), "201 400 401 403 409 413 415 422 503");
        assert_eq!(statuses("/open", "get"), "200");
        let own = &document["paths"]["/y"]["post"]["responses"]["409"];
        assert_eq!((&own["description"], own["content"].is_object()), (&json!("mine"), true));
    }
}
