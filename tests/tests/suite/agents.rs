//! A workspace's agents: its plan's, and its own.

use astra_tests::workspace::unique;
use astra_tests::{Aimock, Workspace, template};
use serde_json::{Value, json};

/// A definition as `PUT /workspaces/{id}/agents/{agentId}` takes it: the name is in the path.
fn definition(prompt: &str) -> Value {
    let mut agent = template::local("x");
    agent.as_object_mut().unwrap().remove("id");
    agent["systemPromptTemplate"] = prompt.into();
    agent
}

async fn ids(ws: &Workspace) -> Vec<String> {
    let list = ws.member.get(&ws.path("/agents")).await.ok(200);
    list["data"].as_array().expect("data").iter().map(|a| a["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn all_workspaces_of_a_plan_share_its_agents_and_each_sees_its_own_name() {
    let mock = Aimock::start().await;
    mock.answer("who", "me", 5, 1).await;
    let first = Workspace::openai(&mock.openai()).await;
    let second = Workspace::named(&unique("t"), &json!({})).await;
    let _ = second.operator.patch(&second.path(""), &json!({ "plan": first.plan })).await.expect(200);
    second.put_secret("OPENAI_API_KEY", &astra_tests::canary::key()).await;
    for ws in [&first, &second] {
        assert_eq!(ids(ws).await, ["assistant"]);
        ws.turn(&format!("who is {}", ws.id)).await.ok(200);
        let call = &mock.calls(&format!("who is {}", ws.id)).await[0];
        assert!(call["messages"][0]["content"].as_str().unwrap().contains(&format!("Test {}", ws.id)), "{call}");
    }
}

#[tokio::test]
async fn an_own_agent_hides_the_templates_until_it_is_deleted() {
    let ws = Workspace::local().await;
    let path = ws.path("/agents/assistant");
    let put = ws.owner.put(&path, &definition("Mine.")).await;
    assert!([200, 201, 204].contains(&put.status), "{put:?}");
    let sources = async || ws.owner.get(&ws.path("/agents")).await.ok(200)["data"][0]["source"].clone();
    assert_eq!((ids(&ws).await, sources().await), (vec!["assistant".to_owned()], json!("own")));
    ws.turn("hello").await.ok(200);
    let _ = ws.owner.delete(&path).await.expect(204);
    assert_eq!((ids(&ws).await, sources().await), (vec!["assistant".to_owned()], json!("template")));
    ws.owner.delete(&path).await.problem(404, "not_found");
    ws.member.put(&path, &definition("Not mine.")).await.problem(403, "forbidden");
}

#[tokio::test]
async fn an_agent_that_is_not_the_workspaces_is_refused_the_same_whether_it_exists_or_not() {
    let (a, b) = (Workspace::local().await, Workspace::local().await);
    let put = b.owner.put(&b.path("/agents/private"), &definition("Of B only.")).await;
    assert!(put.status < 300, "{put:?}");
    let refused = async |agent: &str| {
        let body = json!({ "agentId": agent, "message": "hello" });
        let mut problem = a.member.post(&a.path("/turns"), &body).await.problem(403, "forbidden");
        problem["requestId"] = Value::Null;
        problem.to_string().replace(agent, "AGENT")
    };
    assert_eq!(refused("private").await, refused("nowhere").await);
}

#[tokio::test]
async fn only_the_operator_points_an_agent_at_an_address() {
    let ws = Workspace::local().await;
    let mut agent = definition("x");
    // One that would be taken of the operator, too: else it would be its form that is refused.
    for endpoint in ["https://169.254.169.254/v1", "http://169.254.169.254/v1", "https://models.example.com/v1"] {
        agent["model"] = json!({ "provider": "openai", "modelId": "gpt-4o-mini", "endpoint": endpoint });
        for who in [&ws.owner, &ws.user("a", "admin").await] {
            who.put(&ws.path("/agents/mine"), &agent).await.problem(403, "forbidden");
        }
    }
    assert_eq!(ids(&ws).await, ["assistant"]);
}

#[tokio::test]
async fn an_unknown_field_in_an_agent_is_refused_by_name() {
    let ws = Workspace::local().await;
    let mut agent = definition("x");
    agent["budget"] = json!({ "maxTokensPerTurnn": 1 });
    let problem = ws.owner.put(&ws.path("/agents/mine"), &agent).await.problem(422, "unprocessable");
    assert!(problem["errors"][0]["pointer"].as_str().is_some_and(|p| p.contains("maxTokensPerTurnn")), "{problem}");
}
