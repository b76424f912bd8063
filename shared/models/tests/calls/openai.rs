use crate::fake::{Network, Read, answer, cut, data, endpoint, prompt, read, shown, start, start_with, status, stream};
use astra_kernel::{Usage, UsageSource};
use astra_models::{EndReason, Ended, Endpoint, ModelError, Provider, estimate_input, estimate_output};
use proptest::prelude::*;

/// As `OpenAI` sends it, with what other servers add: comments, CRLF, unknown fields, a byte order mark.
const STREAM: &str = "\u{feff}: OPENROUTER PROCESSING\r\n\r\ndata: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null,\"x\":[1]}\n\nevent: message\ndata:{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Grüße, \"},\"finish_reason\":\"\"}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"日本 👋\\n\",\"reasoning_content\":\"hidden\"}},{\"index\":1,\"delta\":{\"content\":\"other\"}}]}\r\n\r\ndata: {\"choices\":[{\"index\":0,\"delta\":null,\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":9,\"total_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":4,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":3}}}\n\ndata: [DONE]\n\n";

const ENDED: Ended = Ended {
    reason: EndReason::Stop,
    usage: Some(Usage { input_tokens: 21, cached_input_tokens: 4, output_tokens: 9, reasoning_tokens: 3, source: UsageSource::Provider }),
};

const HELLO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn hello_then(rest: &str) -> (Vec<String>, Result<Ended, ModelError>) {
    answer(Provider::Openai, [data(HELLO), data(rest)])
}

#[test]
fn a_request() {
    let network = Network::new([stream([]), stream([])]);
    start(&network, &endpoint(Provider::Openai)).unwrap();
    let own = Endpoint {
        model: "openai/gpt-5-mini".into(),
        base_url: Some("http://127.0.0.1:1234/v1/".into()),
        api_key: None,
        ..endpoint(Provider::Openai)
    };
    start(&network, &own).unwrap();
    let state = network.state();
    insta::assert_snapshot!("openai_request", shown(&state.requests[0]));
    insta::assert_snapshot!("openai_request_to_own_server", shown(&state.requests[1]));
    assert!(state.requests[0].headers()["authorization"].is_sensitive());
}

#[test]
fn a_batch_is_asked_for_and_is_one_where_the_provider_says_so() {
    let told =
        |tier: &str| data(&format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"Hi\"}}}}],\"service_tier\":{tier}}}\n\n"));
    for (tiers, is_batch) in [
        (&[r#""flex""#][..], true),
        (&[r#""batch""#], true),
        (&[r#""flex""#, r#""default""#], false),
        (&["null", r#""flex""#, "null"], true),
        (&[r#""default""#], false),
        (&["7", "{}"], false),
        (&[], false),
    ] {
        let network = Network::new([stream(tiers.iter().map(|tier| told(tier)).chain([data(STOP), data(DONE)]))]);
        let mut asked = prompt();
        asked.batch = true;
        let mut generation = start_with(&network, &endpoint(Provider::Openai), &asked).unwrap();
        let _ = read(&mut generation);
        assert_eq!(generation.is_batch(), is_batch, "{tiers:?}");
        assert!(shown(&network.state().requests[0]).contains("\"service_tier\": \"flex\""));
    }
}

#[test]
fn what_arrives_together_is_one_piece() {
    let (texts, end) = answer(Provider::Openai, [data(STREAM)]);
    assert_eq!(texts, ["Grüße, 日本 👋\n"]);
    assert_eq!(end, Ok(ENDED));
}

proptest! {
    #[test]
    fn cuts_between_reads_change_nothing(places in proptest::collection::vec(any::<usize>(), 0..12), waits: bool) {
        let (texts, end) = answer(Provider::Openai, cut(STREAM.as_bytes(), &places, waits));
        prop_assert_eq!(texts.concat(), "Grüße, 日本 👋\n");
        prop_assert!(texts.iter().all(|text| !text.is_empty()));
        prop_assert_eq!(end, Ok(ENDED));
    }

    #[test]
    fn nothing_that_arrives_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), places in proptest::collection::vec(any::<usize>(), 0..4)) {
        let _ = answer(Provider::Openai, cut(&bytes, &places, false));
    }

    #[test]
    fn half_a_stream_is_never_an_answer(length in 0..STREAM.len()) {
        let (texts, end) = answer(Provider::Openai, cut(&STREAM.as_bytes()[..length], &[], false));
        let text = texts.concat();
        prop_assert!("Grüße, 日本 👋\n".starts_with(&text));
        match end {
            Ok(ended) => prop_assert_eq!(ended.reason, EndReason::Stop, "only after the provider's word"),
            Err(error) => prop_assert_eq!(error, if text.is_empty() { ModelError::Empty } else { ModelError::Broken }),
        }
    }
}

#[test]
fn byte_by_byte() {
    let places: Vec<usize> = (0..STREAM.len()).collect();
    let (texts, end) = answer(Provider::Openai, cut(STREAM.as_bytes(), &places, true));
    assert_eq!((texts.concat().as_str(), end), ("Grüße, 日本 👋\n", Ok(ENDED)));
}

#[test]
fn usage_is_found_wherever_it_stands_and_zero_is_zero() {
    let zero = Usage { input_tokens: 0, cached_input_tokens: 0, output_tokens: 0, reasoning_tokens: 0, source: UsageSource::Provider };
    let counts = "\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}";
    for rest in [
        format!("data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"stop\"}}],{counts}}}\n\n{DONE}"),
        format!("data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"stop\",{counts}}}]}}\n\n{DONE}"),
        format!("{STOP}data: {{\"choices\":null,{counts}}}\n\n{DONE}"),
        // No end mark, no empty line after the last event.
        format!("{STOP}data: {{\"choices\":[],{counts}}}"),
    ] {
        assert_eq!(hello_then(&rest), (vec!["Hello".to_owned()], Ok(Ended { reason: EndReason::Stop, usage: Some(zero) })), "{rest}");
    }
}

#[test]
fn usage_that_was_not_said_is_none() {
    let ended = Ok(Ended { reason: EndReason::Stop, usage: None });
    for usage in [
        "",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5}}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":\"many\"}}\n\n",
    ] {
        assert_eq!(hello_then(&format!("{STOP}{usage}{DONE}")).1, ended, "{usage}");
    }
    // All was said, only the connection ended badly.
    assert_eq!(answer(Provider::Openai, [data(HELLO), data(STOP), Read::Break]).1, ended);
}

#[test]
fn an_answer_that_stops_half_way_is_broken() {
    let chunk_without_end = "data: {\"choices\":[{\"delta\":{\"con";
    assert_eq!(hello_then(""), (vec!["Hello".to_owned()], Err(ModelError::Broken)));
    assert_eq!(hello_then(chunk_without_end), (vec!["Hello".to_owned()], Err(ModelError::Broken)));
    assert_eq!(answer(Provider::Openai, [data(HELLO), Read::Break]), (vec!["Hello".to_owned()], Err(ModelError::Broken)));
    assert_eq!(answer(Provider::Openai, [Read::Break]), (vec![], Err(ModelError::Broken)));
}

#[test]
fn nothing_is_empty() {
    for body in ["", "\n", ": hm\n\n", DONE, "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n"] {
        assert_eq!(answer(Provider::Openai, [data(body)]), (vec![], Err(ModelError::Empty)), "{body}");
    }
    // A reason is an answer, if a short one.
    assert!(answer(Provider::Openai, [data(STOP), data(DONE)]).1.is_ok());
}

#[test]
fn reasons() {
    for (word, reason) in [
        ("stop", EndReason::Stop),
        ("length", EndReason::Length),
        ("content_filter", EndReason::ContentFilter),
        ("tool_calls", EndReason::Other),
    ] {
        let rest = STOP.replace("\"stop\"", &format!("\"{word}\""));
        assert_eq!(hello_then(&format!("{rest}{DONE}")).1.unwrap().reason, reason);
    }
    assert_eq!(hello_then(DONE).1.unwrap().reason, EndReason::Other);
}

#[test]
fn an_error_in_the_stream_comes_after_the_text_before_it() {
    for (error, expected) in [
        ("{\"message\":\"m\",\"type\":\"server_error\",\"code\":null}", ModelError::Status { status: 500, retry_after: None }),
        ("{\"message\":\"m\",\"code\":502}", ModelError::Status { status: 502, retry_after: None }),
        ("{\"code\":\"rate_limit_exceeded\"}", ModelError::Status { status: 429, retry_after: None }),
        ("{\"code\":99999}", ModelError::Broken),
        ("\"overloaded, sk-secret\"", ModelError::Broken),
    ] {
        let body = format!("{HELLO}data: {{\"error\":{error}}}\n\n");
        assert_eq!(answer(Provider::Openai, [data(&body)]), (vec!["Hello".to_owned()], Err(expected)), "{error}");
    }
}

#[test]
fn what_is_no_stream_of_chunks_is_garbage() {
    for bytes in [&b"data: <html>\n\n"[..], b"data: 3\n\n", b"data: {\"choices\":3}\n\n", b"data: \xff\xfe\n\n"] {
        let (texts, end) = answer(Provider::Openai, cut(bytes, &[], false));
        assert!(texts.is_empty() && matches!(end, Err(ModelError::Garbage(_))), "{end:?}");
    }
    for kind in ["application/json", "text/html; charset=utf-8"] {
        let reply = http::Response::builder().header("content-type", kind).body(vec![data("{}")]).unwrap();
        let error = start(&Network::new([Ok(reply)]), &endpoint(Provider::Openai)).unwrap_err();
        assert!(matches!(error, ModelError::Garbage(_)), "{error:?}");
    }
}

#[test]
fn an_event_without_end_is_cut_off() {
    let line = "x".repeat(64 * 1024);
    let endless = std::iter::once(data("data: ")).chain(std::iter::repeat_n(data(&line), 40));
    assert!(matches!(answer(Provider::Openai, endless).1, Err(ModelError::Garbage(_))));
    let at_once = format!("data: {{\"choices\":[],\"x\":\"{}\"}}\n\n{STOP}{DONE}", "x".repeat(1024 * 1024));
    assert!(matches!(answer(Provider::Openai, [data(&at_once)]).1, Err(ModelError::Garbage(_))));
    // Many small ones in one read are fine.
    let many = format!("{}{STOP}{DONE}", HELLO.repeat(40_000));
    let (texts, end) = answer(Provider::Openai, [data(&many)]);
    assert_eq!((texts.len(), texts.concat().len(), end.is_ok()), (1, 200_000, true));
}

#[test]
fn what_was_delivered_is_charged_when_it_was_cut_off() {
    let network = Network::new([stream([data(HELLO), Read::Break]), stream([data(HELLO), data(&STREAM[STREAM.len() - 300..])])]);
    let mut generation = start(&network, &endpoint(Provider::Openai)).unwrap();
    let (texts, end) = read(&mut generation);
    assert_eq!(end, Err(ModelError::Broken));
    let usage = generation.delivered_usage(&prompt(), &texts.concat());
    assert_eq!(usage.source, UsageSource::Estimated);
    assert_eq!((usage.input_tokens, usage.output_tokens), (estimate_input(&prompt()), estimate_output("Hello")));
}

#[test]
fn what_cannot_be_sent_says_so() {
    let network = Network::default();
    let good = endpoint(Provider::Openai);
    for bad in [
        Endpoint { base_url: Some("example.com/v1".into()), ..good.clone() },
        Endpoint { base_url: Some("https://example.com/v1?api-version=1".into()), ..good.clone() },
        Endpoint { base_url: Some("https://exa mple.com/v1".into()), ..good.clone() },
        Endpoint { base_url: Some(String::new()), ..good.clone() },
        Endpoint { api_key: Some("sk-secret\nx: y".to_owned().into()), ..good },
    ] {
        let error = start(&network, &bad).unwrap_err();
        assert!(matches!(error, ModelError::Misconfigured(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("sk-secret"));
    }
    assert!(network.state().requests.is_empty());
}

#[test]
fn a_refusal_says_its_status_and_nothing_of_its_body() {
    let error = start(&Network::new([status(401, None)]), &endpoint(Provider::Openai)).unwrap_err();
    assert_eq!(error, ModelError::Status { status: 401, retry_after: None });
    let problem = astra_kernel::Problem::from(&error);
    assert!(problem.detail.contains("401") && !problem.detail.contains("sk-secret"), "{}", problem.detail);
}
