//! The few calls to AWS that a function makes: a JSON body, signed, one answer.
//!
//! By hand rather than by AWS's clients, which would be most of the binary: `aws-sigv4` is the part of them that signs. Credentials and region are those of
//! the environment, which Lambda sets and which hold as long as the environment lives.

use crate::native::{SetupError, now, tls};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, UNIX_EPOCH};

/// How long a call may take as a whole. An environment has ten seconds to start.
const CALL: Duration = Duration::from_secs(5);

/// A service of AWS that speaks its JSON protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Secrets Manager.
    Secrets,
    /// Systems Manager's parameters.
    Parameters,
    /// SQS.
    Queues,
}

impl Service {
    /// Name in hosts and signatures.
    pub(super) fn name(self) -> &'static str {
        self.words().0
    }

    /// Name; what operations are prefixed with; version of the protocol.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Secrets => ("secretsmanager", "secretsmanager", "1.1"),
            Self::Parameters => ("ssm", "AmazonSSM", "1.1"),
            Self::Queues => ("sqs", "AmazonSQS", "1.0"),
        }
    }
}

/// Why a call failed. Says nothing of what was sent or answered but an error's name.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// A variable that Lambda sets is not there.
    #[error("{0} is not set: Lambda sets it")]
    NotSet(&'static str),
    /// It could not be signed.
    #[error("the request cannot be signed")]
    Unsigned,
    /// No answer came.
    #[error("{0} cannot be reached")]
    Unreachable(&'static str),
    /// The service refused, with a name of its own for the reason.
    #[error("{0} answered {1}: {2}")]
    Refused(&'static str, u16, String),
    /// The answer is not what was expected.
    #[error("{0} answered something else than was asked for")]
    Shape(&'static str),
}

/// AWS, as this environment may use it. Clones share the connections.
#[derive(Clone)]
pub struct Aws {
    client: reqwest::Client,
    region: String,
    credentials: Credentials,
    endpoint: Option<String>,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aws")
    }
}

impl Aws {
    /// With the environment's region and credentials: `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`. `AWS_ENDPOINT_URL`
    /// stands in for the services' own addresses, as it does for AWS's clients.
    ///
    /// # Errors
    /// When one is missing, or TLS cannot be set up.
    pub fn open(setting: impl Fn(&str) -> Option<String>) -> Result<Self, OpenError> {
        let required = |name| setting(name).ok_or(AwsError::NotSet(name));
        let (key, secret) = (required("AWS_ACCESS_KEY_ID")?, required("AWS_SECRET_ACCESS_KEY")?);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client(None).map_err(SetupError::from)?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(CALL)
            .build()
            .map_err(SetupError::from)?;
        Ok(Self {
            client,
            region: required("AWS_REGION")?,
            credentials: Credentials::new(key, secret, setting("AWS_SESSION_TOKEN"), None, "environment"),
            endpoint: setting("AWS_ENDPOINT_URL"),
        })
    }

    fn address(&self, service: &str) -> String {
        let suffix = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        self.endpoint.clone().unwrap_or_else(|| format!("https://{service}.{}.{suffix}/", self.region))
    }

    fn request(&self, service: Service, operation: &str, body: Vec<u8>) -> Option<http::Request<Vec<u8>>> {
        let (name, prefix, version) = service.words();
        let mut request = http::Request::post(self.address(name))
            .header("content-type", format!("application/x-amz-json-{version}"))
            .header("x-amz-target", format!("{prefix}.{operation}"))
            .body(body)
            .ok()?;
        let identity = self.credentials.clone().into();
        let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(now().0).ok()?);
        let builder = SigningParams::builder().identity(&identity).region(&self.region).name(name).time(at);
        let params = builder.settings(SigningSettings::default()).build().ok()?.into();
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new("POST", request.uri().to_string(), headers, SignableBody::Bytes(request.body())).ok()?;
        let (signed, _) = sign(signable, &params).ok()?.into_parts();
        signed.apply_to_request_http1x(&mut request);
        Some(request)
    }

    /// Calls an operation of a service. Sent once.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn call<R: DeserializeOwned>(&self, service: Service, operation: &str, body: &impl Serialize) -> Result<R, AwsError> {
        /// `Prefix#Name`, or the name alone.
        #[derive(serde::Deserialize)]
        struct Refusal {
            #[serde(rename = "__type")]
            kind: String,
        }
        let name = service.name();
        let body = serde_json::to_vec(body).map_err(|_| AwsError::Unsigned)?;
        let request = self.request(service, operation, body).ok_or(AwsError::Unsigned)?;
        let request = reqwest::Request::try_from(request).map_err(|_| AwsError::Unreachable(name))?;
        let response = self.client.execute(request).await.map_err(|_| AwsError::Unreachable(name))?;
        let status = response.status();
        let answer = response.bytes().await.map_err(|_| AwsError::Unreachable(name))?;
        if !status.is_success() {
            let kind = serde_json::from_slice(&answer).map_or_else(|_| "?".to_owned(), |Refusal { kind }| kind);
            let kind = kind.rsplit('#').next().unwrap_or_default().to_owned();
            return Err(AwsError::Refused(name, status.as_u16(), kind));
        }
        serde_json::from_slice(&answer).map_err(|_| AwsError::Shape(name))
    }
}

/// Why AWS cannot be called from here.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What Lambda sets is missing.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// TLS or the client.
    #[error(transparent)]
    Setup(#[from] SetupError),
}
