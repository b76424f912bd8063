//! The audit log's endpoints: what they ask of the database, and what they answer. That the log is right is for the black-box suite.

use astra_host::testing::{FakeHost, Reply, Sent, send, send_as, token};
use grants::routes::router;
use serde_json::{Value, json};

async fn list(host: &FakeHost, query: &str) -> Reply {
    let path = format!("/workspaces/acme/audit{query}");
    send(&router::<FakeHost>(), host, "GET", &path, Some(&token(Some("acme"), "admin", None)), "").await
}

fn entry() -> Value {
    json!({
        "workspaceId": "acme", "seq": 3, "at": "2026-11-24T12:00:00.000Z", "actor": { "jti": "j", "operator": true, "request": "r", "sub": "anna" },
        "action": "member.add", "target": "bob", "outcome": "allowed", "detail": { "role": "admin" }, "prevHash": "00", "hash": "ff",
    })
}

fn with(entries: &[Value], next: Option<&str>) -> FakeHost {
    let host = FakeHost::new(&[]);
    host.answer("audit_list", &json!({ "outcome": "ok", "data": entries, "next": next }));
    host
}

#[tokio::test]
async fn a_page_is_shown_as_the_database_has_it() {
    let mut nobody = entry();
    nobody["actor"] = Value::Null;
    let host = with(&[entry(), nobody.clone()], Some("2"));
    assert_eq!(list(&host, "").await.ok(200), json!({ "data": [entry(), nobody], "nextCursor": "2" }));
    let asked = host.argument("audit_list");
    assert_eq!(asked["limit"], 50);
    for filter in ["after", "action", "actor", "target", "outcome", "since", "until"] {
        assert!(asked[filter].is_null(), "{asked}");
    }
}

#[tokio::test]
async fn filters_are_asked_for_as_they_are_said() {
    let host = with(&[], None);
    let query = "?after=9&limit=7&action=member.*&actor=an%20na&target=x&outcome=denied&since=2026-11-24T12:00:00Z&until=2026-11-25T00:00:00%2B01:00";
    list(&host, query).await.ok(200);
    assert_eq!(
        host.argument("audit_list"),
        json!({
            "after": 9, "limit": 7, "action": "member.*", "actor": "an na", "target": "x", "outcome": "denied",
            "since": "2026-11-24T12:00:00.000Z", "until": "2026-11-24T23:00:00.000Z",
        })
    );
    for bad in ["after=x", "after=", "limit=0", "limit=201", "outcome=maybe", "since=yesterday", "actor=%00", "color=red"] {
        assert_eq!(list(&with(&[], None), &format!("?{bad}")).await.status, 422, "{bad}");
    }
    let long = format!("?target={}", "x".repeat(513));
    assert_eq!(list(&with(&[], None), &long).await.status, 422);
}

#[tokio::test]
async fn the_same_page_is_csv_for_who_wants_it() {
    let token = token(Some("acme"), "admin", None);
    let host = with(&[entry()], Some("3"));
    let sent = Sent { token: Some(&token), content_type: "", accept: "text/csv", body: String::new() };
    let reply = send_as(&router::<FakeHost>(), &host, "GET", "/workspaces/acme/audit", sent).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.headers["content-type"], "text/csv; charset=utf-8; header=present");
    assert_eq!((&reply.headers["next-cursor"], &reply.headers["vary"]), (&"3".parse().unwrap(), &"accept".parse().unwrap()));
    let lines: Vec<&str> = reply.body.lines().collect();
    assert_eq!(lines[1], r#"acme,3,2026-11-24T12:00:00.000Z,anna,true,j,r,member.add,bob,allowed,"{""role"":""admin""}",00,ff"#);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_broken_is_said() {
    let host = FakeHost::new(&[]);
    host.answer("audit_list", &json!({ "outcome": "not_found", "data": [], "next": null }));
    list(&host, "").await.problem(404);
    for (answer, shown) in [
        (json!({ "outcome": "ok", "entries": 5, "brokenAt": null }), json!({ "ok": true, "entries": 5, "brokenAt": null })),
        (json!({ "outcome": "ok", "entries": 5, "brokenAt": 3 }), json!({ "ok": false, "entries": 5, "brokenAt": 3 })),
    ] {
        host.answer("audit_verify", &answer);
        assert_eq!(list(&host, "/verify").await.ok(200), shown);
    }
    host.answer("audit_verify", &json!({ "outcome": "not_found", "entries": 0, "brokenAt": null }));
    list(&host, "/verify").await.problem(404);
}

#[tokio::test]
async fn who_may_not_is_written_down_once_a_minute() {
    let ask = async |host: &FakeHost, role: &str, scope: Option<&[&str]>| {
        send(&router::<FakeHost>(), host, "GET", "/workspaces/acme/audit", Some(&token(Some("acme"), role, scope)), "").await.problem(403);
    };
    let denied = |because: &str| {
        json!({
            "action": "access.denied", "target": "GET /workspaces/{workspaceId}/audit", "outcome": "denied",
            "detail": { "permission": "audit:read", "because": because },
        })
    };
    let host = with(&[], None);
    for _ in 0..3 {
        ask(&host, "member", None).await;
    }
    assert_eq!(host.audited(), [denied("role")]);
    let host = with(&[], None);
    ask(&host, "admin", Some(&["role:read"])).await;
    assert_eq!(host.audited(), [denied("scope")]);
    let host = with(&[], None);
    host.answer("access", &json!({ "outcome": "no_member" }));
    ask(&host, "admin", None).await;
    assert_eq!(host.audited(), [denied("no_member")]);
    let host = with(&[], None);
    host.answer("access", &json!({ "outcome": "token_revoked" }));
    list(&host, "").await.problem(401);
    assert_eq!(host.audited(), [denied("revoked")]);
}

#[tokio::test]
async fn tokens_of_other_workspaces_and_those_that_are_none_are_no_business_of_the_log() {
    let host = with(&[], None);
    send(&router::<FakeHost>(), &host, "GET", "/workspaces/other/audit", Some(&token(Some("acme"), "owner", None)), "").await.problem(403);
    send(&router::<FakeHost>(), &host, "GET", "/workspaces/acme/audit", None, "").await.problem(401);
    assert_eq!(host.audited(), [json!(null); 0]);
}

#[tokio::test]
async fn a_denial_that_cannot_be_written_down_is_a_denial_and_is_logged() {
    let host = with(&[], None);
    host.fail("audit_add", astra_store::StoreError::Unreachable);
    send(&router::<FakeHost>(), &host, "GET", "/workspaces/acme/audit", Some(&token(Some("acme"), "member", None)), "").await.problem(403);
    assert!(host.logged().iter().any(|line| line.contains("a denial was not written down")), "{:?}", host.logged());
}
