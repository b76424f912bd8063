use crate::fake::{Network, Read, answer, cut, data, endpoint, prompt, read, shown, start, stream};
use astra_kernel::{Timestamp, Usage, UsageSource};
use astra_models::{EndReason, Ended, Generation, Message, MessageRole, ModelError, Prompt, Provider, Retry, estimate_output};
use futures_util::FutureExt;
use proptest::prelude::*;

/// As in the API's documentation, with a block of thinking before the text.
const STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"claude\",\"stop_reason\":null,\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":200,\"cache_read_input_tokens\":3000,\"output_tokens\":1,\"service_tier\":\"standard\"}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hidden\"}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"Grüße\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\" 👋\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":15}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\nevent: yet_unknown\ndata: {\"type\":\"yet_unknown\"}\n\n";

const ENDED: Ended = Ended {
    reason: EndReason::Stop,
    usage: Some(Usage {
        input_tokens: 3210,
        cached_input_tokens: 3000,
        output_tokens: 15,
        reasoning_tokens: 0,
        source: UsageSource::Provider,
    }),
};

/// Everything before the first text.
fn opening() -> &'static str {
    &STREAM[..STREAM.find("event: content_block_start").expect("it has one")]
}

#[test]
fn a_request() {
    let network = Network::new([stream([])]);
    start(&network, &endpoint(Provider::Anthropic)).unwrap();
    let state = network.state();
    insta::assert_snapshot!("anthropic_request", shown(&state.requests[0]));
    assert!(state.requests[0].headers()["x-api-key"].is_sensitive());
}

#[test]
fn what_the_api_refuses_is_left_out() {
    let said = |role, content: &str| Message { role, content: content.into() };
    let prompt = Prompt {
        system: " ".into(),
        messages: vec![
            said(MessageRole::Assistant, "cut off from its question"),
            said(MessageRole::User, "a"),
            said(MessageRole::Assistant, ""),
            said(MessageRole::User, "b"),
        ],
        ..prompt()
    };
    let network = Network::new([stream([])]);
    let retry = Retry { attempts: 1, deadline: Timestamp(1), now: &|| Timestamp(0), seed: 0, asking: &|_| () };
    Generation::start(&network, &endpoint(Provider::Anthropic), &prompt, retry).now_or_never().unwrap().unwrap();
    let body: serde_json::Value = serde_json::from_slice(network.state().requests[0].body()).unwrap();
    assert_eq!(body["messages"], serde_json::json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]));
    assert!(body.get("system").is_none());
}

proptest! {
    #[test]
    fn cuts_between_reads_change_nothing(places in proptest::collection::vec(any::<usize>(), 0..12), waits: bool) {
        let (texts, end) = answer(Provider::Anthropic, cut(STREAM.as_bytes(), &places, waits));
        prop_assert_eq!(texts.concat(), "Grüße 👋");
        prop_assert_eq!(end, Ok(ENDED));
    }

    #[test]
    fn nothing_that_arrives_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = answer(Provider::Anthropic, cut(&bytes, &[], false));
    }
}

#[test]
fn what_arrives_together_is_one_piece() {
    assert_eq!(answer(Provider::Anthropic, [data(STREAM)]).0, ["Grüße 👋"]);
}

#[test]
fn the_start_counts_input_and_its_output_is_no_count() {
    let text = "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello there\"}}\n\n";
    // Stopped before the end: input as the provider counted, output as delivered.
    let network = Network::new([stream([data(opening()), data(text), Read::Break])]);
    let mut generation = start(&network, &endpoint(Provider::Anthropic)).unwrap();
    assert_eq!(read(&mut generation).1, Err(ModelError::Broken));
    let usage = generation.delivered_usage(&prompt(), "Hello there");
    let expected = Usage {
        input_tokens: 3210,
        cached_input_tokens: 3000,
        output_tokens: estimate_output("Hello there"),
        reasoning_tokens: 0,
        source: UsageSource::Estimated,
    };
    assert_eq!(usage, expected);
    // An end without a count of output is no count.
    let end = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\ndata: {\"type\":\"message_stop\"}\n\n";
    let (_, ended) = answer(Provider::Anthropic, [data(opening()), data(text), data(end)]);
    assert_eq!(ended, Ok(Ended { reason: EndReason::Stop, usage: None }));
}

#[test]
fn counts_at_the_end_replace_those_of_the_start() {
    let end = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"},\"usage\":{\"input_tokens\":7,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":null,\"output_tokens\":0}}\n\n";
    let usage =
        Usage { input_tokens: 3007, cached_input_tokens: 3000, output_tokens: 0, reasoning_tokens: 0, source: UsageSource::Provider };
    let (_, ended) = answer(Provider::Anthropic, [data(opening()), data(end)]);
    assert_eq!(ended, Ok(Ended { reason: EndReason::Length, usage: Some(usage) }));
}

#[test]
fn errors_in_the_stream() {
    for (kind, expected) in [
        ("overloaded_error", ModelError::Status { status: 529, retry_after: None }),
        ("rate_limit_error", ModelError::Status { status: 429, retry_after: None }),
        ("new_error", ModelError::Broken),
    ] {
        let error = format!("event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"m\"}}}}\n\n");
        assert_eq!(answer(Provider::Anthropic, [data(opening()), data(&error)]), (vec![], Err(expected)), "{kind}");
    }
    assert_eq!(answer(Provider::Anthropic, [data(opening())]).1, Err(ModelError::Empty));
    assert!(matches!(answer(Provider::Anthropic, [data("data: {}\n\n")]).1, Err(ModelError::Garbage(_))));
}
