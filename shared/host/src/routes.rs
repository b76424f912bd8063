//! A function's routes, named once, and what handlers take from a request before it is known who sends it.
//!
//! [`routes!`](crate::routes!) makes the router, the list that tests compare with the documentation, and the documentation from one table:
//!
//! ```ignore
//! astra_host::routes! {
//!     GET "/workspaces" => workspaces::list,
//!     POST "/workspaces" => workspaces::create,
//!     GET "/workspaces/{workspaceId}" => workspaces::read,
//! }
//! ```
//!
//! Handlers that need more of their host than [`Host`](crate::Host) say so first: `host = astra_host::stream::TurnHost;`.
//!
//! A handler is one `async fn name<H: Host>(call: Call<H>, …) -> Result<impl IntoResponse, Failure>` under `#[utoipa::path(…)]`. It reads top to
//! bottom: who is it, may they, what did they send, load, decide, store, answer. So that the first two come first, the body and the query
//! are taken as [`Unread`].

use crate::web::{BodyParts, Failure, StrictJson, read_body};
use astra_kernel::{Code, Problem};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::request::Parts;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use serde::{Deserialize, Deserializer};

#[doc(hidden)]
pub use axum;

/// Makes `router`, `ROUTES` and `document` from a function's routes; see the module [`routes`](mod@crate::routes).
///
/// - `pub const ROUTES: &[(&str, &str)]`: method and pattern of each.
/// - `pub fn router<H: Host>() -> Router`, finished by [`crate::web::finish`].
/// - `pub fn document() -> utoipa::openapi::OpenApi`: the handlers' own descriptions. Not in wasm, where nobody asks for it.
#[macro_export]
macro_rules! routes {
    ($($method:ident $pattern:literal => $($handler:ident)::+),+ $(,)?) => {
        $crate::routes! { host = $crate::Host; $($method $pattern => $($handler)::+),+ }
    };
    (host = $host:path; $($method:ident $pattern:literal => $($handler:ident)::+),+ $(,)?) => {
        /// Method and pattern of every route.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $pattern)),+];

        /// The function's router.
        pub fn router<H: $host>() -> $crate::routes::axum::Router {
            let router = $crate::routes::axum::Router::new();
            $(let router = router.route(
                $pattern,
                $crate::routes::axum::routing::on($crate::routes::axum::routing::MethodFilter::$method, $($handler)::+::<H>),
            );)+
            $crate::web::finish::<H>(router)
        }

        /// What the handlers say of themselves.
        #[cfg(not(target_arch = "wasm32"))]
        pub fn document() -> utoipa::openapi::OpenApi {
            #[derive(utoipa::OpenApi)]
            #[openapi(paths($($($handler)::+),+))]
            struct Document;
            <Document as utoipa::OpenApi>::openapi()
        }
    };
}

/// The path's parameters, percent-decoded: one as `Params<String>`, several as `Params<(String, String)>`.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(params)) => Ok(Self(params)),
            Err(refusal) if refusal.status().is_server_error() => Err(Failure::internal("the path's parameters do not fit the handler")),
            Err(_) => Err(Problem::new(Code::BadRequest, "The path is not UTF-8 when percent-decoded.").into()),
        }
    }
}

/// For a field that is one word of a few: reads it from a string only. (serde also takes `{"word": null}` for a variant without fields.)
///
/// # Errors
/// When it is no string, or none of the words.
pub fn word<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

/// A request whose query and body nobody has looked at.
#[derive(Debug)]
pub struct Unread(Request);

impl<S: Sync> FromRequest<S> for Unread {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        Ok(Self(request))
    }
}

impl Unread {
    /// A header's value, empty when it is not there or no text.
    pub fn header(&self, name: &http::HeaderName) -> &str {
        self.0.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `Idempotency-Key`, if it was sent.
    ///
    /// # Errors
    /// `422` when it has another form.
    pub fn idempotency_key(&self) -> Result<Option<String>, Problem> {
        static IDEMPOTENCY_KEY: http::HeaderName = http::HeaderName::from_static("idempotency-key");
        let key = self.header(&IDEMPOTENCY_KEY);
        match key.len() {
            0 => Ok(None),
            1..=255 if key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') => Ok(Some(key.to_owned())),
            _ => Err(Problem::field("Idempotency-Key", "1 to 255 visible ASCII characters")),
        }
    }

    /// The query, strictly: types say `deny_unknown_fields`.
    ///
    /// # Errors
    /// `422` naming the parameter.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let refused = |error: axum::extract::rejection::QueryRejection| {
            let text = error.body_text();
            let said = text.split_once("query string: ").map_or(text.as_str(), |(_, said)| said);
            // "limit: invalid digit found in string", or without a name where it is not one parameter's fault.
            match said.split_once(": ") {
                Some((name, detail)) => Problem::field(name, detail),
                None => Problem::new(Code::Unprocessable, format!("The query does not fit: {said}.")),
            }
        };
        Query::try_from_uri(self.0.uri()).map(|Query(query)| query).map_err(|error| refused(error).into())
    }

    /// The JSON body, strictly ([`StrictJson`]).
    ///
    /// # Errors
    /// `400`, `413`, `415` or `422`.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        StrictJson::from_request(self.0, &()).await.map(|StrictJson(body)| body)
    }

    /// Which of these media types the body has.
    ///
    /// # Errors
    /// `415` when it is none of them.
    pub fn media_type(&self, media_types: &[&'static str]) -> Result<&'static str, Failure> {
        let sent = self.header(&http::header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        let known = media_types.iter().copied().find(|known| known.eq_ignore_ascii_case(sent));
        known.ok_or_else(|| Problem::new(Code::UnsupportedMediaType, format!("This route reads {}.", media_types.join(", "))).into())
    }

    /// The body's bytes, where it has one of these media types.
    ///
    /// # Errors
    /// `400`, `413` or `415`.
    pub async fn bytes(self, media_types: &[&'static str], limit: usize) -> Result<bytes::Bytes, Failure> {
        self.media_type(media_types)?;
        read_body(self.0, limit).await
    }

    /// The body as it comes, up to a limit in bytes.
    pub fn parts(self, limit: usize) -> BodyParts {
        BodyParts::new(self.0, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        limit: Option<u32>,
    }

    #[test]
    fn a_query_is_read_strictly_and_named() {
        let query = |query: &str| {
            let request = Request::builder().uri(format!("/x?{query}")).body(axum::body::Body::empty()).unwrap();
            Unread(request).query::<Page>().map_err(|failure| failure.problem().detail.clone())
        };
        assert_eq!(query("limit=2"), Ok(Page { limit: Some(2) }));
        for (sent, named) in [("limit=x", "limit"), ("limit=", "limit"), ("limit=1&limit=2", "limit"), ("color=red", "color")] {
            assert!(query(sent).unwrap_err().contains(named), "{sent}");
        }
    }
}
