//! Errors as callers see them: RFC 9457 problems with a stable `code`.
//!
//! One closed list of codes; each has one status and one title. A problem says what, where and what to do; it never
//! carries another tenant's data, a secret, a provider's header or a database's words.

use crate::Timestamp;
use serde::{Serialize, Serializer};

/// What happened, as a stable word that clients may switch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The body is no JSON, or a parameter has the wrong form.
    BadRequest,
    /// No token, or one that does not verify.
    Unauthorized,
    /// The token is good, but this is not allowed.
    Forbidden,
    /// Nothing here under this name.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// It exists already, and is different.
    Conflict,
    /// The body is larger than allowed.
    PayloadTooLarge,
    /// The body is not of a type that this route reads.
    UnsupportedMediaType,
    /// A field is unknown, missing or does not fit its rule.
    Unprocessable,
    /// The idempotency key was used with another body.
    IdempotencyKeyReused,
    /// A budget or rate limit is reached.
    QuotaExceeded,
    /// The model has no price, so it cannot be used.
    ModelUnpriced,
    /// No key for the model's provider.
    ModelUnavailable,
    /// The prompt's template names something that does not exist.
    TemplateError,
    /// The model's provider answered with an error or not at all.
    UpstreamError,
    /// The turn's deadline passed.
    UpstreamTimeout,
    /// A part that is needed is away: database or counter. Nothing was done.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// The title: the same for every problem of this code.
    pub fn title(self) -> &'static str {
        self.row().2
    }

    /// Every code, for the documentation and its test.
    pub const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::Unprocessable,
        Self::IdempotencyKeyReused,
        Self::QuotaExceeded,
        Self::ModelUnpriced,
        Self::ModelUnavailable,
        Self::TemplateError,
        Self::UpstreamError,
        Self::UpstreamTimeout,
        Self::Unavailable,
        Self::Internal,
    ];

    fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::BadRequest => ("bad_request", 400, "Bad request"),
            Self::Unauthorized => ("unauthorized", 401, "Unauthorized"),
            Self::Forbidden => ("forbidden", 403, "Forbidden"),
            Self::NotFound => ("not_found", 404, "Not found"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "Method not allowed"),
            Self::Conflict => ("conflict", 409, "Conflict"),
            Self::PayloadTooLarge => ("payload_too_large", 413, "Body too large"),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415, "Unsupported media type"),
            Self::Unprocessable => ("unprocessable", 422, "Body does not fit"),
            Self::IdempotencyKeyReused => ("idempotency_key_reused", 422, "Idempotency key used with another body"),
            Self::QuotaExceeded => ("quota_exceeded", 429, "Quota exceeded"),
            Self::ModelUnpriced => ("model_unpriced", 422, "Model has no price"),
            Self::ModelUnavailable => ("model_unavailable", 422, "No key for the model's provider"),
            Self::TemplateError => ("template_error", 422, "Template does not render"),
            Self::UpstreamError => ("upstream_error", 502, "The model's provider failed"),
            Self::UpstreamTimeout => ("upstream_timeout", 504, "The turn's deadline passed"),
            Self::Unavailable => ("unavailable", 503, "A needed part is away"),
            Self::Internal => ("internal", 500, "Internal error"),
        }
    }
}

/// One field that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) into the body, or the parameter's name.
    pub pointer: String,
    /// What does not fit and what would.
    pub detail: String,
}

/// A problem on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What happened.
    pub code: Code,
    /// This occurrence: what, where, what to do.
    pub detail: String,
    /// The fields at fault, if any.
    pub errors: Vec<FieldError>,
    /// For `quota_exceeded`: the limit's name.
    pub limit: Option<String>,
    /// For `quota_exceeded`: how much of it is used, in the limit's unit (nano-dollars, tokens or turns).
    pub used: Option<i64>,
    /// For `quota_exceeded`: when the limit starts anew.
    pub resets_at: Option<Timestamp>,
    /// Seconds after which trying again may help: the Retry-After header.
    pub retry_after: Option<i64>,
}

impl Problem {
    /// A problem without further members.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), limit: None, used: None, resets_at: None, retry_after: None }
    }

    /// Names a field at fault.
    #[must_use]
    pub fn with_field(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Says when trying again may help.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: i64) -> Self {
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// `422 unprocessable` about one field.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        Self::new(Code::Unprocessable, format!("{pointer}: {detail}")).with_field(pointer, detail)
    }

    /// `403 forbidden` for a missing permission.
    pub fn forbidden(permission: &str) -> Self {
        Self::new(Code::Forbidden, format!("This needs the permission {permission} in this workspace."))
    }

    /// `403 forbidden` for who is no member, or none any more; the same whether the workspace exists or not.
    pub fn no_member() -> Self {
        Self::new(Code::Forbidden, "You are not a member of this workspace.")
    }

    /// `401 unauthorized` for a token that was revoked.
    pub fn token_revoked() -> Self {
        Self::new(Code::Unauthorized, "The token was revoked. Get a new one.")
    }

    /// `404 not_found`.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("No such {what}."))
    }

    /// The RFC 9457 document.
    pub fn document<'a>(&'a self, instance: &'a str, request_id: &'a str) -> Document<'a> {
        Document { problem: self, instance, request_id }
    }
}

/// A problem with the request that it answers: what is serialised as `application/problem+json`.
#[derive(Debug)]
pub struct Document<'a> {
    problem: &'a Problem,
    instance: &'a str,
    request_id: &'a str,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
            instance: &'a str,
            request_id: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            used: Option<i64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            resets_at: Option<Timestamp>,
        }
        // `retry_after` is a header.
        let Problem { code, detail, errors, limit, used, resets_at, retry_after: _ } = self.problem;
        Body {
            r#type: format!("urn:astra-edge:problem:{}", code.as_str()),
            title: code.title(),
            status: code.status(),
            code: code.as_str(),
            detail,
            instance: self.instance,
            request_id: self.request_id,
            errors,
            limit: limit.as_deref(),
            used: *used,
            resets_at: *resets_at,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct() {
        let mut words: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
    }

    #[test]
    fn a_problem_on_the_wire() {
        let mut problem = Problem::field("/limits/maxAgents", "a whole number of at least 1");
        problem.limit = Some("maxAgents".to_owned());
        problem.used = Some(10);
        problem.resets_at = Some(Timestamp(0));
        insta::assert_json_snapshot!(problem.document("/workspaces", "r-1"), @r#"
        {
          "type": "urn:astra-edge:problem:unprocessable",
          "title": "Body does not fit",
          "status": 422,
          "code": "unprocessable",
          "detail": "/limits/maxAgents: a whole number of at least 1",
          "instance": "/workspaces",
          "requestId": "r-1",
          "errors": [
            {
              "pointer": "/limits/maxAgents",
              "detail": "a whole number of at least 1"
            }
          ],
          "limit": "maxAgents",
          "used": 10,
          "resetsAt": "1970-01-01T00:00:00.000Z"
        }
        "#);
    }
}
