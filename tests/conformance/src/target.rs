//! What is tested: anything in front of a model that keeps a budget for many customers. An adapter says how a customer gets one and how a request is made;
//! all that is judged is judged by the model's journal, what callers were answered, and what the target says is taken of a budget.

use crate::mock::{Ask, MODEL, Mock, UNPRICED};
use reqwest::{Client, RequestBuilder, StatusCode};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Somebody with a budget.
#[derive(Debug, Clone)]
pub struct Customer {
    /// The name, which nobody had before.
    pub id: String,
    /// What their requests show.
    pub token: String,
    /// The most that an answer may have.
    pub max_tokens: i64,
    /// The model that they ask.
    pub model: &'static str,
}

impl Customer {
    /// Of a name that nobody had.
    pub fn new(token: impl Into<String>, max_tokens: i64, model: &'static str) -> Self {
        Self { id: format!("c-{}", &uuid::Uuid::new_v4().simple().to_string()[..16]), token: token.into(), max_tokens, model }
    }
}

/// An adapter. Money is in nano-dollars. What cannot be done is a panic: there is nothing to measure then.
pub trait Target: Sync {
    /// The column's title.
    fn name(&self) -> String;

    /// Its processes over one state, by their base URLs.
    fn doors(&self) -> Vec<String>;

    /// Whether a scenario says anything about it.
    fn plays(&self, _scenario: &str) -> bool {
        true
    }

    /// For how long it may hold the budget of a request that nothing is heard of any more.
    fn lease(&self) -> Duration;

    /// A customer with a limit. An error when the target does not take such a one.
    fn customer(
        &self,
        http: &Client,
        limit: i64,
        max_tokens: i64,
        model: &'static str,
    ) -> impl Future<Output = Result<Customer, String>> + Send;

    /// Changes the limit.
    fn limit(&self, http: &Client, customer: &Customer, limit: i64) -> impl Future<Output = ()> + Send;

    /// What is taken of the budget, used and held.
    fn taken(&self, http: &Client, customer: &Customer) -> impl Future<Output = i64> + Send;

    /// The first process dies, by `kill -9`, and starts again; done when it answers.
    fn crash(&self, http: &Client) -> impl Future<Output = ()> + Send;

    /// A request to one of the doors: as `OpenAI`'s API has it, unless an adapter knows better.
    fn request(&self, http: &Client, door: &str, customer: &Customer, message: &str, streamed: bool) -> RequestBuilder {
        let mut body = serde_json::json!({ "model": customer.model, "max_tokens": customer.max_tokens, "stream": streamed,
            "messages": [{ "role": "user", "content": message }] });
        if streamed {
            body["stream_options"] = serde_json::json!({ "include_usage": true });
        }
        let request = http.post(format!("{door}/chat/completions")).bearer_auth(&customer.token);
        request.header("content-type", "application/json").body(body.to_string())
    }
}

/// How a request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer was read to its end.
    Whole(String),
    /// Refused for want of budget; try again after so many seconds, if that was said.
    Refused(Option<u64>),
    /// Anything else, or an answer that broke.
    Failed(String),
}

/// A target, the model behind it, and a client for both.
#[derive(Debug)]
pub struct World<'a, T> {
    /// The target.
    pub target: &'a T,
    /// The model.
    pub model: &'a Mock,
    /// The client.
    pub http: Client,
}

impl<'a, T: Target> World<'a, T> {
    /// Puts them together.
    ///
    /// # Panics
    /// When no client can be made.
    pub fn new(target: &'a T, model: &'a Mock) -> Self {
        let http = Client::builder().no_proxy().timeout(Duration::from_mins(2)).build().expect("an HTTP client is made");
        Self { target, model, http }
    }

    /// A customer of the model that has a price.
    ///
    /// # Panics
    /// When the target does not take them.
    pub async fn customer(&self, limit: i64, max_tokens: i64) -> Customer {
        let made = self.target.customer(&self.http, limit, max_tokens, MODEL).await;
        made.unwrap_or_else(|refused| panic!("{}: no customer: {refused}", self.target.name()))
    }

    /// A customer of the model that has no price.
    ///
    /// # Errors
    /// When the target does not take them.
    pub async fn unpriced(&self, limit: i64) -> Result<Customer, String> {
        self.target.customer(&self.http, limit, 400, UNPRICED).await
    }

    /// Sends a request through a door; what comes is not read yet.
    ///
    /// # Errors
    /// When nothing comes.
    pub async fn send(&self, door: usize, customer: &Customer, ask: &Ask, streamed: bool) -> Result<reqwest::Response, reqwest::Error> {
        let doors = self.target.doors();
        self.target.request(&self.http, &doors[door % doors.len()], customer, &ask.message(), streamed).send().await
    }

    /// Sends a request and reads the answer to its end.
    pub async fn ask(&self, door: usize, customer: &Customer, ask: &Ask, streamed: bool) -> Reply {
        let response = match self.send(door, customer, ask, streamed).await {
            Ok(response) => response,
            Err(error) => return Reply::Failed(error.to_string()),
        };
        let (status, retry_after) = (response.status(), response.headers().get("retry-after").cloned());
        let text = match response.text().await {
            Ok(text) => text,
            Err(error) => return Reply::Failed(error.to_string()),
        };
        match status {
            StatusCode::OK => Reply::Whole(text),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYMENT_REQUIRED => {
                Reply::Refused(retry_after.and_then(|value| value.to_str().ok()?.parse().ok()))
            }
            status => Reply::Failed(format!("{status} {text}")),
        }
    }

    /// Asks as client libraries do: while a refusal says that a few seconds help it is asked again, for half a minute; where it says nothing, twice.
    pub async fn persist(&self, door: usize, customer: &Customer, ask: &Ask, streamed: bool) -> Reply {
        let (until, mut tries) = (Instant::now() + Duration::from_secs(30), 0);
        loop {
            let reply = self.ask(door, customer, ask, streamed).await;
            tries += 1;
            let wait = match reply {
                Reply::Refused(Some(seconds)) if seconds <= 5 && Instant::now() < until => Duration::from_secs(seconds),
                Reply::Refused(None) if tries < 3 => Duration::from_millis(500 * tries),
                reply => return reply,
            };
            sleep(wait).await;
        }
    }

    /// What is taken when the model is done with a customer and nothing changes any more, or after a while.
    pub async fn settled(&self, customer: &Customer, at_most: Duration) -> i64 {
        let until = Instant::now() + at_most;
        let (mut taken, mut since) = (self.target.taken(&self.http, customer).await, Instant::now());
        while Instant::now() < until {
            sleep(Duration::from_millis(200)).await;
            let now = self.target.taken(&self.http, customer).await;
            if now != taken || self.model.calls(&customer.id).iter().any(|call| !call.over) {
                (taken, since) = (now, Instant::now());
            } else if since.elapsed() > Duration::from_millis(2500) {
                break;
            }
        }
        taken
    }
}
