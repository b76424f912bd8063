//! Cloudflare Workers. A request's host is its `Env` and `Context`; both are JavaScript values, so they are wrapped here and nowhere else.

use crate::outgoing::{Answered, NotAnswered, Outgoing};
use crate::{CounterUnreachable, Host, NotConverted, NotFetched, Shared};
use astra_kernel::jwk::PublicKey;
use astra_kernel::{Settings, Timestamp, WorkspaceId};
use astra_quota::words::{self, Answer, Ask};
use astra_store::StoreError;
use axum::Router;
use send_wrapper::SendWrapper;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;

#[cfg(feature = "database")]
pub mod database;
#[cfg(feature = "http-client")]
mod event_stream;
#[cfg(feature = "http-client")]
mod http_client;
mod outgoing;
mod request;
mod response;

/// The Hyperdrive binding that stands in for `DATABASE_URL` where that is not set.
#[cfg(feature = "database")]
const HYPERDRIVE: &str = "HYPERDRIVE";

/// The binding of the Worker that reads files.
const CONVERT: &str = "CONVERT";

#[wasm_bindgen]
extern "C" {
    /// A Durable Object's stub, or a service binding. (`worker::Stub` would turn request and answer into Rust's types and read the answer as a stream.)
    type Stub;

    #[wasm_bindgen(method, catch)]
    fn fetch(this: &Stub, url: &str, init: &web_sys::RequestInit) -> Result<js_sys::Promise, JsValue>;
}

/// Configuration from a Worker's bindings: variables and secrets have the same names as elsewhere.
struct EnvSettings(SendWrapper<worker::Env>);

impl Settings for EnvSettings {
    fn get(&self, name: &str) -> Option<String> {
        let value = self.0.var(name).ok().map(|v| v.to_string()).filter(|v| !v.is_empty());
        #[cfg(feature = "database")]
        if value.is_none() && name == "DATABASE_URL" {
            return self.0.hyperdrive(HYPERDRIVE).ok().map(|binding| binding.connection_string());
        }
        value
    }
}

/// Configuration, parsed once per isolate: the bindings of a version do not change.
pub fn shared(env: &worker::Env) -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        no_stack_traces();
        Shared::new(Box::new(EnvSettings(SendWrapper::new(env.clone()))))
    })
}

/// What may go on after the answer: a request's, or a cron trigger's.
enum Context {
    Request(worker::Context),
    Schedule(worker::ScheduleContext),
}

impl Context {
    fn wait_until(&self, work: impl Future<Output = ()> + 'static) {
        // What makes a promise of it is in the wasm once, not for each kind of work.
        let work: Pin<Box<dyn Future<Output = ()>>> = Box::pin(work);
        match self {
            Self::Request(context) => context.wait_until(work),
            Self::Schedule(context) => context.wait_until(work),
        }
    }
}

/// The host of one request, or of one run of a schedule.
#[derive(Clone)]
pub struct WorkersHost(Arc<Inner>);

struct Inner {
    env: SendWrapper<worker::Env>,
    context: SendWrapper<Rc<Context>>,
    shared: &'static Shared,
    #[cfg(feature = "database")]
    connection: database::RequestConnection,
}

impl std::fmt::Debug for WorkersHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorkersHost")
    }
}

/// Milliseconds since 1970. On Workers the clock stands still between I/O, so phases are as exact as the runtime lets them be.
pub fn now() -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970 are far below 2^53")]
    Timestamp(js_sys::Date::now() as i64)
}

/// Fills a buffer from the runtime's cryptographic randomness.
///
/// # Panics
/// When the runtime has none, which it always has.
#[expect(clippy::expect_used, reason = "without randomness nothing here may go on")]
pub fn fill_random(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("the runtime's randomness");
}

impl WorkersHost {
    fn new(env: worker::Env, context: Context) -> Self {
        let shared = shared(&env);
        Self(Arc::new(Inner {
            env: SendWrapper::new(env),
            context: SendWrapper::new(Rc::new(context)),
            shared,
            #[cfg(feature = "database")]
            connection: database::RequestConnection::default(),
        }))
    }

    async fn ask_object(&self, workspace: &WorkspaceId, ask: &Ask) -> worker::Result<Answer> {
        let namespace = self.0.env.durable_object(words::BINDING)?;
        let body = serde_json::to_string(&words::Envelope { workspace, ask })?;
        let init = web_sys::RequestInit::new();
        init.set_method("POST");
        init.set_body(&body.into());
        let stub: Stub = namespace.get_by_name(&words::object_name(workspace))?.into_rpc();
        let answer = said(&stub, "https://quota/ask", &init).await?;
        Ok(astra_kernel::json::from_str(&answer)?)
    }

    async fn ask_converter(&self, file: Vec<u8>) -> worker::Result<String> {
        let init = web_sys::RequestInit::new();
        init.set_method("POST");
        init.set_body(&js_sys::Uint8Array::from(file.as_slice()).into());
        drop(file);
        said(&self.0.env.service(CONVERT)?.into_rpc(), "https://convert/", &init).await
    }
}

/// What another Worker or an object says: the body of a 200.
async fn said(stub: &Stub, url: &str, init: &web_sys::RequestInit) -> worker::Result<String> {
    let answer: web_sys::Response = JsFuture::from(stub.fetch(url, init)?).await?.unchecked_into();
    if answer.status() != 200 {
        return Err(worker::Error::RustError(format!("{url} answered {}", answer.status())));
    }
    Ok(JsFuture::from(answer.text()?).await?.as_string().unwrap_or_default())
}

impl Host for WorkersHost {
    fn now(&self) -> Timestamp {
        now()
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        fill_random(buffer);
    }

    fn shared(&self) -> &Shared {
        self.0.shared
    }

    fn ask(&self, workspace: &WorkspaceId, ask: &Ask) -> impl Future<Output = Result<Answer, CounterUnreachable>> + Send {
        SendWrapper::new(async move {
            self.ask_object(workspace, ask).await.map_err(|error| {
                worker::console_error!("{}", serde_json::json!({ "event": "counter", "error": error.to_string() }));
                CounterUnreachable
            })
        })
    }

    fn background(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.context.wait_until(work);
    }

    fn log(&self, line: &str) {
        worker::console_log!("{line}");
    }

    fn verify_signature(&self, key: &PublicKey, signed: &[u8], signature: &[u8]) -> impl Future<Output = bool> + Send {
        SendWrapper::new(outgoing::is_signed(key, signed, signature))
    }

    fn sign(&self, seed: &[u8; 32], bytes: &[u8]) -> impl Future<Output = Option<Vec<u8>>> + Send {
        SendWrapper::new(outgoing::sign(seed, bytes))
    }

    fn public_key(&self, seed: &[u8; 32]) -> impl Future<Output = Option<String>> + Send {
        SendWrapper::new(outgoing::public_key(seed))
    }

    fn fetch_text(&self, url: &str, limit: usize, millis: u32) -> impl Future<Output = Result<String, NotFetched>> + Send {
        SendWrapper::new(outgoing::text(url, limit, millis))
    }

    fn call_out(&self, call: Outgoing) -> impl Future<Output = Result<Answered, NotAnswered>> + Send {
        SendWrapper::new(outgoing::call(call))
    }

    fn convert(&self, file: Vec<u8>) -> impl Future<Output = Result<String, NotConverted>> + Send {
        SendWrapper::new(async move {
            self.ask_converter(file).await.map_err(|error| {
                worker::console_error!("{}", serde_json::json!({ "event": "convert", "error": error.to_string() }));
                NotConverted::Ended
            })
        })
    }

    fn pause(&self, millis: u32) -> impl Future<Output = ()> + Send {
        SendWrapper::new(worker::Delay::from(std::time::Duration::from_millis(millis.into())))
    }
}

#[cfg(feature = "database")]
impl astra_store::Database for WorkersHost {
    fn proof(&self, workspace: &WorkspaceId, actor: &str) -> Result<String, StoreError> {
        Ok(self.0.shared.tenant_keys().map_err(StoreError::NoKeys)?.prove(workspace, actor, now()))
    }

    fn query(&self, statement: &'static str, params: &[&str]) -> impl Future<Output = Result<String, StoreError>> + Send {
        SendWrapper::new(async move {
            let client = self.0.connection.open(self.0.shared, |work| self.0.context.wait_until(work)).await?;
            database::run(&client, statement, params).await
        })
    }
}

#[cfg(not(feature = "database"))]
impl astra_store::Database for WorkersHost {
    fn proof(&self, _: &WorkspaceId, _: &str) -> Result<String, StoreError> {
        Err(StoreError::Unreachable)
    }

    async fn query(&self, _: &'static str, _: &[&str]) -> Result<String, StoreError> {
        Err(StoreError::Unreachable)
    }
}

#[cfg(feature = "http-client")]
impl crate::stream::TurnHost for WorkersHost {
    type Sink = event_stream::Sink;

    fn stream(&self) -> (Self::Sink, axum::response::Response) {
        event_stream::open()
    }
}

/// A function's fetch entry: one router per isolate, one host per request.
///
/// # Errors
/// When the request or the response cannot be turned into the runtime's.
pub async fn fetch(
    function: &'static str,
    router: &'static OnceLock<Router>,
    build: fn() -> Router,
    request: web_sys::Request,
    env: worker::Env,
    context: worker::Context,
) -> worker::Result<web_sys::Response> {
    let request = request::from_runtime(request)?;
    let host = WorkersHost::new(env, Context::Request(context));
    let response = crate::serve(function, router.get_or_init(build), host, request).await;
    response::to_runtime(response).await
}

/// A function's scheduled entry: the host of one run.
pub fn scheduled(env: worker::Env, context: worker::ScheduleContext) -> WorkersHost {
    WorkersHost::new(env, Context::Schedule(context))
}

/// Tasks are queued by promises: workerd's `queueMicrotask` makes a new function object for each call, and a turn has dozens of them.
/// `wasm_bindgen_futures` takes promises where that global is missing, so it is taken away before the first task.
#[wasm_bindgen(start)]
pub fn prefer_promises() {
    let _ = js_sys::Reflect::set(&js_sys::global(), &"queueMicrotask".into(), &JsValue::UNDEFINED);
}

/// Each release of a stream's lock makes an error object, several in a turn, and each notes for nobody where it was made: 2 % of a turn's CPU time.
/// (worker-build's entry asks for a hundred frames; this comes after it.)
fn no_stack_traces() {
    if let Ok(error) = js_sys::Reflect::get(&js_sys::global(), &"Error".into()) {
        let _ = js_sys::Reflect::set(&error, &"stackTraceLimit".into(), &0.into());
    }
}
