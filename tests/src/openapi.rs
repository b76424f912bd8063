//! The API's own description, as the stack serves it at `/openapi.json`.
//!
//! Every request of the suites is looked up in it: a route that works but is not described fails the test that uses it.

use crate::environment;
use http::Method;
use serde_json::Value;
use tokio::sync::OnceCell;

static DOCUMENT: OnceCell<Value> = OnceCell::const_new();

/// One operation of the API.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The method.
    pub method: Method,
    /// The path with its parameters in braces.
    pub path: String,
    /// Its description.
    pub description: Value,
}

/// The document, read once per test.
pub async fn document() -> &'static Value {
    DOCUMENT
        .get_or_init(|| async {
            let url = format!("{}/openapi.json", environment::gateway());
            let response = reqwest::get(&url).await.unwrap_or_else(|error| panic!("{url}: {error:?}. Is the stack up?"));
            assert_eq!(response.status(), 200, "{url}");
            let bytes = response.bytes().await.expect("openapi.json is read");
            serde_json::from_slice(&bytes).expect("openapi.json is JSON")
        })
        .await
}

/// Every operation of the document.
pub async fn operations() -> Vec<Operation> {
    let paths = document().await["paths"].as_object().expect("openapi.json has paths");
    let mut operations = Vec::new();
    for (path, item) in paths {
        for (method, description) in item.as_object().expect("a path is an object") {
            if let Ok(method @ (Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE)) = method.to_uppercase().parse()
            {
                operations.push(Operation { method, path: path.clone(), description: description.clone() });
            }
        }
    }
    operations
}

/// Whether a path as sent fits a described path.
pub fn fits(described: &str, sent: &str) -> bool {
    let sent = sent.split('?').next().unwrap_or_default();
    let (mut described, mut sent) = (described.split('/'), sent.split('/'));
    loop {
        match (described.next(), sent.next()) {
            (None, None) => return true,
            (Some(d), Some(s)) if d == s || (d.starts_with('{') && d.ends_with('}') && !s.is_empty()) => {}
            _ => return false,
        }
    }
}

/// Fails when the document has no such operation.
pub async fn assert_documented(method: &Method, path: &str) {
    let known = operations().await.iter().any(|operation| operation.method == *method && fits(&operation.path, path));
    assert!(known, "{method} {path} is used by the suite and not described in /openapi.json");
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn paths_fit_by_segment() {
        assert!(fits("/workspaces/{id}", "/workspaces/a?x=/y"));
        assert!(!fits("/workspaces/{id}", "/workspaces/"));
        assert!(!fits("/workspaces/{id}", "/workspaces/a/b"));
        assert!(!fits("/workspaces/{id}/turns", "/workspaces/a/sessions"));
    }
}
