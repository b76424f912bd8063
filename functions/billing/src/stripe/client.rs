//! What is said to Stripe, and what its answers mean: two calls of version 1 of its API. Pure; who sends is `jobs::push_usage`.
//!
//! - A meter event's identifier is unique at Stripe for at least 24 hours; one that it has had is refused with 400 and "An event already exists with identifier …" (no code of its
//!   own; version 2 and error reports say `duplicate_meter_event`). That is proof of delivery.
//! - No `Idempotency-Key`: Stripe would give the answer of the first try again, a 500 too, for a day. The identifier does the work.
//! - 200 is not the end: events are checked and added up later. What can be known before is asked before ([`fits`]): a meter that is not there, that counts instead of adding, or that
//!   keeps only an hour's last event, would take every event and bill something else.

use astra_host::Shared;
use astra_host::guard::Guard;
use astra_host::outgoing::{Answered, NotAnswered, Outgoing};
use astra_kernel::{ConfigError, WorkspaceId};
use astra_store::stripe::{MeterEvent, Unit};
use serde::Deserialize;

/// The version of the API that is spoken: that of the client whose requests were recorded (`tests/fixtures/stripe-meter-event.json`).
const VERSION: &str = "2026-10-28.endive";

/// How long a call may take, in milliseconds.
const TIMEOUT_MILLIS: u32 = 10_000;

/// How much of a list of meters is read: a hundred are some 50 KB.
const MAX_LIST: usize = 512 * 1024;

/// How much of another answer is read.
const MAX_ANSWER: usize = 16 * 1024;

/// How Stripe is told what was used.
pub(crate) struct Stripe {
    /// Which meter, by its `event_name`.
    pub(crate) event_name: String,
    /// What is counted.
    pub(crate) unit: Unit,
    key: String,
    url: String,
}

/// What an answer to a meter event means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Stripe has it, by this try or one before.
    Sent,
    /// It is not taken, and would not be another time.
    Refused { code: Option<String>, message: Option<String> },
    /// It was not taken; another time.
    Later,
    /// Nobody knows.
    Unknown,
    /// Nothing will be taken until the deployment is set right.
    Misconfigured(&'static str),
}

#[derive(Deserialize)]
struct Created {
    object: String,
    identifier: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: StripeError,
}

#[derive(Deserialize)]
struct StripeError {
    code: Option<String>,
    message: Option<String>,
}

/// A page of meters.
#[derive(Deserialize)]
pub(crate) struct Meters {
    data: Vec<Meter>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Meter {
    id: String,
    event_name: String,
    default_aggregation: Aggregation,
    customer_mapping: Option<PayloadKey>,
    value_settings: Option<PayloadKey>,
    event_time_window: Option<String>,
}

#[derive(Deserialize)]
struct Aggregation {
    formula: String,
}

#[derive(Deserialize)]
struct PayloadKey {
    event_payload_key: String,
}

impl Stripe {
    /// `STRIPE_API_KEY`; `STRIPE_METER_EVENT`, the meter's `event_name`; `STRIPE_METER_VALUE`, `micro_usd` (unless set) or `tokens`; `STRIPE_URL`, for tests.
    ///
    /// # Errors
    /// Names what is missing or malformed.
    pub(crate) fn read(shared: &Shared) -> Result<Self, ConfigError> {
        const EVENT: &str = "STRIPE_METER_EVENT";
        let key =
            shared.setting("STRIPE_API_KEY").ok_or(ConfigError::Missing("STRIPE_API_KEY", "the key that usage is told to Stripe with"))?;
        if !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::Malformed("STRIPE_API_KEY", "it is a key as Stripe gives it".to_owned()));
        }
        let event_name =
            shared.setting(EVENT).ok_or(ConfigError::Missing(EVENT, "the event_name of Stripe's meter that usage is told to"))?;
        if event_name.len() > 100 || !event_name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
            return Err(ConfigError::Malformed(EVENT, "it is at most 100 characters of a-z, A-Z, 0-9, '_', '-', '.'".to_owned()));
        }
        let unit = match shared.setting("STRIPE_METER_VALUE").as_deref() {
            None | Some("micro_usd") => Unit::MicroUsd,
            Some("tokens") => Unit::Tokens,
            Some(_) => return Err(ConfigError::Malformed("STRIPE_METER_VALUE", "it is micro_usd or tokens".to_owned())),
        };
        let url = shared.setting("STRIPE_URL").unwrap_or_else(|| "https://api.stripe.com".to_owned());
        Ok(Self { event_name, unit, key, url: url.trim_end_matches('/').to_owned() })
    }

    fn call(&self, guard: &Guard, method: http::Method, path: &str) -> Result<Outgoing, ConfigError> {
        let url = format!("{}{path}", self.url);
        let mut call =
            Outgoing::new(guard, method, url, TIMEOUT_MILLIS).map_err(|why| ConfigError::Malformed("STRIPE_URL", why.to_owned()))?;
        call.headers = vec![
            ("accept", "application/json".to_owned()),
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ("authorization", format!("Bearer {}", self.key)),
            ("stripe-version", VERSION.to_owned()),
            ("user-agent", "astra-edge".to_owned()),
        ];
        call.limit = MAX_ANSWER;
        Ok(call)
    }

    /// Tells an event. All of its parts are of characters that a form holds as they are.
    ///
    /// # Errors
    /// When `STRIPE_URL` is not called.
    pub(crate) fn meter_event(&self, guard: &Guard, workspace: &WorkspaceId, event: &MeterEvent) -> Result<Outgoing, ConfigError> {
        let mut call = self.call(guard, http::Method::POST, "/v1/billing/meter_events")?;
        call.body = format!(
            "event_name={}&payload[value]={}&payload[stripe_customer_id]={}&identifier={}&timestamp={}",
            event.event_name,
            event.value,
            event.customer_id,
            identifier(workspace, event.first_seq),
            event.at.unix_seconds(),
        );
        Ok(call)
    }

    /// Asks for the active meters, after one of them if it is said.
    ///
    /// # Errors
    /// When `STRIPE_URL` is not called.
    pub(crate) fn meters(&self, guard: &Guard, after: Option<&str>) -> Result<Outgoing, ConfigError> {
        let after = after.map_or_else(String::new, |id| format!("&starting_after={id}"));
        let mut call = self.call(guard, http::Method::GET, &format!("/v1/billing/meters?status=active&limit=100{after}"))?;
        call.limit = MAX_LIST;
        Ok(call)
    }
}

/// An event's name at Stripe: at most 100 characters. Of its first entry only, so that whatever was cut otherwise, by a database that was set back say, meets it there again.
pub(crate) fn identifier(workspace: &WorkspaceId, first_seq: i64) -> String {
    format!("astra_{workspace}_{first_seq}")
}

/// What an answer to a meter event with this identifier means.
pub(crate) fn verdict(identifier: &str, answer: &Result<Answered, NotAnswered>) -> Verdict {
    let Answered { status, body } = match answer {
        Ok(answer) => answer,
        Err(NotAnswered::Unreachable) => return Verdict::Later,
        Err(NotAnswered::TimedOut | NotAnswered::Broken) => return Verdict::Unknown,
    };
    match status {
        200..300 => match astra_kernel::json::from_str::<Created>(body) {
            Ok(created) if created.object == "billing.meter_event" && created.identifier == identifier => Verdict::Sent,
            // Somebody else's answer.
            _ => Verdict::Unknown,
        },
        401 | 403 => Verdict::Misconfigured("Stripe does not take STRIPE_API_KEY, or it may not write meter events"),
        404 => Verdict::Misconfigured("there is nothing of Stripe's at STRIPE_URL"),
        429 => Verdict::Later,
        409 | 500.. => Verdict::Unknown,
        _ => {
            let (code, message) = match astra_kernel::json::from_str(body) {
                Ok(ErrorAnswer { error: StripeError { code, message } }) => (code, message),
                Err(_) => (None, None),
            };
            let says = message.as_deref().unwrap_or_default();
            let is_duplicate = code.as_deref() == Some("duplicate_meter_event")
                || says.trim_end_matches('.').ends_with(&format!("already exists with identifier {identifier}"));
            if is_duplicate {
                Verdict::Sent
            } else {
                Verdict::Refused { code, message: message.map(|says| says.chars().take(300).collect()) }
            }
        }
    }
}

/// Whether events of that name are added up as they are meant to be: true or false when it is known, else after which meter to ask on.
///
/// # Errors
/// What is wrong.
pub(crate) fn fits(stripe: &Stripe, answer: &Result<Answered, NotAnswered>) -> Result<Option<String>, String> {
    let answer = answer.as_ref().map_err(|error| format!("Stripe: {error}"))?;
    if answer.status != 200 {
        return Err(format!("Stripe answers {} when asked for its meters", answer.status));
    }
    let Meters { data, has_more } =
        astra_kernel::json::from_str(&answer.body).map_err(|_| "Stripe's list of meters is not of the known form".to_owned())?;
    let name = &stripe.event_name;
    let Some(meter) = data.iter().find(|meter| meter.event_name == *name) else {
        return match data.last() {
            Some(last) if has_more => Ok(Some(last.id.clone())),
            _ => Err(format!("Stripe has no active meter of the event_name {name}")),
        };
    };
    let key =
        |key: &Option<PayloadKey>, default: &str| key.as_ref().map_or_else(|| default.to_owned(), |key| key.event_payload_key.clone());
    if meter.default_aggregation.formula != "sum" {
        return Err(format!("Stripe's meter {name} does not add values up: its formula is not sum"));
    }
    if meter.event_time_window.is_some() {
        return Err(format!("Stripe's meter {name} keeps only the last event of an hour or a day: it has an event_time_window"));
    }
    if key(&meter.customer_mapping, "stripe_customer_id") != "stripe_customer_id" || key(&meter.value_settings, "value") != "value" {
        return Err(format!("Stripe's meter {name} reads other keys than stripe_customer_id and value"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "astra_acme_1";

    fn of(status: u16, body: &str) -> Verdict {
        verdict(ID, &Ok(Answered { status, body: body.to_owned() }))
    }

    #[test]
    fn answers_are_told_apart() {
        let error = |message: &str, code: &str| format!(r#"{{"error":{{"type":"invalid_request_error","message":"{message}"{code}}}}}"#);
        assert_eq!(of(200, r#"{"object":"billing.meter_event","identifier":"astra_acme_1","value":1}"#), Verdict::Sent);
        assert_eq!(of(400, &error("An event already exists with identifier astra_acme_1.", "")), Verdict::Sent);
        assert_eq!(of(400, &error("x", r#","code":"duplicate_meter_event""#)), Verdict::Sent);
        // Another's, or none: nobody knows what became of this one.
        for other in [
            r#"{"object":"billing.meter_event","identifier":"astra_acme_2"}"#,
            r#"{"object":"event","identifier":"astra_acme_1"}"#,
            "<html>",
            "",
        ] {
            assert_eq!(of(200, other), Verdict::Unknown, "{other}");
        }
        for message in [
            "An event already exists with identifier astra_acme_11.",
            "An event already exists with identifier x_astra_acme_1.",
            "astra_acme_1",
        ] {
            assert!(matches!(of(400, &error(message, "")), Verdict::Refused { .. }), "{message}");
        }
        let refused = Verdict::Refused { code: Some("resource_missing".into()), message: Some("No such customer".into()) };
        assert_eq!(of(400, &error("No such customer", r#","code":"resource_missing""#)), refused);
        assert_eq!(of(400, "<html>"), Verdict::Refused { code: None, message: None });
        assert_eq!(
            (of(429, ""), of(500, ""), of(503, ""), of(409, "")),
            (Verdict::Later, Verdict::Unknown, Verdict::Unknown, Verdict::Unknown)
        );
        assert!(matches!(
            (of(401, ""), of(403, ""), of(404, "")),
            (Verdict::Misconfigured(_), Verdict::Misconfigured(_), Verdict::Misconfigured(_))
        ));
        assert_eq!(verdict(ID, &Err(NotAnswered::Unreachable)), Verdict::Later);
        assert_eq!(
            (verdict(ID, &Err(NotAnswered::TimedOut)), verdict(ID, &Err(NotAnswered::Broken))),
            (Verdict::Unknown, Verdict::Unknown)
        );
    }

    fn meter(changed: &str) -> String {
        let meter = r#"{"id":"mtr_1","object":"billing.meter","event_name":"usage","status":"active","default_aggregation":{"formula":"sum"},"customer_mapping":{"type":"by_id","event_payload_key":"stripe_customer_id"},"value_settings":{"event_payload_key":"value"},"event_time_window":null}"#;
        let (from, to) = changed.split_once(" -> ").unwrap_or_default();
        format!(r#"{{"object":"list","data":[{}],"has_more":false}}"#, meter.replace(from, to))
    }

    #[test]
    fn a_meter_that_would_bill_something_else_is_refused() {
        let stripe = Stripe { event_name: "usage".into(), unit: Unit::MicroUsd, key: "k".into(), url: String::new() };
        let look = |body: String| fits(&stripe, &Ok(Answered { status: 200, body }));
        assert_eq!(look(meter("")), Ok(None));
        for (changed, says) in [
            ("\"sum\" -> \"count\"", "add values up"),
            ("\"sum\" -> \"last\"", "add values up"),
            ("\"event_time_window\":null -> \"event_time_window\":\"day\"", "event_time_window"),
            ("\"value\"} -> \"tokens\"}", "other keys"),
            ("\"stripe_customer_id\"} -> \"customer\"}", "other keys"),
            ("\"usage\" -> \"others\"", "no active meter"),
        ] {
            let error = look(meter(changed)).unwrap_err();
            assert!(error.contains(says), "{changed}: {error}");
        }
        let more = meter("\"usage\" -> \"others\"").replace("\"has_more\":false", "\"has_more\":true");
        assert_eq!(look(more), Ok(Some("mtr_1".into())));
        assert!(fits(&stripe, &Ok(Answered { status: 401, body: String::new() })).unwrap_err().contains("401"));
    }

    #[test]
    fn an_event_is_asked_for_as_the_official_client_does() {
        // Recorded from npm's stripe 23.1.0: what it sent for the same event.
        let recorded = include_str!("../../tests/fixtures/stripe-meter-event.json");
        let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
        let stripe = Stripe {
            event_name: "astra_usage".into(),
            unit: Unit::MicroUsd,
            key: "sk_test_123".into(),
            url: "https://api.stripe.com".into(),
        };
        let event = MeterEvent {
            first_seq: 1,
            attempt: 1,
            was_unsure: false,
            customer_id: "cus_NciAYcXfLnqBoz".into(),
            event_name: "astra_usage".into(),
            value: 25,
            at: astra_kernel::Timestamp(1_795_521_600_000),
        };
        let call = stripe.meter_event(&Guard::default(), &"acme".to_owned().try_into().unwrap(), &event).unwrap();
        assert_eq!((call.method.as_str(), call.url()), ("POST", "https://api.stripe.com/v1/billing/meter_events"));
        assert_eq!((recorded["method"].as_str(), recorded["url"].as_str()), (Some("POST"), Some("/v1/billing/meter_events")));
        assert_eq!(Some(call.body.as_str()), recorded["body"].as_str());
        for name in ["accept", "content-type", "authorization", "stripe-version"] {
            let ours = call.headers.iter().find(|(ours, _)| *ours == name).map(|(_, value)| value.as_str());
            assert_eq!(ours, recorded["headers"][name].as_str(), "{name}");
        }
    }
}
