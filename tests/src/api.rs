//! A caller of the API: an address, a token, and answers that are checked for what every answer must have.

use crate::{environment, jwt, openapi};
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use std::time::Duration;

/// A caller.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Api {
    /// A caller at an address, without a token.
    pub fn at(base: impl Into<String>) -> Self {
        // An answer that never comes fails the test that waits for it, by name.
        let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1));
        let http = builder.build().expect("an HTTP client is made");
        Self { http, base: base.into(), token: None }
    }

    /// A caller of the gateway without a token.
    pub fn anonymous() -> Self {
        Self::at(environment::gateway())
    }

    /// The operator, at the gateway.
    pub fn operator() -> Self {
        Self::anonymous().with_token(jwt::operator())
    }

    /// The same caller with another token.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// The same caller at another address.
    #[must_use]
    pub fn via(&self, base: impl Into<String>) -> Self {
        Self { base: base.into(), ..self.clone() }
    }

    /// A request of any method.
    pub fn request(&self, method: Method, path: &str) -> Request {
        let mut builder = self.http.request(method.clone(), format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            builder = builder.bearer_auth(token);
        }
        Request { builder, method, path: path.to_owned(), documented: true }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.request(Method::GET, path).send().await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Reply {
        self.request(Method::DELETE, path).send().await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.request(Method::POST, path).json(body).send().await
    }

    /// PUT with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.request(Method::PUT, path).json(body).send().await
    }

    /// PATCH with a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.request(Method::PATCH, path).json(body).send().await
    }
}

/// A request in the making.
#[derive(Debug)]
pub struct Request {
    builder: reqwest::RequestBuilder,
    method: Method,
    path: String,
    documented: bool,
}

impl Request {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.builder = self.builder.header(name, value.as_ref());
        self
    }

    /// A JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Any body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        self.builder = self.builder.header("content-type", content_type).body(body);
        self
    }

    /// The path and method are not in the API's description, on purpose.
    #[must_use]
    pub fn undocumented(mut self) -> Self {
        self.documented = false;
        self
    }

    /// Sends it; what comes back is read to its end.
    pub async fn send(self) -> Reply {
        let what = format!("{} {}", self.method, self.path);
        let reply = self.try_send().await.unwrap_or_else(|error| panic!("{what}: no answer: {error:?}"));
        assert!(reply.headers.contains_key("x-request-id"), "{what}: an answer without X-Request-Id: {reply:?}");
        reply
    }

    /// Sends it where the stack may be away: an error is no failure of the test.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn try_send(self) -> Result<Reply, reqwest::Error> {
        let what = format!("{} {}", self.method, self.path);
        let response = self.open().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Reply { what, status, headers, body: response.bytes().await? })
    }

    /// Sends it; the body is left to be read.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn open(self) -> Result<reqwest::Response, reqwest::Error> {
        if self.documented {
            openapi::assert_documented(&self.method, &self.path).await;
        }
        self.builder.send().await
    }
}

/// An answer, read to its end.
pub struct Reply {
    what: String,
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {} {}", self.what, self.status, String::from_utf8_lossy(&self.body[..self.body.len().min(2000)]))
    }
}

impl Reply {
    /// Fails unless it has this status.
    #[must_use]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Its JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{self:?}: not JSON: {error}"))
    }

    /// Its JSON, when it has this status.
    pub fn ok(self, status: u16) -> Value {
        self.expect(status).json()
    }

    /// A header's value, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// Fails unless it is an RFC 9457 problem with this status and code and all that the spec says of problems. Gives the document.
    pub fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_problem(&problem, status, code);
        assert_eq!(problem["requestId"], self.header("x-request-id"), "{self:?}");
        problem
    }
}

/// Fails unless the document is a problem with this status and code.
pub fn assert_problem(problem: &Value, status: u16, code: &str) {
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    for member in ["type", "title", "detail", "instance", "requestId"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {problem}");
    }
}
