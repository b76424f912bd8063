//! What can go wrong with a model, and how a caller is told.

use astra_kernel::{Code, Problem};

/// Why a model gave no answer, or no more of it. Carries nothing that a provider wrote but its status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The provider said no, with an HTTP status or with an error in its stream that has one.
    #[error("the model's provider answered with status {status}")]
    Status {
        /// Its status.
        status: u16,
        /// Its Retry-After, in seconds.
        retry_after: Option<u32>,
    },
    /// No connection came about.
    #[error("the model's provider could not be reached")]
    Unreachable,
    /// The answer ended without the provider's word that it had ended.
    #[error("the model's provider broke off its answer")]
    Broken,
    /// The answer ended before anything was said.
    #[error("the model's provider sent an empty answer")]
    Empty,
    /// Not the protocol that was agreed; in our words.
    #[error("the model's provider did not speak its protocol: {0}")]
    Garbage(&'static str),
    /// Nothing was sent: model, endpoint or key cannot be used as they are; in our words.
    #[error("the model cannot be called: {0}")]
    Misconfigured(&'static str),
}

impl ModelError {
    /// Whether the same request may fare better in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status == 429 || (500..=599).contains(status),
            Self::Unreachable => true,
            // The provider may have generated, and will charge for, what was cut off.
            Self::Broken | Self::Empty | Self::Garbage(_) | Self::Misconfigured(_) => false,
        }
    }
}

impl From<&ModelError> for Problem {
    /// `upstream_error` naming the provider's status and what to do; a Retry-After is passed on. A provider's 429 is about the operator's
    /// or the workspace's account there, not about the caller's budget here: it stays a 502.
    fn from(error: &ModelError) -> Self {
        let advice = match error {
            ModelError::Status { status: 401 | 403, .. } => {
                "It refused the key: check the workspace's secret for this provider, or the deployment's key."
            }
            ModelError::Status { status: 404, .. } => "Check the model's id and its endpoint.",
            ModelError::Status { status: 429, .. } => "It limits requests or the account's credit there is used up: try again later.",
            ModelError::Status { status: 400 | 413 | 422, .. } => {
                "It refused the request: check the model's id, and that the conversation fits the model's context."
            }
            ModelError::Misconfigured(_) => "Check the agent's model and the secret for its provider.",
            ModelError::Garbage(_) => "Check the model's endpoint; it may also pass: try again.",
            ModelError::Status { .. } | ModelError::Unreachable | ModelError::Broken | ModelError::Empty => "Try again later.",
        };
        let code = if matches!(error, ModelError::Misconfigured(_)) { Code::ModelUnavailable } else { Code::UpstreamError };
        let text = error.to_string();
        // "the model's …" begins a sentence here.
        let problem = Self::new(code, format!("T{}. {advice}", text.strip_prefix('t').unwrap_or(&text)));
        match error {
            ModelError::Status { retry_after: Some(seconds), .. } => problem.with_retry_after(i64::from(*seconds)),
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_status_and_passes_retry_after_on() {
        let problem = Problem::from(&ModelError::Status { status: 429, retry_after: Some(7) });
        assert_eq!((problem.code, problem.code.status(), problem.retry_after), (Code::UpstreamError, 502, Some(7)));
        assert!(problem.detail.contains("429"));
    }

    #[test]
    fn every_problem_reads_as_a_sentence() {
        let problems: Vec<String> = [
            ModelError::Status { status: 401, retry_after: None },
            ModelError::Status { status: 500, retry_after: None },
            ModelError::Unreachable,
            ModelError::Broken,
            ModelError::Empty,
            ModelError::Garbage("an event is not JSON"),
            ModelError::Misconfigured("its endpoint is not a URL"),
        ]
        .iter()
        .map(|error| Problem::from(error).detail)
        .collect();
        insta::assert_snapshot!(problems.join("\n"));
    }
}
