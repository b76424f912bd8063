//! Anthropic's messages, streamed (<https://docs.anthropic.com/en/api/messages-streaming>).
//!
//! Input is counted at the start (and by some servers that speak this protocol only at the end); the output figure of the start is a
//! placeholder that is passed over. Counts in `message_delta` are cumulative: each replaces what was there.

use crate::wire::{Counts, Told};
use crate::{EndReason, Endpoint, MessageRole, ModelError, Prompt};
use astra_kernel::Tokens;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const BASE: &str = "https://api.anthropic.com";
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// The request. The API refuses empty texts and a conversation that the assistant begins, as one cut to its last messages may: such are left out.
///
/// # Errors
/// [`ModelError::Misconfigured`].
pub(crate) fn request(endpoint: &Endpoint, prompt: &Prompt) -> Result<http::Request<Bytes>, ModelError> {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        max_tokens: Tokens,
        #[serde(skip_serializing_if = "str::is_empty")]
        system: &'a str,
        messages: Vec<Said<'a>>,
        stream: bool,
    }
    #[derive(Serialize)]
    struct Said<'a> {
        role: &'a str,
        content: &'a str,
    }
    let messages = prompt
        .messages
        .iter()
        .filter(|message| !message.content.trim().is_empty())
        .skip_while(|message| message.role == MessageRole::Assistant)
        .map(|message| Said { role: message.role.as_str(), content: &message.content })
        .collect();
    let system = if prompt.system.trim().is_empty() { "" } else { &prompt.system };
    let body = Body { model: &endpoint.model, max_tokens: prompt.max_output_tokens, system, messages, stream: true };
    let mut request = endpoint.post(BASE, "/v1/messages", &body)?;
    endpoint.authorize(&mut request, HeaderName::from_static("x-api-key"), "")?;
    request.headers_mut().insert(HeaderName::from_static("anthropic-version"), VERSION);
    Ok(request)
}

/// The fields of all events that matter here, by `type`; a type that is not known is passed over, as the API asks for.
#[derive(Deserialize)]
struct Event<'a> {
    r#type: &'a str,
    #[serde(default, borrow)]
    message: Option<Start<'a>>,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta {
    /// Of a `text_delta`; thinking and tool input stand in other fields.
    #[serde(default)]
    text: Option<String>,
    /// Of a `message_delta`.
    #[serde(default)]
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    r#type: String,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
struct Counted {
    input_tokens: Option<Tokens>,
    cache_creation_input_tokens: Option<Tokens>,
    cache_read_input_tokens: Option<Tokens>,
    output_tokens: Option<Tokens>,
}

/// What has to be remembered between events: the last word on each count.
#[derive(Default)]
pub(crate) struct Reading {
    input: Option<Tokens>,
    cache_creation: Tokens,
    cache_read: Tokens,
    output: Option<Tokens>,
}

impl Reading {
    pub(crate) fn counts(&self) -> Counts {
        let cached = self.cache_creation.saturating_add(self.cache_read);
        Counts {
            // The API counts input beside what was written to and read from its cache; a usage here counts all of it.
            input: self.input.map(|fresh| fresh.saturating_add(cached)),
            cached_input: self.cache_read,
            output: self.output,
            // Thinking is not asked for, and is not counted apart.
            reasoning: 0,
        }
    }

    /// Takes in one event.
    ///
    /// # Errors
    /// The provider's error inside the stream, or [`ModelError::Garbage`].
    pub(crate) fn event(&mut self, data: &str, told: &mut Told) -> Result<(), ModelError> {
        let event: Event<'_> =
            astra_kernel::json::from_str(data).map_err(|_| ModelError::Garbage("an event of its stream is no event of a message"))?;
        match event.r#type {
            "message_start" => {
                let placeholder = self.output;
                self.count(event.message.and_then(|message| message.usage));
                self.output = placeholder;
            }
            "content_block_delta" => {
                told.text.push_str(event.delta.and_then(|delta| delta.text).as_deref().unwrap_or_default());
            }
            "message_delta" => {
                if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason) {
                    told.reason = Some(end_reason(&reason));
                }
                self.count(event.usage);
            }
            "message_stop" => told.complete = true,
            "error" => return Err(stream_error(event.error.map(|error| error.r#type).as_deref())),
            _ => {}
        }
        Ok(())
    }

    /// Counts that are no numbers are as if they had not been said; the text stands all the same.
    fn count(&mut self, usage: Option<&RawValue>) {
        let Some(counted) = usage.and_then(|usage| astra_kernel::json::from_str::<Counted>(usage.get()).ok()) else { return };
        let Counted { input_tokens, cache_creation_input_tokens, cache_read_input_tokens, output_tokens } = counted;
        self.input = input_tokens.or(self.input);
        self.cache_creation = cache_creation_input_tokens.unwrap_or(self.cache_creation);
        self.cache_read = cache_read_input_tokens.unwrap_or(self.cache_read);
        self.output = output_tokens.or(self.output);
    }
}

/// <https://docs.anthropic.com/en/api/handling-stop-reasons>.
fn end_reason(reason: &str) -> EndReason {
    match reason {
        "end_turn" | "stop_sequence" => EndReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => EndReason::Length,
        "refusal" => EndReason::ContentFilter,
        _ => EndReason::Other,
    }
}

/// The statuses of <https://docs.anthropic.com/en/api/errors>; an error that is not among them is as if the stream had broken off.
fn stream_error(kind: Option<&str>) -> ModelError {
    let status = match kind {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("api_error") => 500,
        Some("timeout_error") => 504,
        Some("overloaded_error") => 529,
        _ => return ModelError::Broken,
    };
    ModelError::Status { status, retry_after: None }
}
