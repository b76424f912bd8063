//! Paths, problems, browsers, health: all that happens without a turn.

use crate::support::{self, Server, operator};
use http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};

fn header<'a>(answer: &'a reqwest::Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn what_no_function_serves_is_a_problem_with_the_callers_request_id() {
    let server = Server::start(support::pong).await;
    for (method, path, status, code) in [
        (Method::GET, "/", 404, "not_found"),
        (Method::GET, "/workspaces/a/grantz", 404, "not_found"),
        (Method::POST, "/healthz", 405, "method_not_allowed"),
        (Method::DELETE, "/openapi.json", 405, "method_not_allowed"),
        (Method::PATCH, "/workspaces", 405, "method_not_allowed"),
        (Method::OPTIONS, "/workspaces", 405, "method_not_allowed"),
    ] {
        let answer = server.ask(method.clone(), path).header("x-request-id", "mine").send().await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(header(&answer, "x-request-id"), Some("mine"));
        assert_eq!(header(&answer, "content-type"), Some("application/problem+json"));
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["instance"], &problem["requestId"]), (&json!(code), &json!(path), &json!("mine")));
    }
}

#[tokio::test]
async fn the_description_is_the_gateways() {
    let server = Server::start(support::pong).await;
    let answer = server.ask(Method::GET, "/openapi.json").send().await.unwrap();
    assert_eq!((answer.status(), header(&answer, "content-type")), (StatusCode::OK, Some("application/json")));
    assert!(header(&answer, "x-request-id").is_some());
    assert_eq!(answer.text().await.unwrap(), gateway::OPENAPI);
    let answer = server.ask(Method::HEAD, "/openapi.json").send().await.unwrap();
    assert_eq!((answer.status(), answer.text().await.unwrap().as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn health_says_of_each_function_what_it_reaches() {
    let server = Server::start(support::pong).await;
    let answer = server.ask(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let part = json!({ "configuration": "ok", "counter": "ok", "database": "unreachable" });
    let parts = json!({ "provision": part, "invoke-turn": part, "billing": part, "grants": part, "memory": part });
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "status": "degraded", "parts": parts }));
}

#[tokio::test]
async fn without_a_database_each_function_says_when_to_try_again() {
    let server = Server::start(support::pong).await;
    let token = operator();
    for path in ["/workspaces", "/billing/costs", "/workspaces/acme/sessions", "/workspaces/acme/roles"] {
        let answer = server.ask(Method::GET, path).bearer_auth(&token).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (503, Some("1")), "{path}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "unavailable");
    }
    let answer = server.ask(Method::GET, "/workspaces").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "www-authenticate")), (401, Some("Bearer")));
}

#[tokio::test]
async fn allowed_origins_are_named_back_and_others_are_not() {
    let server = Server::start(support::pong).await;
    let preflight = |origin: &'static str| {
        let ask = server.ask(Method::OPTIONS, "/workspaces/a/turns").header("origin", origin);
        ask.header("access-control-request-method", "POST").send()
    };
    let answer = preflight(support::ORIGIN).await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(header(&answer, "access-control-allow-origin"), Some(support::ORIGIN));
    assert_eq!(header(&answer, "access-control-allow-methods"), Some("GET, POST, PUT, PATCH, DELETE"));
    let sent = header(&answer, "access-control-allow-headers").unwrap();
    assert!(["authorization", "idempotency-key"].iter().all(|name| sent.contains(name)), "{sent}");
    assert_eq!((header(&answer, "access-control-max-age"), header(&answer, "vary")), (Some("600"), Some("origin")));
    let answer = preflight("https://app.example.com.evil.org").await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "vary")), (204, Some("origin")));
    assert!(answer.headers().keys().all(|name| !name.as_str().starts_with("access-control")), "{answer:?}");

    let plain = |origin: &'static str| server.ask(Method::GET, "/nowhere").header("origin", origin).send();
    let answer = plain(support::ORIGIN).await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "access-control-allow-origin")), (404, Some(support::ORIGIN)));
    assert_eq!(
        header(&answer, "access-control-expose-headers"),
        Some("x-request-id, retry-after, location, next-cursor, ratelimit, ratelimit-policy")
    );
    assert_eq!(header(&answer, "vary"), Some("origin"));
    let answer = plain("http://app.example.com").await.unwrap();
    assert!(answer.headers().keys().all(|name| !name.as_str().starts_with("access-control")), "{answer:?}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let server = Server::start(support::pong).await;
    for (length, status) in [("1048577", "413"), ("99999999999999", "413")] {
        let head = format!("POST /workspaces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        let answer = server.raw(&head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("payload_too_large"), "{answer}");
    }
    // Without a length it is counted, by a function that knows who is calling.
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter((0..33).map(|_| Ok::<_, std::io::Error>(vec![b' '; 32 * 1024]))));
    let ask = server.ask(Method::POST, "/workspaces").bearer_auth(operator()).header("content-type", "application/json");
    assert_eq!(ask.body(body).send().await.unwrap().status(), 413);
}

#[tokio::test]
async fn a_panic_is_one_clients_alone() {
    let server = Server::start(|_| panic!("as the test wants")).await;
    let ask = || server.ask(Method::GET, "/workspaces/acme/quota").bearer_auth(operator()).header("origin", support::ORIGIN);
    for _ in 0..2 {
        let answer = ask().header("x-request-id", "mine").send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "x-request-id")), (500, Some("mine")));
        assert_eq!(header(&answer, "access-control-allow-origin"), Some(support::ORIGIN));
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "internal");
    }
}
