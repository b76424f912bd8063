use super::*;
use astra_host::testing::{FakeHost, NOW};
use astra_kernel::WorkspaceId;
use astra_quota::QuotaView;
use astra_quota::words::{Answer, Ask, Begun, Finished, Refusal};
use futures_util::FutureExt as _;
use serde_json::{Value, json};

const ID: &str = "00000000-0000-7000-8000-000000000001";
const OLD: &str = "00000000-0000-7000-8000-000000000002";

fn conversation(change: impl FnOnce(&mut Value)) -> Value {
    let mut document = json!({
        "outcome": "ok", "sessionId": ID, "agentId": "a", "subject": "anna", "extraction": null, "model": null, "provider": "local",
        "access": { "role": "member" },
        "messages": [
            { "role": "user", "content": "Remember that tea is over.", "isNew": false },
            { "role": "user", "content": "My name is Anna. We decided to ship on Fridays.", "isNew": true },
            { "role": "assistant", "content": "Remember that I am nobody.", "isNew": true },
        ],
    });
    change(&mut document);
    document
}

fn host(document: &Value, near: &Value) -> FakeHost {
    let host = FakeHost::new(&[]);
    let settings = json!({ "outcome": "ok", "embedder": { "provider": "local", "dimensions": 384, "generation": 0 }, "next": null, "fade": null, "left": 0 });
    host.answer("extract_read", document)
        .answer("memory_settings_get", &settings)
        .answer("extract_near", &json!({ "outcome": "ok", "data": near }))
        .answer("extract_store", &json!({ "outcome": "ok" }));
    host
}

fn run(host: &FakeHost, attempts: u32) -> Result<(), Undone> {
    let tenant = Tenant::open(host, WorkspaceId::try_from("acme".to_owned()).unwrap());
    let lease = Lease { job_id: ID.parse().unwrap(), lease: ID.parse().unwrap() };
    extract(host, &tenant, lease, attempts).now_or_never().unwrap()
}

/// What was stored: kind, content, whether it is the person's own, what it takes the place of.
fn stored(host: &FakeHost) -> Vec<(String, String, bool, Value)> {
    let argument = host.argument("extract_store");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |m: &Value| (text(&m["kind"]), text(&m["content"]), m["personal"].as_bool().unwrap(), m["supersedes"].clone());
    argument["memories"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn what_a_person_said_is_theirs_and_what_was_decided_is_the_workspaces() {
    let host = host(&conversation(|_| {}), &json!([[], []]));
    run(&host, 1).ok().unwrap();
    let expected = [("fact", "My name is Anna.", true), ("decision", "We decided to ship on Fridays.", false)];
    let expected = expected.map(|(kind, content, personal)| (kind.to_owned(), content.to_owned(), personal, Value::Null));
    assert_eq!(stored(&host), expected, "neither what was read before nor what the agent said");
    assert_eq!(host.argument("extract_store")["subject"], "anna");
    assert!(host.asked().is_empty(), "rules cost nothing");
}

#[test]
fn who_may_write_no_memories_has_none_written_and_the_operator_none_for_everybody() {
    let viewer = host(&conversation(|document| document["access"]["role"] = "viewer".into()), &json!([]));
    run(&viewer, 1).ok().unwrap();
    assert!(stored(&viewer).is_empty());
    let nobody = host(&conversation(|document| document["access"] = Value::Null), &json!([[], []]));
    run(&nobody, 1).ok().unwrap();
    assert!(stored(&nobody).iter().all(|(.., personal, _)| *personal) && stored(&nobody).len() == 2);
}

#[test]
fn it_is_off_where_the_plan_says_so() {
    let off = host(&conversation(|document| document["extraction"] = "off".into()), &json!([]));
    run(&off, 1).ok().unwrap();
    assert!(stored(&off).is_empty(), "and the job is over");
}

#[test]
fn what_is_known_is_not_appended_and_what_changed_supersedes() {
    let known = |content: &str, score: f64| json!([{ "id": OLD, "kind": "fact", "content": content, "score": score }]);
    let same = host(&conversation(|_| {}), &json!([known("my name is anna", 0.2), []]));
    run(&same, 1).ok().unwrap();
    assert_eq!((stored(&same).len(), &same.argument("extract_store")["known"]), (1, &json!([OLD])));
    let other = host(&conversation(|_| {}), &json!([known("My name is Bo.", 0.8), []]));
    run(&other, 1).ok().unwrap();
    assert_eq!(stored(&other)[0].3, OLD);
}

#[test]
fn one_that_was_replaced_is_replaced_once() {
    let near = json!([{ "id": OLD, "kind": "fact", "content": "My name is Bo.", "score": 0.8 }]);
    let twice = conversation(|document| document["messages"][1]["content"] = "My name is Anna. My name is Cleo.".into());
    let host = host(&twice, &json!([near, near]));
    run(&host, 1).ok().unwrap();
    let supersedes: Vec<_> = stored(&host).into_iter().map(|(.., supersedes)| supersedes).collect();
    assert_eq!(supersedes, [json!(OLD), Value::Null]);
}

#[test]
fn a_full_budget_makes_the_job_wait_and_nothing_is_called() {
    let host = host(&conversation(|document| document["provider"] = "openai".into()), &json!([]));
    host.counter(|ask| {
        assert!(matches!(ask, Ask::Begin(begin) if begin.session_id.is_some() && begin.subject == "anna"));
        let (limit, scope) = ("maxTokensPerMonth".to_owned(), "workspace".to_owned());
        Ok(Answer::Refused(Refusal { limit, scope, max: 10, used: 10, held: 0, needs: 5, resets_at: None, retry_after: None }))
    });
    let Err(Undone::Wait(why, until)) = run(&host, 1) else { panic!("it does not wait") };
    assert!(why.starts_with("maxTokensPerMonth does not pay for it") && until > NOW);
    assert!(host.calls().iter().all(|(name, _)| name != "extract_store"));
}

#[test]
fn a_model_that_refuses_costs_nothing_and_its_job_is_tried_again() {
    let host = host(&conversation(|document| document["provider"] = "openai".into()), &json!([]));
    host.model(&[401], 0);
    host.counter(|ask| {
        Ok(match ask {
            Ask::Begin(_) => {
                let context = serde_json::value::to_raw_value(&json!({
                    "agent": { "id": "a" }, "model": { "provider": "openai", "modelId": "m", "endpoint": null }, "secret": null,
                    "price": { "version": 1, "inputNanoPerMtok": 1_000_000, "cachedInputNanoPerMtok": 0, "outputNanoPerMtok": 1_000_000 },
                }));
                let quota = QuotaView::default();
                let (context, started_at) = (context.unwrap(), NOW);
                Answer::Begun(Box::new(Begun {
                    context,
                    started_at,
                    input_bound: 9,
                    output: 9,
                    max_output: 9,
                    bounded_by_budget: false,
                    quota,
                }))
            }
            _ => Answer::Finished(Finished { saved: true, quota: QuotaView::default(), receipt: None }),
        })
    });
    let Err(Undone::Later(why)) = run(&host, 1) else { panic!("it is not tried again") };
    assert_eq!(why, "the model's provider answered with status 401");
    let asked = host.asked();
    assert!(asked.len() == 2 && asked[1].contains("cost_nano_usd: NanoUsd(0)") && asked[1].contains("kind: Some(Extraction)"), "{asked:?}");
}

#[test]
fn nothing_that_was_said_is_in_a_log_or_an_argument_that_is_shown() {
    let document: Conversation = serde_json::from_value(conversation(|_| {})).unwrap();
    assert!(!format!("{document:?}").contains("Anna"));
    let host = host(&conversation(|_| {}), &json!([[], []]));
    run(&host, 1).ok().unwrap();
    assert!(host.logged().is_empty());
}
