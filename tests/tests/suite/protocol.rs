//! What holds for every route: problems, request ids, CORS, sizes.

use astra_tests::workspace::unique;
use astra_tests::{Api, Workspace, api::Request, environment, wait};
use http::Method;
use serde_json::json;
use std::time::Duration;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn an_unknown_path_is_a_404_problem_and_a_wrong_method_a_405() {
    let ws = Workspace::local().await;
    let ask = async |method: Method, path: &str| ws.owner.request(method, path).undocumented().send().await;
    for path in
        ["/", "/nowhere", "/workspaces/x/nowhere", "/workspaces/x/turns/y/z", "/plans", "/.env", "/workspaces/../healthz/x", "/WORKSPACES"]
    {
        ask(Method::GET, path).await.problem(404, "not_found");
    }
    for (method, path) in [
        (Method::DELETE, "/workspaces".to_owned()),
        (Method::PUT, ws.path("")),
        (Method::PATCH, ws.path("/turns")),
        (Method::POST, ws.path("/quota")),
        (Method::POST, "/healthz".to_owned()),
        (Method::DELETE, "/openapi.json".to_owned()),
        (Method::POST, "/billing/costs".to_owned()),
    ] {
        ask(method, &path).await.problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn a_request_id_is_echoed_or_made() {
    let ws = Workspace::local().await;
    let with_id = async |id: &str, path: &str| ws.owner.request(Method::GET, path).header("x-request-id", id).send().await;
    for path in [ws.path(""), ws.path("/quota"), ws.path("/sessions"), "/healthz".to_owned(), "/openapi.json".to_owned()] {
        let id = unique("request");
        assert_eq!(with_id(&id, &path).await.header("x-request-id"), id, "{path}");
    }
    let first = ws.owner.get(&ws.path("")).await;
    let second = ws.owner.get(&ws.path("")).await;
    assert!(first.header("x-request-id").len() >= 16 && first.header("x-request-id") != second.header("x-request-id"));
    for bad in ["x".repeat(500), "a b".to_owned()] {
        let made = with_id(&bad, &ws.path("")).await;
        assert!(!made.header("x-request-id").is_empty() && made.header("x-request-id") != bad, "{made:?}");
    }
    let id = unique("request");
    let problem = with_id(&id, &format!("/workspaces/{}", unique("t"))).await.problem(403, "forbidden");
    assert_eq!(problem["requestId"], id.as_str());
}

/// The answer comes before the body is read, and the connection is closed after it: a client that is still writing may see the one or the other
/// (RFC 9112, 9.6), so the question is asked again until the answer was seen.
async fn refused_early(request: impl Fn() -> Request) {
    let reply = wait::until("an answer", Duration::from_secs(10), async || request().try_send().await).await;
    reply.problem(413, "payload_too_large");
}

#[tokio::test]
async fn a_body_over_one_mebibyte_is_refused_with_and_without_a_declared_length() {
    let ws = Workspace::local().await;
    let big = format!(r#"{{"agentId":"assistant","message":"{}"}}"#, "x".repeat(MIB));
    for path in [ws.path("/turns"), ws.path("/tokens"), "/workspaces".to_owned()] {
        refused_early(|| ws.owner.request(Method::POST, &path).body("application/json", big.clone())).await;
    }
    let undeclared = || {
        let pieces: Vec<Result<_, std::io::Error>> =
            big.as_bytes().chunks(64 * 1024).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
    };
    refused_early(|| ws.owner.request(Method::POST, &ws.path("/turns")).body("application/json", undeclared())).await;
    let fits = format!(r#"{{"agentId":"nobody","message":"{}"}}"#, "x".repeat(MIB - 40));
    assert!(fits.len() <= MIB);
    let reply = ws.owner.request(Method::POST, &ws.path("/turns")).body("application/json", fits).send().await;
    assert!([403, 422].contains(&reply.status), "the limit is the limit, not below: {}", reply.status);
}

#[tokio::test]
async fn a_body_that_is_no_json_is_told_from_one_that_does_not_fit() {
    let ws = Workspace::local().await;
    let send = async |content_type: &str, body: &str| {
        ws.member.request(Method::POST, &ws.path("/turns")).body(content_type, body.to_owned()).send().await
    };
    for body in ["", "{", "{\"agentId\": }", "nonsense", "{} {}", "\u{feff}{}", r#"{"agentId":"\ud800"}"#, &"[".repeat(100_000)] {
        let reply = send("application/json", body).await;
        assert!([400, 422].contains(&reply.status), "{body:.20}: {reply:?}");
    }
    for body in ["[]", "null", "7", "\"x\"", "{}"] {
        send("application/json", body).await.problem(422, "unprocessable");
    }
    let raw = [b'{', 0xff, 0xfe, b'}'].to_vec();
    let reply = ws.member.request(Method::POST, &ws.path("/turns")).body("application/json", raw).send().await;
    assert!([400, 422].contains(&reply.status), "{reply:?}");
    send("text/plain", "{}").await.problem(415, "unsupported_media_type");
    let twice = send("application/json", r#"{"agentId":"assistant","agentId":"other","message":"x"}"#).await;
    assert_eq!(twice.status, 422, "a field that stands twice: {twice:?}");
}

async fn preflight(origin: &str) -> astra_tests::Reply {
    let request = Api::anonymous().request(Method::OPTIONS, "/workspaces/x/turns").undocumented();
    let request = request.header("origin", origin).header("access-control-request-method", "POST");
    request.header("access-control-request-headers", "authorization,content-type,idempotency-key").try_send().await.expect("an answer")
}

#[tokio::test]
async fn an_allowed_origin_may_call_and_read_and_any_other_may_not() {
    let allowed = environment::allowed_origin();
    let ws = Workspace::local().await;
    let good = preflight(&allowed).await;
    assert!([200, 204].contains(&good.status) && good.header("access-control-allow-origin") == allowed, "{good:?}");
    assert!(good.header("access-control-allow-methods").contains("POST"));
    let headers = good.header("access-control-allow-headers").to_lowercase();
    for name in ["authorization", "content-type", "idempotency-key"] {
        assert!(headers.contains(name), "{headers}");
    }
    let get = async |origin: &str| ws.owner.request(Method::GET, &ws.path("")).header("origin", origin).send().await;
    let reply = get(&allowed).await.expect(200);
    assert_eq!(reply.header("access-control-allow-origin"), allowed);
    assert!(reply.header("access-control-expose-headers").to_lowercase().contains("x-request-id"));
    assert!(reply.header("vary").to_lowercase().contains("origin"));
    assert!(reply.headers.get("access-control-allow-credentials").is_none(), "tokens are no cookies");
    // Problems too, or a browser could not read them.
    let refused = Api::anonymous().request(Method::GET, &ws.path("")).header("origin", &allowed).send().await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, allowed.as_str()));

    let others = [
        format!("{allowed}.evil.example"),
        allowed.replace("https://", "http://").replace("http://http", "http"),
        format!("{allowed}:8443"),
        allowed.to_uppercase(),
        "https://evil.example".to_owned(),
        "null".to_owned(),
    ];
    for origin in others.iter().filter(|o| **o != allowed) {
        assert!(preflight(origin).await.headers.get("access-control-allow-origin").is_none(), "{origin}");
        assert!(get(origin).await.headers.get("access-control-allow-origin").is_none(), "{origin}");
    }
}

#[tokio::test]
async fn healthz_tells_which_parts_are_reachable_to_anybody() {
    let health = Api::anonymous().get("/healthz").await.ok(200);
    // On Lambda nobody stands in front who could ask them all: the function that answers tells of itself.
    let parts =
        if environment::host() == "lambda" { &["provision"][..] } else { &["provision", "invoke-turn", "billing", "grants", "memory"] };
    for part in parts {
        assert_eq!(health["parts"][part], json!({ "configuration": "ok", "counter": "ok", "database": "ok" }), "{part}: {health}");
    }
    assert!(!health.to_string().contains("postgres://"), "{health}");
}

#[tokio::test]
async fn head_and_odd_requests_are_no_fault() {
    let ws = Workspace::local().await;
    for (method, path) in [
        (Method::HEAD, "/healthz".to_owned()),
        (Method::HEAD, ws.path("")),
        (Method::GET, ws.path("/agents/%00")),
        (Method::GET, ws.path("/agents/%ff%fe")),
        (Method::GET, ws.path("/secrets/%2e%2e%2f")),
        (Method::GET, ws.path(&format!("/secrets/{}", "x".repeat(6000)))),
        (Method::GET, format!("/workspaces/{}", "%F0%9F%A6%80")),
        (Method::GET, ws.path("/sessions?limit=18446744073709551616")),
        (Method::GET, ws.path("/sessions?after=%00")),
        (Method::GET, ws.path("/members?after=%00")),
        (Method::GET, ws.path("/usage?month=%00")),
        (Method::GET, ws.path("/usage?month=9999-12")),
        (Method::GET, ws.path("/usage?month=0000-00")),
        (Method::GET, "/billing/costs?after=x".to_owned()),
    ] {
        for caller in [&ws.owner, &ws.operator] {
            let reply = caller.request(method.clone(), &path).undocumented().send().await;
            assert!(reply.status < 500, "{method} {path}: {reply:?}");
        }
    }
    let put = ws.owner.put(&ws.path("/members/%00"), &json!({ "role": "member" })).await;
    assert!(put.status < 500, "{put:?}");
}
