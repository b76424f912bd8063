//! A request as the event that a function gets, in API Gateway's payload format 2.0.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::request::Parts;
use serde_json::{Map, Value, json};

/// A request as an event.
pub(crate) fn event(id: &str, parts: &Parts, body: &[u8]) -> String {
    let (body, is_base64) = match std::str::from_utf8(body) {
        Ok("") => (Value::Null, false),
        Ok(text) => (text.into(), false),
        Err(_) => (BASE64_STANDARD.encode(body).into(), true),
    };
    let mut headers = Map::new();
    for name in parts.headers.keys() {
        let all: Vec<_> = parts.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        headers.insert(name.to_string(), all.join(",").into());
    }
    let path = parts.uri.path();
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": parts.uri.query().unwrap_or_default(),
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous", "apiId": "local", "domainName": "localhost", "domainPrefix": "local", "requestId": id, "routeKey": "$default",
            "stage": "$default", "time": "01/Jan/2026:00:00:00 +0000", "timeEpoch": 0,
            "http": { "method": parts.method.as_str(), "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "local" },
        },
        "body": body,
        "isBase64Encoded": is_base64,
    })
    .to_string()
}
