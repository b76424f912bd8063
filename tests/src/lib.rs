//! The harness of the black-box suites: what a test needs to speak to a running stack, and the model servers it is run against.
//!
//! It knows the product only as its callers do: HTTP by the spec's shapes, and the database by the tables that the guide's SQL and
//! docs/contracts/sql.md name. Every test makes its own workspace and its own plan under a random name, so that tests run side by side.
//! Helpers panic where something is not as it must be: in a test that is the message one wants to read.

#![expect(clippy::missing_panics_doc, reason = "a panic is how a test fails")]

pub mod aimock;
pub mod api;
pub mod books;
pub mod canary;
pub mod db;
pub mod environment;
pub mod guide;
pub mod issuer;
pub mod jwt;
pub mod openapi;
pub mod proof;
pub mod receiver;
pub mod scripted;
pub mod session;
pub mod sse;
pub mod stack;
pub mod standin;
pub mod stripe;
pub mod template;
pub mod typesense;
pub mod wait;
pub mod workspace;

pub use aimock::Aimock;
pub use api::{Api, Reply};
pub use db::Db;
pub use issuer::Issuer;
pub use receiver::Receiver;
pub use scripted::Scripted;
pub use session::Session;
pub use sse::{Event, Stream};
pub use stripe::Stripe;
pub use typesense::Typesense;
pub use workspace::Workspace;
