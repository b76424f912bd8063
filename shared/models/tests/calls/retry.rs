use crate::fake::{Network, data, endpoint, prompt, read, start, status, stream};
use astra_kernel::Timestamp;
use astra_models::{EndReason, Endpoint, Generation, HttpError, LOCAL_MODEL, ModelError, Provider, Retry};
use futures_util::FutureExt;

fn failed(status: u16, retry_after: Option<u32>) -> ModelError {
    ModelError::Status { status, retry_after }
}

#[test]
fn what_passes_is_tried_again_and_the_same_is_sent() {
    let network = Network::new([status(429, None), Err(HttpError::Unreachable), stream([])]);
    assert!(start(&network, &endpoint(Provider::Openai)).is_ok());
    let state = network.state();
    assert_eq!(state.requests.len(), 3);
    assert!(state.requests.iter().all(|request| request.body() == state.requests[0].body()));
    assert!((250..=500).contains(&state.sleeps[0]) && (500..=1000).contains(&state.sleeps[1]), "{:?}", state.sleeps);
}

#[test]
fn the_provider_has_the_prompt_in_hand_while_it_is_called_and_not_while_a_retry_is_waited_for() {
    let network = Network::new([status(429, None), Err(HttpError::Unreachable), stream([])]);
    assert!(start(&network, &endpoint(Provider::Openai)).is_ok());
    assert_eq!(network.state().trail, [("call", true), ("wait", false), ("call", true), ("wait", false), ("call", true)]);
    assert!(network.state().asking, "it reads the prompt while it answers");
    let network = Network::new([status(400, None)]);
    assert!(start(&network, &endpoint(Provider::Openai)).is_err());
    assert!(!network.state().asking);
}

#[test]
fn three_attempts_at_most() {
    let network = Network::new([status(500, None), status(502, None), status(529, None), stream([])]);
    assert_eq!(start(&network, &endpoint(Provider::Anthropic)).unwrap_err(), failed(529, None));
    assert_eq!(network.state().requests.len(), 3);
}

#[test]
fn what_does_not_pass_is_not_tried_again() {
    for (reply, error) in [
        (status(400, Some("1")), failed(400, Some(1))),
        (status(302, None), failed(302, None)),
        (Err(HttpError::Broken), ModelError::Broken),
    ] {
        let network = Network::new([reply, stream([])]);
        assert_eq!(start(&network, &endpoint(Provider::Openai)).unwrap_err(), error);
        assert!(network.state().sleeps.is_empty());
    }
}

#[test]
fn retry_after_is_obeyed_unless_it_goes_past_the_deadline() {
    let network = Network::new([status(429, Some("20")), stream([])]);
    assert!(start(&network, &endpoint(Provider::Openai)).is_ok());
    assert_eq!(network.state().sleeps, [20_000]);
    // The deadline is in 60 s: it fails at once.
    let network = Network::new([status(503, Some("60")), stream([])]);
    assert_eq!(start(&network, &endpoint(Provider::Openai)).unwrap_err(), failed(503, Some(60)));
    assert!(network.state().sleeps.is_empty());
    // What is left after one wait is not enough for another.
    let network = Network::new([status(503, Some("40")), status(503, Some("40")), stream([])]);
    assert_eq!(start(&network, &endpoint(Provider::Openai)).unwrap_err(), failed(503, Some(40)));
    assert_eq!(network.state().sleeps, [40_000]);
}

#[test]
fn nothing_is_tried_again_once_a_stream_began() {
    let network = Network::new([stream([]), stream([data("data: [DONE]\n\n")])]);
    let mut generation = start(&network, &endpoint(Provider::Openai)).unwrap();
    assert_eq!(read(&mut generation).1, Err(ModelError::Empty));
    assert_eq!(network.state().requests.len(), 1);
}

#[test]
fn the_local_model_needs_no_network() {
    let network = Network::default();
    let local = Endpoint { provider: Provider::Local, model: LOCAL_MODEL.into(), base_url: None, api_key: None };
    let mut generation = start(&network, &local).unwrap();
    let (texts, end) = read(&mut generation);
    assert!(texts.len() > 1 && texts.concat().contains("refunds?") && texts.concat().contains("for the local model only"));
    let ended = end.unwrap();
    assert_eq!(ended.reason, EndReason::Stop);
    // Stopped after its first piece, it is charged for that.
    let stopped = generation.delivered_usage(&prompt(), &texts[0]);
    assert_eq!((stopped.input_tokens, stopped.output_tokens), (ended.usage.unwrap().input_tokens, 4));
}

#[test]
fn futures_can_be_sent() {
    fn sendable(_: impl Send) {}
    let (network, endpoint, prompt) = (Network::new([stream([])]), endpoint(Provider::Openai), prompt());
    let now = || Timestamp(0);
    let retry = Retry { attempts: 1, deadline: Timestamp(1), now: &now, seed: 0, asking: &|_| () };
    sendable(Generation::start(&network, &endpoint, &prompt, retry));
    let mut generation = Generation::start(&network, &endpoint, &prompt, retry).now_or_never().unwrap().unwrap();
    sendable(generation.next());
}
