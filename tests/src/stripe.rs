//! Stripe's meters, as its documentation has them: who keeps no rule is told so, and what is taken is added up. Rules, from docs.stripe.com/api/billing/meter-event/create and
//! docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api (read 2026-11-29):
//!
//! - `identifier` is unique within at least 24 hours: again is 400, "An event already exists with identifier …".
//! - `timestamp` is within the past 35 days or at most 5 minutes ahead.
//! - `payload[value]` is a whole number; the event's name is that of an active meter; names are at most 100 characters.
//! - 1,000 calls a second; more is 429.
//! - Taken is not yet counted: an event of a customer that is not there is answered 200 and never added up.
//!
//! It is stricter than Stripe in this: a parameter that it does not know is refused, and so is an `Idempotency-Key`, which would give a 500 again for a day.

use serde_json::json;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// How long an identifier is known, in milliseconds.
const KNOWN: i64 = 24 * 3600 * 1000;

/// How old an event may be, in seconds.
const OLDEST: i64 = 35 * 24 * 3600;

/// How far ahead, in seconds.
const AHEAD: i64 = 5 * 60;

/// How many calls a second.
const RATE: usize = 1000;

/// An event that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its identifier.
    pub identifier: String,
    /// Whose.
    pub customer: String,
    /// How much.
    pub value: i64,
    /// When, in seconds since 1970.
    pub timestamp: i64,
}

/// Stripe. Its clock is whoever's calls it.
#[derive(Debug, Default)]
pub struct Stripe {
    /// The customers that are there.
    pub customers: HashSet<String>,
    /// What was taken, in order.
    pub events: Vec<Event>,
    /// The other answers, in order: status and body.
    pub refused: Vec<(u16, String)>,
    known: HashMap<String, i64>,
    calls: VecDeque<i64>,
    key: String,
    event_name: String,
}

impl Stripe {
    /// An account with this key and one meter.
    pub fn new(key: &str, event_name: &str) -> Self {
        Self { key: key.to_owned(), event_name: event_name.to_owned(), ..Self::default() }
    }

    /// What is added up for a customer.
    pub fn total(&self, customer: &str) -> i64 {
        let counts = self.customers.contains(customer);
        self.events.iter().filter(|event| counts && event.customer == customer).map(|event| event.value).sum()
    }

    /// The answer to a request at a moment (milliseconds since 1970). Names of headers are in lower case.
    pub fn answer(&mut self, now: i64, method: &str, path: &str, headers: &HashMap<String, String>, body: &str) -> (u16, String) {
        let (status, body) = self.judge(now, method, path, headers, body);
        if status != 200 {
            self.refused.push((status, body.clone()));
        }
        (status, body)
    }

    fn judge(&mut self, now: i64, method: &str, path: &str, headers: &HashMap<String, String>, body: &str) -> (u16, String) {
        while self.calls.front().is_some_and(|at| now - at >= 1000) {
            self.calls.pop_front();
        }
        self.calls.push_back(now);
        let error = |status: u16, code: Option<&str>, message: &str| {
            (status, json!({ "error": { "type": "invalid_request_error", "code": code, "message": message } }).to_string())
        };
        if self.calls.len() > RATE {
            return error(429, Some("rate_limit"), "Too many requests");
        }
        let header = |name: &str| headers.get(name).map_or("", String::as_str);
        if header("authorization") != format!("Bearer {}", self.key) {
            return error(401, None, "Invalid API Key provided");
        }
        if header("stripe-version").is_empty() || !header("idempotency-key").is_empty() {
            return error(400, None, "this stub wants a version and no Idempotency-Key");
        }
        match (method, path) {
            ("GET", "/v1/billing/meters?status=active&limit=100") => (200, self.meters()),
            ("POST", "/v1/billing/meter_events") if header("content-type") == "application/x-www-form-urlencoded" => {
                match self.take(now, body) {
                    Ok(taken) => (200, taken),
                    Err((code, message)) => error(400, code, &message),
                }
            }
            _ => error(404, None, "Unrecognized request URL"),
        }
    }

    fn meters(&self) -> String {
        json!({ "object": "list", "url": "/v1/billing/meters", "has_more": false, "data": [{
            "id": "mtr_1", "object": "billing.meter", "event_name": self.event_name, "event_time_window": null, "status": "active",
            "default_aggregation": { "formula": "sum" }, "value_settings": { "event_payload_key": "value" },
            "customer_mapping": { "event_payload_key": "stripe_customer_id", "type": "by_id" } }] })
        .to_string()
    }

    fn take(&mut self, now: i64, body: &str) -> Result<String, (Option<&'static str>, String)> {
        let mut fields = HashMap::new();
        for pair in body.split('&') {
            let (name, value) = pair.split_once('=').ok_or((None, "the body is no form".to_owned()))?;
            let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if !["event_name", "payload[value]", "payload[stripe_customer_id]", "identifier", "timestamp"].contains(&name) || !plain {
                return Err((Some("parameter_unknown"), format!("Received unknown parameter: {name}")));
            }
            if fields.insert(name, value).is_some() {
                return Err((None, format!("{name} stands twice")));
            }
        }
        let field = |name: &'static str| match fields.get(name) {
            Some(value) if !value.is_empty() => Ok(*value),
            _ => Err((Some("parameter_missing"), format!("Missing required param: {name}."))),
        };
        let whole = |name: &'static str| {
            field(name)?.parse::<i64>().map_err(|_| (Some("parameter_invalid_integer"), format!("Invalid integer: {name}")))
        };
        let (identifier, customer) = (field("identifier")?, field("payload[stripe_customer_id]")?);
        let (value, timestamp) = (whole("payload[value]")?, whole("timestamp")?);
        if field("event_name")? != self.event_name {
            return Err((Some("resource_missing"), "No active meter found".to_owned()));
        }
        if identifier.len() > 100 {
            return Err((Some("parameter_invalid_string_length"), "Invalid string: identifier".to_owned()));
        }
        if timestamp < now / 1000 - OLDEST {
            return Err((Some("timestamp_too_far_in_past"), "The timestamp is too far in the past".to_owned()));
        }
        if timestamp > now / 1000 + AHEAD {
            return Err((Some("timestamp_in_future"), "The timestamp is in the future".to_owned()));
        }
        if self.known.get(identifier).is_some_and(|at| now - at < KNOWN) {
            return Err((None, format!("An event already exists with identifier {identifier}.")));
        }
        self.known.insert(identifier.to_owned(), now);
        self.events.push(Event { identifier: identifier.to_owned(), customer: customer.to_owned(), value, timestamp });
        let payload = json!({ "value": value.to_string(), "stripe_customer_id": customer });
        Ok(json!({ "object": "billing.meter_event", "created": now / 1000, "event_name": self.event_name, "identifier": identifier,
            "livemode": false, "payload": payload, "timestamp": timestamp })
        .to_string())
    }
}

/// Serves it over HTTP until the test ends. The clock is the machine's.
pub async fn serve(stripe: Arc<Mutex<Stripe>>, address: &str) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let stripe = Arc::clone(&stripe);
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                loop {
                    if let Some((method, path, headers, body)) = whole(&bytes) {
                        let now = i64::try_from(UNIX_EPOCH.elapsed().unwrap_or_default().as_millis()).unwrap_or(0);
                        let (status, body) =
                            stripe.lock().expect("no test panics while it answers").answer(now, &method, &path, &headers, &body);
                        let head = format!(
                            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                            body.len()
                        );
                        let _ = socket.write_all((head + &body).as_bytes()).await;
                        return;
                    }
                    if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            });
        }
    })
}

/// A request, when all of it is there.
fn whole(bytes: &[u8]) -> Option<(String, String, HashMap<String, String>, String)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let headers: HashMap<_, _> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let body = bytes.get(end + 4..end + 4 + length)?;
    Some((first.next()?, first.next()?, headers, String::from_utf8_lossy(body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_its_rules() {
        let mut stripe = Stripe::new("sk", "usage");
        stripe.customers.insert("cus_1".into());
        let headers: HashMap<_, _> =
            [("authorization", "Bearer sk"), ("stripe-version", "v"), ("content-type", "application/x-www-form-urlencoded")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let now = 1_795_521_600_000;
        let body = |value: &str, id: &str, at: i64| {
            format!("event_name=usage&payload[value]={value}&payload[stripe_customer_id]=cus_1&identifier={id}&timestamp={at}")
        };
        let mut send = |now: i64, body: &str| stripe.answer(now, "POST", "/v1/billing/meter_events", &headers, body);
        assert_eq!(send(now, &body("5", "a", now / 1000)).0, 200);
        let (status, text) = send(now + KNOWN - 1, &body("5", "a", now / 1000));
        assert!(status == 400 && text.contains("An event already exists with identifier a."), "{text}");
        assert_eq!(send(now + KNOWN, &body("5", "a", now / 1000)).0, 200, "after a day it is counted again");
        for bad in [
            body("1.5", "b", now / 1000),
            body("", "b", now / 1000),
            body("1", "b", now / 1000 - OLDEST - 1),
            body("1", "b", now / 1000 + AHEAD + 1),
            body("1", "b", 0) + "&x=1",
        ] {
            assert_eq!(send(now, &bad).0, 400, "{bad}");
        }
        assert_eq!(send(now, &body("-1", "b", now / 1000 - OLDEST)).0, 200);
        let later = now + KNOWN + 10_000;
        let statuses: Vec<_> = (0..1001).map(|n| send(later, &body("1", &format!("n{n}"), later / 1000)).0).collect();
        assert_eq!((statuses[999], statuses[1000]), (200, 429));
        assert_eq!(stripe.total("cus_1"), 5 + 5 - 1 + 1000);
        assert_eq!(stripe.total("cus_2"), 0);
    }
}
