//! Language models and embedders: one module per provider, streaming in one form.
//!
//! [`Generation::start`] connects (and may retry: nothing was delivered yet), [`Generation::next`] then gives the answer piece by piece,
//! what arrived together in one piece, and at last an [`Ended`] with what the provider counted. The traps in it:
//!
//! 1. Half a stream is not an answer. Only a provider's own word ends one; a body that just stops is [`ModelError::Broken`], and what was
//!    delivered until then is charged by [`Generation::delivered_usage`].
//! 2. Who counted matters. An explicit zero of the provider's is zero; what it left out is `None`, never zero and never a placeholder.
//! 3. Nothing of a provider's answer but its text, its counts and its status gets out: no header, no error body, no key.
//! 4. Dropping a generation cuts the connection. That is how stop works, and why nothing here reads to the end by itself.
//!
//! No clock, no randomness, no sockets: the host gives them ([`Http`], [`Retry`]).

mod anthropic;
mod call;
mod count;
pub mod embed;
mod embeddings;
mod endpoint;
mod error;
mod generation;
mod http;
mod local;
mod openai;
mod prompt;
mod retry;
mod sse;
mod wire;

pub use count::{around, estimate_input, estimate_output, prompt_upper_bound};
pub use embeddings::{Embeddings, MAX_BATCH, embed_texts};
pub use endpoint::{Endpoint, Provider, UnknownProvider};
pub use error::ModelError;
pub use generation::{EndReason, Ended, Generation, Piece};
pub use http::{ByteStream, Http, HttpError};
pub use local::{LOCAL_MODEL, local_tokens};
pub use prompt::{Message, MessageRole, Prompt};
pub use retry::{MAX_ATTEMPTS, Retry};
