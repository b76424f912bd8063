//! What an invocation may be about: a request, messages of a queue, or the schedule.

use aws_lambda_events::sqs::SqsEvent;
use lambda_http::request::LambdaRequest;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The event of an invocation.
#[derive(Debug)]
pub enum Event {
    /// A request, by way of a function URL, an HTTP API or a REST API.
    Request(Box<LambdaRequest>),
    /// Messages of an SQS queue.
    Queue(SqsEvent),
    /// `{"source": "astra.schedule", "task": "…"}`, the constant input of a schedule: the task.
    Schedule(String),
}

/// The `source` of scheduled events.
pub const SCHEDULE: &str = "astra.schedule";

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// What tells them apart. A request has none of it.
        #[derive(Deserialize)]
        struct Shape<'a> {
            #[serde(borrow, rename = "Records")]
            records: Option<&'a RawValue>,
            source: Option<String>,
            task: Option<String>,
        }
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let shape: Shape<'_> = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        match (shape.records, shape.source.as_deref()) {
            (Some(_), _) => {
                let event: SqsEvent =
                    serde_json::from_str(raw.get()).map_err(|_| D::Error::custom("the records are no messages of SQS"))?;
                match event.records.iter().find(|record| record.event_source.as_deref() != Some("aws:sqs")) {
                    Some(other) => Err(D::Error::custom(format!("records of {:?} are not for this function", other.event_source))),
                    None => Ok(Self::Queue(event)),
                }
            }
            (None, Some(SCHEDULE)) => shape.task.map(Self::Schedule).ok_or_else(|| D::Error::custom("the schedule names no task")),
            (None, Some(other)) => Err(D::Error::custom(format!("an event of the source {other:?} is not for this function"))),
            (None, None) => serde_json::from_str(raw.get()).map(|request| Self::Request(Box::new(request))).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Event, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let v2 = r#"{"version": "2.0", "routeKey": "$default", "rawPath": "/workspaces/a", "rawQueryString": "", "headers": {"host": "x"},
            "requestContext": {"http": {"method": "GET", "path": "/workspaces/a"}, "stage": "$default"}, "isBase64Encoded": false}"#;
        assert!(matches!(read(v2), Ok(Event::Request(request)) if matches!(*request, LambdaRequest::ApiGatewayV2(_))));
        let v1 = r#"{"resource": "/{proxy+}", "path": "/workspaces/a", "httpMethod": "GET", "headers": {"Host": "x"}, "multiValueHeaders": {},
            "queryStringParameters": null, "requestContext": {"httpMethod": "GET", "stage": "prod", "identity": {}}, "body": null,
            "isBase64Encoded": false}"#;
        assert!(matches!(read(v1), Ok(Event::Request(request)) if matches!(*request, LambdaRequest::ApiGatewayV1(_))));
        let schedule = r#"{"source": "astra.schedule", "task": "expire-stale"}"#;
        assert!(matches!(read(schedule), Ok(Event::Schedule(task)) if task == "expire-stale"));
        let queue = r#"{"Records": [{"messageId": "1", "body": "{}", "eventSource": "aws:sqs"}]}"#;
        assert!(matches!(read(queue), Ok(Event::Queue(event)) if event.records.len() == 1));
    }

    #[test]
    fn what_is_for_nobody_is_named() {
        for (event, named) in [
            (r#"{"source": "aws.events", "detail-type": "Scheduled Event"}"#, "aws.events"),
            (r#"{"source": "astra.schedule"}"#, "names no task"),
            (r#"{"Records": [{"eventSource": "aws:s3"}]}"#, "aws:s3"),
            (r#"{"hello": 1}"#, "expects a JSON payload"),
        ] {
            let error = read(event).unwrap_err();
            assert!(error.contains(named), "{event}: {error}");
        }
    }
}
