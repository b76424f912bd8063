//! `OpenAI`'s chat completions, streamed, and whoever speaks them (<https://platform.openai.com/docs/api-reference/chat-streaming>).
//!
//! Servers that speak it differ in what they add and leave out, so: unknown fields are passed over; counts are read wherever they stand
//! (a last chunk without choices, one with, or inside the choice); `null` is absence; only choice 0 is read, as only one is asked for.

use crate::wire::{Counts, Told};
use crate::{EndReason, Endpoint, ModelError, Prompt};
use astra_kernel::Tokens;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

const BASE: &str = "https://api.openai.com/v1";

/// The request.
///
/// # Errors
/// [`ModelError::Misconfigured`].
pub(crate) fn request(endpoint: &Endpoint, prompt: &Prompt) -> Result<http::Request<Bytes>, ModelError> {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        messages: Vec<Said<'a>>,
        stream: bool,
        stream_options: StreamOptions,
        #[serde(skip_serializing_if = "Option::is_none")]
        max_tokens: Option<Tokens>,
        #[serde(skip_serializing_if = "Option::is_none")]
        max_completion_tokens: Option<Tokens>,
        #[serde(skip_serializing_if = "Option::is_none")]
        response_format: Option<Format<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        service_tier: Option<&'static str>,
    }
    #[derive(Serialize)]
    struct Format<'a> {
        r#type: &'static str,
        json_schema: Wanted<'a>,
    }
    #[derive(Serialize)]
    struct Wanted<'a> {
        name: &'static str,
        strict: bool,
        schema: &'a RawValue,
    }
    #[derive(Serialize)]
    struct Said<'a> {
        role: &'a str,
        content: &'a str,
    }
    #[derive(Serialize)]
    struct StreamOptions {
        include_usage: bool,
    }
    let system = (!prompt.system.is_empty()).then_some(Said { role: "system", content: &prompt.system });
    let messages = prompt.messages.iter().map(|message| Said { role: message.role.as_str(), content: &message.content });
    let (old, new) = if takes_completion_limit(&endpoint.model) {
        (None, Some(prompt.max_output_tokens))
    } else {
        (Some(prompt.max_output_tokens), None)
    };
    let schema = prompt.answer_schema.as_deref().map(astra_kernel::json::from_str::<&RawValue>).transpose();
    let schema = schema.map_err(|_| ModelError::Misconfigured("the answer's schema is no JSON"))?;
    let body = Body {
        model: &endpoint.model,
        messages: system.into_iter().chain(messages).collect(),
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        max_tokens: old,
        max_completion_tokens: new,
        response_format: schema
            .map(|schema| Format { r#type: "json_schema", json_schema: Wanted { name: "answer", strict: true, schema } }),
        // https://developers.openai.com/api/docs/guides/flex-processing
        service_tier: prompt.batch.then_some("flex"),
    };
    let mut request = endpoint.post(BASE, "/chat/completions", &body)?;
    endpoint.authorize(&mut request, http::header::AUTHORIZATION, "Bearer ")?;
    Ok(request)
}

/// Whether a model takes `max_completion_tokens`, and refuses `max_tokens` ("Unsupported parameter", litellm#13381): `OpenAI`'s reasoning
/// models do, servers of others' models know the older name. By the id, after a vendor (`openai/`) or `ft:`: an `o` and a digit
/// (`o1`, `o4-mini`), `gpt-` and a number from 5 (`gpt-5.1`), `codex`.
fn takes_completion_limit(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let name = name.strip_prefix("ft:").unwrap_or(name);
    if let Some(version) = name.strip_prefix("gpt-") {
        let digits = version.bytes().take_while(u8::is_ascii_digit).count();
        return version[..digits].parse().is_ok_and(|major: u32| major >= 5);
    }
    name.starts_with("codex") || name.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default, deserialize_with = "null_is_default", borrow)]
    choices: Vec<Choice<'a>>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<serde_json::Value>,
    #[serde(default, borrow)]
    service_tier: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(default, deserialize_with = "null_is_default")]
    delta: Delta,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What has to be remembered between events.
#[derive(Default)]
pub(crate) struct Reading {
    counts: Counts,
    batch: bool,
}

impl Reading {
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether it says that it is served, and billed, as a batch.
    pub(crate) fn is_batch(&self) -> bool {
        self.batch
    }

    /// Takes in one event.
    ///
    /// # Errors
    /// The provider's error inside the stream, or [`ModelError::Garbage`].
    pub(crate) fn event(&mut self, data: &str, told: &mut Told) -> Result<(), ModelError> {
        if data.trim() == "[DONE]" {
            told.complete = true;
            return Ok(());
        }
        let chunk: Chunk<'_> =
            astra_kernel::json::from_str(data).map_err(|_| ModelError::Garbage("an event of its stream is no chat completion chunk"))?;
        if let Some(error) = chunk.error {
            return Err(stream_error(&error));
        }
        // What is asked for may be served as something else: its last word counts.
        if let Some(tier) = chunk.service_tier {
            self.batch = matches!(tier.get(), r#""flex""# | r#""batch""#);
        }
        let mut usage = chunk.usage;
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            told.text.push_str(choice.delta.content.as_deref().unwrap_or_default());
            // Some servers send "" until there is a reason.
            if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
                told.reason = Some(end_reason(&reason));
            }
            usage = usage.or(choice.usage);
        }
        if let Some(counts) = usage.and_then(|usage| counts(usage.get())) {
            self.counts = counts;
        }
        Ok(())
    }
}

fn end_reason(reason: &str) -> EndReason {
    match reason {
        "stop" => EndReason::Stop,
        "length" => EndReason::Length,
        "content_filter" => EndReason::ContentFilter,
        _ => EndReason::Other,
    }
}

/// Reads counts; `None` when one of the two that matter is missing or no number: then the provider did not say, and the text stands all the same.
fn counts(usage: &str) -> Option<Counts> {
    #[derive(Deserialize)]
    struct Wire {
        prompt_tokens: Tokens,
        completion_tokens: Tokens,
        #[serde(default)]
        total_tokens: Option<Tokens>,
        #[serde(default, deserialize_with = "null_is_default")]
        prompt_tokens_details: InputDetails,
        #[serde(default, deserialize_with = "null_is_default")]
        completion_tokens_details: OutputDetails,
    }
    #[derive(Deserialize, Default)]
    struct InputDetails {
        #[serde(default, deserialize_with = "null_is_default")]
        cached_tokens: Tokens,
    }
    #[derive(Deserialize, Default)]
    struct OutputDetails {
        #[serde(default, deserialize_with = "null_is_default")]
        reasoning_tokens: Tokens,
    }
    let Wire { prompt_tokens: input, completion_tokens, total_tokens, prompt_tokens_details, completion_tokens_details } =
        astra_kernel::json::from_str(usage).ok()?;
    let reasoning = completion_tokens_details.reasoning_tokens;
    // xAI counts reasoning beside the completion and not in it (vercel/ai#12425); its total tells.
    let beside = input.checked_add(completion_tokens).and_then(|sum| sum.checked_add(reasoning));
    let output =
        if reasoning > 0 && total_tokens.is_some() && total_tokens == beside { completion_tokens + reasoning } else { completion_tokens };
    Some(Counts { input: Some(input), cached_input: prompt_tokens_details.cached_tokens, output: Some(output), reasoning })
}

/// An error inside a stream: with the status that it names or stands for, else it is as if the stream had broken off.
fn stream_error(error: &serde_json::Value) -> ModelError {
    let number = |key: &str| error.get(key).and_then(serde_json::Value::as_u64);
    let word = |key: &str| error.get(key).and_then(serde_json::Value::as_str);
    let status =
        number("code").or_else(|| number("status")).and_then(|code| u16::try_from(code).ok()).filter(|code| (400..=599).contains(code));
    let known = status.or_else(|| [word("code"), word("type")].into_iter().flatten().find_map(status_of));
    known.map_or(ModelError::Broken, |status| ModelError::Status { status, retry_after: None })
}

/// The statuses of <https://platform.openai.com/docs/guides/error-codes>.
fn status_of(word: &str) -> Option<u16> {
    match word {
        "rate_limit_exceeded" | "rate_limit_error" | "insufficient_quota" | "tokens" | "requests" => Some(429),
        "server_error" | "internal_error" | "internal_server_error" => Some(500),
        "service_unavailable" | "server_overloaded" | "overloaded" => Some(503),
        "invalid_request_error" | "context_length_exceeded" => Some(400),
        "invalid_api_key" | "authentication_error" => Some(401),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_name_goes_by_the_models() {
        for model in [
            "o1",
            "o3-mini",
            "o4-mini-2025-04-16",
            "gpt-5",
            "gpt-5.1-mini",
            "gpt-10",
            "openai/gpt-5-nano",
            "ft:gpt-5-mini:org::x",
            "codex-mini-latest",
        ] {
            assert!(takes_completion_limit(model), "{model}");
        }
        for model in [
            "gpt-4o-mini",
            "gpt-4.1",
            "gpt-3.5-turbo",
            "gpt-oss-120b",
            "openai/gpt-4o",
            "olmo-2",
            "llama3.1",
            "omni-moderation",
            "ft:gpt-4o-mini:o1::x",
            "",
            "gpt-",
            "o",
        ] {
            assert!(!takes_completion_limit(model), "{model}");
        }
    }

    #[test]
    fn reasoning_is_counted_once_wherever_it_stands() {
        let openai = r#"{"prompt_tokens":10,"completion_tokens":30,"total_tokens":40,"completion_tokens_details":{"reasoning_tokens":20}}"#;
        let xai = r#"{"prompt_tokens":10,"completion_tokens":10,"total_tokens":40,"completion_tokens_details":{"reasoning_tokens":20}}"#;
        for usage in [openai, xai] {
            let counts = counts(usage).unwrap();
            assert_eq!((counts.output, counts.reasoning), (Some(30), 20), "{usage}");
        }
    }

    #[test]
    fn half_a_count_is_none() {
        for usage in [
            "{}",
            r#"{"prompt_tokens":3}"#,
            r#"{"prompt_tokens":3,"completion_tokens":null}"#,
            r#"{"prompt_tokens":-3,"completion_tokens":1}"#,
            "3",
            "[]",
        ] {
            assert!(counts(usage).is_none(), "{usage}");
        }
    }
}
