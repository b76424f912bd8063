//! Configuration from the environment, of which secrets may stand elsewhere. Instead of `NAME`:
//!
//! - `NAME_SECRET_ARN`: an ARN (or a name) of Secrets Manager. With `#key` at its end the secret is JSON and that key's text is the value.
//! - `NAME_SSM_PARAMETER`: the name or the ARN of a parameter of Systems Manager, a `SecureString` mostly.
//!
//! They are read once, when the environment starts, at the same time, each secret once. One that cannot be read keeps the environment from starting:
//! Lambda says so to whoever calls and tries again. A secret that changes is seen by environments that start after that.
//!
//! By signed calls and not by AWS's extension (a layer, and a process of its own beside this one): the queue needs signed calls anyway.

use super::aws::{Aws, AwsError, OpenError, Service};
use crate::Shared;
use astra_kernel::Settings;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const SECRET: &str = "_SECRET_ARN";
const PARAMETER: &str = "_SSM_PARAMETER";

/// Variables and their values. An empty one is not set.
#[derive(Default)]
pub struct Variables(HashMap<String, String>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Variables")
    }
}

impl Settings for Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }
}

/// Why a variable has no value. Names the variable, and neither a value nor where it would have come from.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// AWS cannot be called at all.
    #[error("{0} cannot be read: {1}")]
    Aws(String, OpenError),
    /// The call failed.
    #[error("{0} cannot be read: {1}")]
    Call(String, AwsError),
    /// The secret is not what it should be.
    #[error("{0} is of no use: {1}")]
    Shape(String, &'static str),
    /// Said twice.
    #[error("{0} and {1} are both set: set one")]
    Both(String, String),
}

/// Where the value of a variable is.
struct Place {
    name: String,
    variable: String,
    service: Service,
    id: String,
    key: Option<String>,
}

impl Variables {
    /// The process's.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect())
    }

    fn places(&self) -> Result<Vec<Place>, SecretError> {
        let mut places = BTreeMap::new();
        for (variable, value) in self.0.iter().filter(|(_, value)| !value.is_empty()) {
            let place = if let Some(name) = variable.strip_suffix(SECRET) {
                let (id, key) = value.split_once('#').map_or((value.as_str(), None), |(id, key)| (id, Some(key.to_owned())));
                Place { name: name.to_owned(), variable: variable.clone(), service: Service::Secrets, id: id.to_owned(), key }
            } else if let Some(name) = variable.strip_suffix(PARAMETER) {
                Place { name: name.to_owned(), variable: variable.clone(), service: Service::Parameters, id: value.clone(), key: None }
            } else {
                continue;
            };
            if self.get(&place.name).is_some() {
                return Err(SecretError::Both(place.name, place.variable));
            }
            if let Some(Place { variable: other, .. }) = places.insert(place.name.clone(), place) {
                return Err(SecretError::Both(other, variable.clone()));
            }
        }
        Ok(places.into_values().collect())
    }

    /// With the values of those that stand elsewhere.
    ///
    /// # Errors
    /// Names the variable.
    pub async fn with_secrets(mut self) -> Result<Self, SecretError> {
        let places = self.places()?;
        let Some(first) = places.first() else { return Ok(self) };
        let aws = Aws::open(|name| self.get(name)).map_err(|error| SecretError::Aws(first.variable.clone(), error))?;
        let mut seen = BTreeSet::new();
        let distinct = places.iter().filter(|place| seen.insert((place.service.name(), place.id.as_str())));
        let reads = distinct.map(|place| async {
            let value = read(&aws, place.service, &place.id).await.map_err(|error| SecretError::Call(place.variable.clone(), error))?;
            Ok::<_, SecretError>(((place.service, place.id.clone()), value))
        });
        let values: HashMap<_, _> = try_join_all(reads).await?.into_iter().collect();
        for Place { name, variable, service, id, key } in places {
            let value = &values[&(service, id)];
            let value = match key {
                None => value.clone(),
                Some(key) => in_json(value, &key).map_err(|what| SecretError::Shape(variable, what))?,
            };
            self.0.insert(name, value);
        }
        Ok(self)
    }

    /// As a host's configuration.
    pub fn shared(self) -> Shared {
        Shared::new(Box::new(self))
    }
}

fn in_json(value: &str, key: &str) -> Result<String, &'static str> {
    let fields: HashMap<String, serde_json::Value> = serde_json::from_str(value).map_err(|_| "the secret is no JSON object")?;
    match fields.get(key) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("what the secret has under the key is no text"),
        None => Err("the secret has no such key"),
    }
}

async fn read(aws: &Aws, service: Service, id: &str) -> Result<String, AwsError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct GetSecretValue<'a> {
        secret_id: &'a str,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct SecretValue {
        secret_string: String,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct GetParameter<'a> {
        name: &'a str,
        with_decryption: bool,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Found {
        parameter: Parameter,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Parameter {
        value: String,
    }
    if service == Service::Parameters {
        let found: Found = aws.call(service, "GetParameter", &GetParameter { name: id, with_decryption: true }).await?;
        return Ok(found.parameter.value);
    }
    let SecretValue { secret_string } = aws.call(service, "GetSecretValue", &GetSecretValue { secret_id: id }).await?;
    Ok(secret_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use std::sync::{Arc, Mutex};
    use tokio::net::TcpListener;

    type Asked = Arc<Mutex<Vec<(String, String)>>>;

    /// What AWS would answer, and what it was asked.
    async fn stores() -> (String, Asked) {
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        let answer = async move |headers: HeaderMap, body: String| {
            let target = headers["x-amz-target"].to_str().unwrap().to_owned();
            let signature = headers["authorization"].to_str().unwrap();
            let scope = if target.starts_with("AmazonSSM") { "/eu-central-1/ssm/" } else { "/eu-central-1/secretsmanager/" };
            assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKID/") && signature.contains(scope), "{signature}");
            assert!(signature.contains("x-amz-security-token") && headers["x-amz-security-token"] == "session", "{signature}");
            log.lock().unwrap().push((target, body.clone()));
            match body.as_str() {
                r#"{"SecretId":"arn:keys"}"# => (StatusCode::OK, r#"{"SecretString":"{\"a\":\"va\",\"b\":\"vb\",\"n\":1}"}"#),
                r#"{"SecretId":"arn:whole"}"# => (StatusCode::OK, r#"{"SecretString":"hidden"}"#),
                r#"{"Name":"/astra/url","WithDecryption":true}"# => (StatusCode::OK, r#"{"Parameter":{"Value":"from ssm"}}"#),
                _ => (StatusCode::BAD_REQUEST, r#"{"__type":"com.amazonaws#ResourceNotFoundException","Message":"hidden"}"#),
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        (address, asked)
    }

    async fn read(set: &[(&str, &str)]) -> (Result<Variables, String>, Asked) {
        let (endpoint, asked) = stores().await;
        let own = [
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
            ("AWS_SESSION_TOKEN", "session"),
            ("AWS_ENDPOINT_URL", &endpoint),
        ];
        let variables = own.iter().chain(set).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        (Variables(variables).with_secrets().await.map_err(|error| error.to_string()), asked)
    }

    #[tokio::test]
    async fn each_comes_from_where_it_is_and_a_secret_is_read_once() {
        let (read, asked) = read(&[
            ("PLAIN", "p"),
            ("A_SECRET_ARN", "arn:keys#a"),
            ("B_SECRET_ARN", "arn:keys#b"),
            ("WHOLE_SECRET_ARN", "arn:whole"),
            ("URL_SSM_PARAMETER", "/astra/url"),
            ("NONE_SECRET_ARN", ""),
        ])
        .await;
        let read = read.unwrap();
        for (name, value) in [("PLAIN", "p"), ("A", "va"), ("B", "vb"), ("WHOLE", "hidden"), ("URL", "from ssm")] {
            assert_eq!(read.get(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(read.get("NONE"), None);
        let mut asked: Vec<_> = asked.lock().unwrap().iter().map(|(target, _)| target.clone()).collect();
        asked.sort();
        assert_eq!(asked, ["AmazonSSM.GetParameter", "secretsmanager.GetSecretValue", "secretsmanager.GetSecretValue"]);
    }

    #[tokio::test]
    async fn who_needs_no_secret_asks_nobody() {
        let (read, asked) = read(&[("PLAIN", "p"), ("AWS_REGION", "")]).await;
        assert_eq!(read.unwrap().get("PLAIN").as_deref(), Some("p"));
        assert!(asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn errors_name_the_variable_and_no_value() {
        for (set, said) in [
            (&[("A_SECRET_ARN", "arn:none")][..], "A_SECRET_ARN cannot be read: secretsmanager answered 400: ResourceNotFoundException"),
            (&[("A_SSM_PARAMETER", "/none")], "A_SSM_PARAMETER cannot be read: ssm answered 400: ResourceNotFoundException"),
            (&[("A_SECRET_ARN", "arn:keys#z")], "A_SECRET_ARN is of no use: the secret has no such key"),
            (&[("A_SECRET_ARN", "arn:keys#n")], "A_SECRET_ARN is of no use: what the secret has under the key is no text"),
            (&[("A_SECRET_ARN", "arn:whole#a")], "A_SECRET_ARN is of no use: the secret is no JSON object"),
            (&[("A_SECRET_ARN", "arn:whole"), ("A", "x")], "A and A_SECRET_ARN are both set: set one"),
            (&[("A_SECRET_ARN", "arn:whole"), ("AWS_REGION", "")], "A_SECRET_ARN cannot be read: AWS_REGION is not set: Lambda sets it"),
            (
                &[("A_SECRET_ARN", "arn:whole"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1/")],
                "A_SECRET_ARN cannot be read: secretsmanager cannot be reached",
            ),
        ] {
            let error = read(set).await.0.unwrap_err();
            assert_eq!(error, said);
        }
        let error = read(&[("A_SECRET_ARN", "arn:whole"), ("A_SSM_PARAMETER", "/x")]).await.0.unwrap_err();
        assert!(error.contains("A_SECRET_ARN") && error.contains("A_SSM_PARAMETER"), "{error}");
    }
}
