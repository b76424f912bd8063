//! What is refused before anything is asked of the counter.

use astra_host::testing::{FakeHost, send, token};
use invoke_turn::routes::router;

async fn refused(path: &str, body: &str) -> String {
    let host = FakeHost::new(&[]);
    let reply = send(&router::<FakeHost>(), &host, "POST", path, Some(&token(Some("acme"), "owner", None)), body).await;
    assert!(host.asked().is_empty() && host.calls().is_empty(), "{body}");
    reply.problem(422)
}

#[tokio::test]
async fn an_object_is_not_an_array() {
    const SESSION: &str = "0199c0de-0000-7000-8000-000000000000";
    let whole = format!(r#"["assistant","hello","{SESSION}",false,{{}}]"#);
    for (body, pointer) in [
        (r#"["assistant","hello"]"#, "/"),
        (&whole, "/"),
        ("[]", "/"),
        ("null", "/"),
        (r#"{"agentId":"assistant","message":"hello","metadata":[["a",1]]}"#, "/metadata"),
        (r#"{"agentId":"assistant","message":["hello"]}"#, "/message"),
        (r#"{"agentId":["assistant"],"message":"hello"}"#, "/agentId"),
    ] {
        assert_eq!(refused("/workspaces/acme/turns", body).await, pointer, "{body}");
    }
    for body in [r#"["assistant"]"#, "[]"] {
        assert_eq!(refused("/workspaces/acme/smoke-test", body).await, "/", "{body}");
    }
}
