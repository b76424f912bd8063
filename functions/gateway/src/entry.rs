//! The Workers entry. Requests and answers stay the runtime's own objects, so that their bodies are piped by it.

use crate::rules::{self, Function};
use astra_kernel::{Code, Problem, ids};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;
use worker::{Env, Headers, ResponseBuilder};

#[wasm_bindgen]
extern "C" {
    /// A service binding. (`worker::Fetcher` would turn the answer into Rust's types and pump its body through them.)
    type Service;

    #[wasm_bindgen(method, catch)]
    fn fetch(this: &Service, request: &web_sys::Request) -> Result<js_sys::Promise, JsValue>;
}

#[worker::event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, _context: worker::Context) -> worker::Result<web_sys::Response> {
    let headers = Headers(request.headers());
    let origin = headers.get("origin")?.unwrap_or_default();
    let allowed = !origin.is_empty() && rules::origin_is_allowed(&origin, &setting(&env, "ALLOWED_ORIGINS"));
    let method = request.method();
    if method == "OPTIONS" && headers.has("access-control-request-method")? {
        return preflight(&origin, allowed);
    }
    let response = answer(&request, &headers, &method, &env).await?;
    if allowed { with_cors(&response, &origin) } else { Ok(response) }
}

async fn answer(request: &web_sys::Request, headers: &Headers, method: &str, env: &Env) -> worker::Result<web_sys::Response> {
    let url = web_sys::Url::new(&request.url())?;
    let path = url.pathname();
    let refuse = |problem: &Problem| problem_response(problem, &path, headers);
    match (method, path.as_str()) {
        ("GET" | "HEAD", "/openapi.json") => return json_response(200, crate::OPENAPI.to_owned(), headers),
        ("GET" | "HEAD", "/healthz") => return health(env, headers).await,
        (_, "/openapi.json" | "/healthz") => return refuse(&Problem::new(Code::MethodNotAllowed, "This route has GET only.")),
        _ => {}
    }
    let Some(function) = rules::function_for(&path) else {
        return refuse(&Problem::new(Code::NotFound, "No such route. GET /openapi.json lists them."));
    };
    let limit = rules::body_limit(&path);
    if !rules::length_is_acceptable(headers.get("content-length")?.as_deref(), limit) {
        return refuse(&Problem::new(Code::PayloadTooLarge, format!("The body is larger than {limit} bytes.")));
    }
    match call(env, function, request).await {
        Ok(response) => Ok(response),
        Err(error) => {
            worker::console_error!(
                "{}",
                serde_json::json!({ "event": "gateway", "function": function.name(), "error": error.to_string() })
            );
            let detail = format!("The function {} cannot be reached. Try again.", function.name());
            refuse(&Problem::new(Code::Unavailable, detail).with_retry_after(1))
        }
    }
}

async fn call(env: &Env, function: Function, request: &web_sys::Request) -> worker::Result<web_sys::Response> {
    let service: Service = env.service(function.binding())?.into_rpc();
    Ok(JsFuture::from(service.fetch(request)?).await?.dyn_into()?)
}

/// Asks every function what it can reach.
async fn health(env: &Env, headers: &Headers) -> worker::Result<web_sys::Response> {
    let mut parts = serde_json::Map::new();
    let mut well = true;
    for function in Function::ALL {
        let request = web_sys::Request::new_with_str("https://function/healthz")?;
        let said = if let Ok(response) = call(env, function, &request).await {
            let text = JsFuture::from(response.text()?).await?.as_string().unwrap_or_default();
            well &= response.ok();
            serde_json::from_str(&text).unwrap_or_else(|_| "failing".into())
        } else {
            well = false;
            "unreachable".into()
        };
        parts.insert(function.name().to_owned(), said);
    }
    let body = serde_json::json!({ "status": if well { "ok" } else { "degraded" }, "parts": parts });
    json_response(if well { 200 } else { 503 }, body.to_string(), headers)
}

fn setting(env: &Env, name: &str) -> String {
    env.var(name).map(|v| v.to_string()).unwrap_or_default()
}

fn preflight(origin: &str, allowed: bool) -> worker::Result<web_sys::Response> {
    let headers = Headers::new();
    headers.set("vary", "origin")?;
    if allowed {
        headers.set("access-control-allow-origin", origin)?;
        for (name, value) in rules::PREFLIGHT {
            headers.set(name, value)?;
        }
    }
    Ok(ResponseBuilder::new().with_status(204).with_headers(headers).empty().into())
}

fn with_cors(response: &web_sys::Response, origin: &str) -> worker::Result<web_sys::Response> {
    // A fetched answer's headers cannot be changed; a new answer takes its body over as it is.
    let headers = Headers(web_sys::Headers::new_with_headers(&response.headers())?);
    headers.set("access-control-allow-origin", origin)?;
    headers.set("access-control-expose-headers", rules::EXPOSED_HEADERS)?;
    headers.append("vary", "origin")?;
    let init = web_sys::ResponseInit::new();
    init.set_status(response.status());
    init.set_headers(&headers.0);
    Ok(web_sys::Response::new_with_opt_readable_stream_and_init(response.body().as_ref(), &init)?)
}

fn json_response(status: u16, body: String, request: &Headers) -> worker::Result<web_sys::Response> {
    let headers = Headers::new();
    headers.set("content-type", "application/json")?;
    headers.set("x-request-id", &request_id(request))?;
    Ok(ResponseBuilder::new().with_status(status).with_headers(headers).fixed(body.into_bytes()).into())
}

fn problem_response(problem: &Problem, path: &str, request: &Headers) -> worker::Result<web_sys::Response> {
    let request_id = request_id(request);
    let headers = Headers::new();
    headers.set("content-type", "application/problem+json")?;
    headers.set("x-request-id", &request_id)?;
    if let Some(seconds) = problem.retry_after {
        headers.set("retry-after", &seconds.to_string())?;
    }
    let body = serde_json::to_vec(&problem.document(path, &request_id))?;
    Ok(ResponseBuilder::new().with_status(problem.code.status()).with_headers(headers).fixed(body).into())
}

fn request_id(request: &Headers) -> String {
    let sent = request.get("x-request-id").ok().flatten();
    let fits = |id: &String| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    sent.filter(fits).unwrap_or_else(|| {
        let mut random = [0; 10];
        // Without randomness the id is less unique, and still an id.
        let _ = getrandom::fill(&mut random);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds since 1970")]
        ids::uuid_v7(js_sys::Date::now() as u64, random).to_string()
    })
}
