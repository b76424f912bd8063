use super::*;
use crate::testing::{FakeHost, NOW};
use astra_quota::QuotaView;
use astra_quota::words::Finished;
use futures_util::FutureExt as _;
use serde_json::json;

fn begun(model: &serde_json::Value) -> Answer {
    let context = json!({
        "agent": { "id": "(embedding)" }, "model": model, "secret": null,
        "price": { "version": 3, "inputNanoPerMtok": 20_000_000, "cachedInputNanoPerMtok": 0, "outputNanoPerMtok": 1_000_000 },
        "batchPrice": { "version": 4, "inputNanoPerMtok": 10_000_000, "cachedInputNanoPerMtok": 0, "outputNanoPerMtok": 1_000_000 },
    });
    let context = serde_json::value::to_raw_value(&context).unwrap();
    let quota = QuotaView::default();
    Answer::Begun(Box::new(Begun {
        context,
        started_at: NOW,
        input_bound: 1_000,
        output: 0,
        max_output: 0,
        bounded_by_budget: false,
        quota,
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a counter of the tests")]
fn counter(ask: &Ask) -> Result<Answer, CounterUnreachable> {
    Ok(match ask {
        Ask::Begin(begin) => {
            let begin = begin.as_ref();
            let wanted = Use { kind: UseKind::Embedding, model: None, input_bound: 1_000, presumed_input: 300, max_output: 50 };
            assert_eq!((begin.no_turn.as_ref(), begin.session_id, begin.lease_millis), (Some(&wanted), None, 60_000));
            assert_eq!(
                (begin.agent_id.as_str(), begin.message.as_str(), begin.host_providers.clone()),
                ("(embedding)", "", vec!["openai".to_owned()])
            );
            begun(&json!({ "provider": "openai", "modelId": "text-embedding-3-small", "endpoint": null }))
        }
        _ => Answer::Finished(Finished { saved: true, quota: QuotaView::default(), receipt: None }),
    })
}

fn workspace() -> WorkspaceId {
    "acme".to_owned().try_into().unwrap()
}

fn wanted() -> Wanted {
    let id = "00000000-0000-7000-8000-000000000001".parse().unwrap();
    let (input_bound, presumed_input, max_output) = (1_000, 300, 50);
    Wanted { id, what: What::Embedding, subject: "u".into(), model: None, input_bound, presumed_input, max_output, millis: 30_000 }
}

fn host(counter: crate::testing::Counter) -> FakeHost {
    let host = FakeHost::new(&[("OPENAI_API_KEY", "sk"), ("OPENAI_BASE_URL", "https://models.example/v1")]);
    host.counter(counter);
    host
}

fn begin_now(host: &FakeHost) -> Result<(UseHold<FakeHost>, Endpoint), NotHeld> {
    begin(host, &workspace(), wanted()).now_or_never().unwrap()
}

fn last(host: &FakeHost, said: &[&str]) {
    let asked = host.asked();
    let last = asked.last().unwrap();
    for said in said {
        assert!(last.starts_with("acme Finish") && last.contains(said), "{said} in {last}");
    }
}

#[test]
fn a_use_is_charged_what_was_counted_at_the_price_of_its_hold() {
    let host = host(counter);
    let (hold, endpoint) = begin_now(&host).unwrap();
    assert_eq!((endpoint.model.as_str(), endpoint.base_url.as_deref()), ("text-embedding-3-small", Some("https://models.example/v1")));
    assert!(endpoint.api_key.is_some() && hold.max_output() == 50);
    let usage = Usage { input_tokens: 500, source: UsageSource::Provider, ..Usage::NONE };
    assert_eq!(hold.finish(usage, None).now_or_never().unwrap(), Ok(NanoUsd(10_000)));
    last(
        &host,
        &[
            "kind: Some(Embedding)",
            "cost_nano_usd: NanoUsd(10000)",
            "price_version: 3",
            "status: Completed",
            "session_id: None",
            "answer: None",
        ],
    );
    assert_eq!(host.asked().len(), 2, "and once: dropping it adds nothing");
}

#[test]
fn a_use_that_is_dropped_is_charged_what_was_presumed() {
    let host = host(counter);
    drop(begin_now(&host).unwrap());
    last(&host, &["input_tokens: 300", "source: Estimated", "cost_nano_usd: NanoUsd(6000)", "status: Failed"]);
    assert_eq!(host.asked().len(), 2);
}

#[test]
fn what_is_served_as_a_batch_is_charged_so_also_what_is_presumed_of_it() {
    let host = host(counter);
    let usage = Usage { input_tokens: 500, source: UsageSource::Provider, ..Usage::NONE };
    let mut hold = begin_now(&host).unwrap().0;
    assert!(hold.may_be_batch());
    hold.at_batch_rates();
    assert_eq!(hold.finish(usage, None).now_or_never().unwrap(), Ok(NanoUsd(5_000)));
    last(&host, &["cost_nano_usd: NanoUsd(5000)", "price_version: 4", "batch: true"]);
    let mut hold = begin_now(&host).unwrap().0;
    hold.at_batch_rates();
    drop(hold);
    last(&host, &["input_tokens: 300", "source: Estimated", "cost_nano_usd: NanoUsd(3000)", "price_version: 4", "batch: true"]);
}

#[test]
fn a_call_that_was_not_made_costs_nothing_and_one_that_failed_costs_what_it_cost() {
    let host = host(counter);
    begin_now(&host).unwrap().0.release(Code::UpstreamError).now_or_never().unwrap().unwrap();
    last(&host, &["input_tokens: 0", "cost_nano_usd: NanoUsd(0)", "status: Failed", "upstream_error"]);
    let usage = Usage { input_tokens: 9, output_tokens: 70, source: UsageSource::Estimated, ..Usage::NONE };
    begin_now(&host).unwrap().0.finish(usage, Some(Code::UpstreamError)).now_or_never().unwrap().unwrap();
    last(&host, &["output_tokens: 50", "status: Failed"]);
}

#[test]
fn why_it_is_not_held_is_told() {
    let denied = |ask: &Ask| {
        let _ = ask;
        Ok(Answer::Denied(serde_json::value::to_raw_value(&json!({ "outcome": "model_unpriced" })).unwrap()))
    };
    assert_eq!(begin_now(&host(denied)).unwrap_err(), NotHeld::Denied("The model has no price, so it is not called."));
    let known = |_: &Ask| Ok(Answer::Denied(serde_json::value::to_raw_value(&json!({ "outcome": "use_known" })).unwrap()));
    assert_eq!(begin_now(&host(known)).unwrap_err(), NotHeld::Known);
    assert_eq!(begin_now(&host(|_| Err(CounterUnreachable))).unwrap_err(), NotHeld::Away(CounterUnreachable));
    assert_eq!(begin_now(&host(|_| Ok(Answer::Unavailable))).unwrap_err(), NotHeld::Away(CounterUnreachable));
}

#[test]
fn what_is_full_is_tried_again_when_it_may_help() {
    fn refused(retry_after: Option<i64>) -> NotHeld {
        let refusal = Refusal {
            limit: "maxTokensPerMonth".into(),
            scope: "workspace".into(),
            max: 10,
            used: 8,
            held: 1,
            needs: 5,
            resets_at: None,
            retry_after,
        };
        full(refusal, NOW)
    }
    for (retry_after, millis) in
        [(None, AGAIN_MILLIS), (Some(0), 1_000), (Some(30), 30_000), (Some(86_400), AGAIN_MILLIS), (Some(i64::MAX), AGAIN_MILLIS)]
    {
        let NotHeld::Full { again_at, .. } = refused(retry_after) else { panic!("{retry_after:?}") };
        assert_eq!(again_at, NOW.plus_millis(millis), "{retry_after:?}");
    }
    assert_eq!(refused(None).to_string(), "maxTokensPerMonth does not pay for it: 8 used and 1 held of 10, 5 needed");
}

#[test]
fn a_key_that_cannot_be_opened_gives_the_hold_back() {
    let bad = |ask: &Ask| {
        if matches!(ask, Ask::Finish(_)) {
            return counter(ask);
        }
        Ok(begun(&json!({ "provider": "nobody", "modelId": "m", "endpoint": null })))
    };
    let host = host(bad);
    assert!(matches!(begin_now(&host).unwrap_err(), NotHeld::Denied(_)));
    last(&host, &["cost_nano_usd: NanoUsd(0)", "status: Failed"]);
}
