//! Forms of fields that more than one function reads, checked once when a request is read. Their `OpenAPI` descriptions say the same.

use astra_kernel::Problem;
use serde::{Deserialize, Deserializer};

/// A name or title: 1 to 200 characters, not blank, no control characters. Spaces around it are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String")]
#[schema(
    min_length = 1,
    max_length = 200,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
)]
pub struct Text(String);

const TEXT_RULE: &str = "a text of 1 to 200 characters, not blank and without control characters";

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }

    /// A path's parameter, or a query's.
    ///
    /// # Errors
    /// `422` when it is no such text.
    pub fn of_path(name: &str, value: String) -> Result<Self, Problem> {
        Self::try_from(value).map_err(|rule| Problem::field(name, rule))
    }
}

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let trimmed = text.trim();
        let fits = !trimmed.is_empty() && text.chars().count() <= 200 && !text.chars().any(char::is_control);
        if fits { Ok(Self(trimmed.to_owned())) } else { Err(TEXT_RULE) }
    }
}

/// For optional fields that are absent or have a value: null is refused, so that it cannot be taken for "no limit" by accident.
///
/// # Errors
/// What the value's own reading says.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A model server's base URL: https, or http to this machine where the deployment allows it. No user, no query, no fragment.
///
/// # Errors
/// The rule.
pub fn endpoint(endpoint: &str, allow_http: bool) -> Result<(), &'static str> {
    const RULE: &str = "an endpoint is a URL such as https://models.example.com/v1, without user, query or fragment";
    if endpoint.len() > 2048 || endpoint.contains(['@', '?', '#']) {
        return Err(RULE);
    }
    let uri: http::Uri = endpoint.parse().map_err(|_| RULE)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(RULE)?;
    if uri.authority().is_none_or(|a| a.as_str().len() > host.len() && uri.port_u16().is_none_or(|port| port == 0)) {
        return Err(RULE);
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if allow_http && ["127.0.0.1", "localhost", "[::1]"].contains(&host) => Ok(()),
        Some("http") => {
            Err("an endpoint is reached by https; http is for model servers on this machine, where ALLOW_HTTP_ENDPOINTS=1 is set")
        }
        _ => Err(RULE),
    }
}

/// The path of what belongs to a workspace.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct WorkspacePath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    pub workspace_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_trimmed_and_bounded() {
        let text = |s: &str| Text::try_from(s.to_owned()).map(Text::into_string);
        assert_eq!(text(" ACME Corp ").as_deref(), Ok("ACME Corp"));
        assert!(text(&"ä".repeat(200)).is_ok());
        for bad in ["", " ", "\u{2003}", "a\0b", "a\nb", "\u{85}", &"ä".repeat(201)] {
            assert!(text(bad).is_err(), "{bad:?}");
        }
    }
}
