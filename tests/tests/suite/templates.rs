//! Agent templates: shared source, a tenant's values as data.

use astra_tests::workspace::unique;
use astra_tests::{Aimock, Api, Db, Workspace, canary, guide, template};
use http::Method;
use serde_json::{Value, json};

fn with_prompt(prompt: &str) -> Value {
    let mut agent = template::local("assistant");
    agent["systemPromptTemplate"] = prompt.into();
    agent
}

/// Uploads a template and, when it is taken, asks for a turn: gives the refusal, whichever step it came from.
async fn refusal(agent: &Value) -> Value {
    let ws = Workspace::named(&unique("t"), &astra_tests::workspace::roomy()).await;
    let upload = ws.try_put_template(&template::of(std::slice::from_ref(agent))).await;
    let problem = if upload.status == 200 { ws.turn("hello").await.problem(422, "template_error") } else { upload.ok(422) };
    assert_eq!(Db::connect().await.ledger(&ws.id).await, Vec::<Value>::new(), "nothing is charged");
    if upload_was_taken(&problem) {
        assert_eq!(ws.held().await, 0);
    }
    problem
}

fn upload_was_taken(problem: &Value) -> bool {
    problem["instance"].as_str().is_some_and(|path| path.ends_with("/turns"))
}

#[tokio::test]
async fn an_unknown_variable_is_an_error_that_names_it() {
    for prompt in ["Hi {{workspace.displayNam}}.", "Hi {{secrets}}.", "{{workspace.limits.maxFoo}}", "{{ user.passwd }}"] {
        let problem = refusal(&with_prompt(prompt)).await;
        let word = prompt.split(['.', '{', '}', ' ']).rfind(|word| word.len() > 3).unwrap();
        assert!(problem.to_string().contains(word), "{prompt}: {problem}");
    }
}

#[tokio::test]
async fn what_does_not_parse_is_refused_and_what_does_not_end_is_stopped() {
    for prompt in ["{{", "{% if %}", "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "{% include 'x' %}"]
    {
        let begin = tokio::time::Instant::now();
        refusal(&with_prompt(prompt)).await;
        assert!(begin.elapsed().as_secs() < 10, "{prompt} took {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_tenants_values_are_data_and_never_template_source() {
    let mock = Aimock::start().await;
    mock.answer("hello", "hi", 5, 1).await;
    let (id, plan) = (unique("t"), unique("plan"));
    let name = "{{workspace.limits}} {% for i in range(9) %}x{% endfor %} {# gone? #} ${7*7} <b>&";
    let body = json!({ "id": id, "displayName": name, "plan": plan, "ownerId": "owner@test" });
    Api::operator().post("/workspaces", &body).await.ok(201);
    let path = format!("/plans/{plan}/template");
    let yaml = template::of(&[template::openai("assistant", &mock.openai())]);
    let _ = Api::operator().request(Method::PUT, &path).body("application/yaml", yaml).send().await.expect(200);
    let member = Api::anonymous().with_token(astra_tests::jwt::member(&id, "owner@test", "owner"));
    let key = json!({ "value": canary::key() });
    let _ = Api::operator().put(&format!("/workspaces/{id}/secrets/OPENAI_API_KEY"), &key).await.expect(204);
    member.post(&format!("/workspaces/{id}/turns"), &Workspace::turn_body("hello")).await.ok(200);
    let system = mock.calls("hello").await[0]["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(system.contains(&format!("You are the assistant of {name}.")), "{system}");
}

#[tokio::test]
async fn the_guides_template_renders_its_variables() {
    let mock = Aimock::start().await;
    mock.answer("hello", "hi", 5, 1).await;
    let (id, plan) = (unique("t"), unique("plan"));
    let ws = Workspace { plan: plan.clone(), ..Workspace::named(&id, &json!({ "maxCostUsdPerMonth": 50 })).await };
    let _ = ws.operator.patch(&ws.path(""), &json!({ "plan": plan })).await.expect(200);
    let yaml = guide::ASTRA_YML.replace("provider: openai", &format!("provider: openai\n      endpoint: {}", mock.openai()));
    ws.try_put_template(&yaml).await.ok(200);
    ws.put_secret("OPENAI_API_KEY", &canary::key()).await;
    ws.turn("hello").await.ok(200);
    let call = &mock.calls("hello").await[0];
    let system = call["messages"][0]["content"].as_str().unwrap();
    assert!(system.starts_with(&format!("You are the AI assistant for Test {id}.\n")), "{system}");
    assert!(system.contains("Never reference other customers or other workspaces."), "{system}");
    let allowed = ["max_tokens", "max_completion_tokens"].iter().find_map(|name| call[name].as_i64()).expect("max_tokens is sent");
    assert!(allowed < 4000, "maxTokensPerTurn covers the prompt too: {allowed}");
}

#[tokio::test]
async fn the_same_template_again_keeps_its_version_and_a_change_counts_up() {
    let ws = Workspace::named(&unique("t"), &json!({})).await;
    let put = async |prompt: &str| ws.try_put_template(&template::of(&[with_prompt(prompt)])).await.ok(200)["version"].clone();
    assert_eq!((put("a").await, put("a").await, put("b").await), (json!(1), json!(1), json!(2)));
    let read = ws.operator.get(&format!("/plans/{}/template", ws.plan)).await.expect(200);
    assert!(String::from_utf8_lossy(&read.body).contains("systemPromptTemplate"), "{read:?}");
}

#[tokio::test]
async fn a_template_is_the_operators_and_is_read_strictly() {
    let ws = Workspace::local().await;
    let path = format!("/plans/{}/template", ws.plan);
    let yaml = template::of(&[template::local("assistant")]);
    for who in [&ws.owner, &ws.user("a", "admin").await, &ws.member] {
        who.request(Method::PUT, &path).body("application/yaml", yaml.clone()).send().await.problem(403, "forbidden");
    }
    let cases = [
        "agents: [",                                                 // no YAML
        "just text",                                                 // no template
        "agents: []\ncolor: red",                                    // an unknown field
        "agents:\n  - id: a\n    colour: red",                       // an unknown field within
        "agents:\n  - displayName: nameless",                        // no id
        "agents:\n  - {id: a, model: {provider: acme, modelId: x}}", // an unknown provider
        "agents:\n  - {id: a}\n  - {id: a}",                         // twice
        "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nagents: [*e,*e,*e,*e]", // a bomb
    ];
    for yaml in cases {
        let reply = ws.try_put_template(yaml).await;
        assert!([400, 422].contains(&reply.status), "{yaml}: {reply:?}");
    }
    let reply = ws.operator.request(Method::PUT, &path).body("text/csv", yaml).send().await;
    assert!([200, 415].contains(&reply.status), "{reply:?}");
}
