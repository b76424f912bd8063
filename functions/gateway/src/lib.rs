//! The gateway: the one address that clients know.
//!
//! On Cloudflare Workers it routes a path to a function over a service binding (Cloudflare's route patterns cannot match `/workspaces/*/grants`), answers CORS
//! preflights, refuses bodies that are too large before a function sees them, and hands requests and answers on as they are: a
//! stream passes through without a line of this code running for it. It holds no key and checks no token; each function does.
//!
//! Elsewhere its [`app`] does the same for functions in the same process: all of them in a server, one of them in a Lambda function.

pub mod rules;

/// The API's description, which `tools/openapi` writes and a test keeps true.
pub static OPENAPI: &str = include_str!("../openapi.json");

#[cfg(not(target_arch = "wasm32"))]
pub mod app;
#[cfg(not(target_arch = "wasm32"))]
pub mod cors;
#[cfg(target_arch = "wasm32")]
mod entry;
#[cfg(all(feature = "lambda", not(target_arch = "wasm32")))]
pub mod lambda;
