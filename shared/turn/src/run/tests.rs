//! What a turn is charged that is cut before its model has said a word.

use super::*;
use astra_host::testing::{FakeHost, NOW};
use astra_models::{Message, MessageRole, Provider};
use futures_util::FutureExt as _;

/// What a turn is charged that is stopped as soon as nothing more happens by itself, and what its next sign of life would have reported.
fn charged(statuses: &[u16], waits: usize) -> (u64, u64) {
    let endpoint = Endpoint { provider: Provider::Openai, model: "m".into(), base_url: None, api_key: Some("k".to_owned().into()) };
    let message = Message { role: MessageRole::User, content: "twelve bytes".into() };
    let prompt = Prompt {
        system: "be kind".into(),
        messages: vec![message],
        memories: vec![],
        max_output_tokens: 10,
        answer_schema: None,
        batch: false,
    };
    let (host, meter) = (FakeHost::new(&[]), Meter::new(10, 10));
    let mut text = String::new();
    host.model(statuses, waits);
    let stop = std::future::ready(Cut::Stopped);
    let said = generate(&host, &endpoint, &prompt, NOW.plus_millis(60_000), (&mut text, &meter), stop, &mut |_| ()).now_or_never().unwrap();
    let estimate = estimate_input(&prompt);
    let (end, problem) = judge(said, &text, (estimate, 10), false);
    assert_eq!((end.status, end.content, problem), (TurnStatus::Stopped, None, None));
    assert_eq!((end.usage.output_tokens, end.usage.source), (0, UsageSource::Estimated));
    assert!(estimate > 0 && [0, estimate].contains(&end.usage.input_tokens));
    (end.usage.input_tokens / estimate, meter.usage().input_tokens / estimate)
}

#[test]
fn a_stop_charges_the_prompt_while_a_provider_works_on_it_and_nothing_while_a_retry_is_waited_for() {
    assert_eq!(charged(&[], 0), (1, 1), "the first call");
    assert_eq!(charged(&[429], 0), (0, 0), "the wait after its refusal");
    assert_eq!(charged(&[429], 1), (1, 1), "the second call");
    assert_eq!(charged(&[429, 503], 1), (0, 0), "the second wait");
}
