//! One request's log line: what was asked, how it ended, where the time went. No secrets, no texts: only what is put in by name.

use astra_kernel::WorkspaceId;
use serde::{Serialize, Serializer};
use std::sync::{Arc, Mutex, PoisonError};

/// Collects a request's facts while it is served. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Trace(Arc<Mutex<Facts>>);

#[derive(Debug, Default)]
struct Facts {
    workspace: Option<WorkspaceId>,
    code: Option<&'static str>,
    cause: Option<String>,
    phases: Vec<(&'static str, i64)>,
}

/// The line's fixed part.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line<'a> {
    /// What the line is about: `request` or `turn`.
    pub event: &'a str,
    /// The function.
    pub function: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// The method.
    pub method: &'a str,
    /// The route's pattern (never the path as sent).
    pub route: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// Milliseconds from the request's arrival.
    pub ms: i64,
}

impl Trace {
    fn with<T>(&self, edit: impl FnOnce(&mut Facts) -> T) -> T {
        edit(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the tenant, once the token is checked.
    pub fn workspace(&self, workspace: &WorkspaceId) {
        self.with(|facts| facts.workspace = Some(workspace.clone()));
    }

    /// Notes the problem's code.
    pub fn code(&self, code: &'static str) {
        self.with(|facts| facts.code = Some(code));
    }

    /// Notes why, in our own words: never a text from outside.
    pub fn cause(&self, cause: impl Into<String>) {
        self.with(|facts| facts.cause = Some(cause.into()));
    }

    /// Notes how many milliseconds a phase took.
    pub fn phase(&self, name: &'static str, millis: i64) {
        self.with(|facts| facts.phases.push((name, millis)));
    }

    /// The log line as JSON.
    pub fn line(&self, line: &Line<'_>) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Whole<'a> {
            #[serde(flatten)]
            line: &'a Line<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            workspace: Option<&'a WorkspaceId>,
            #[serde(skip_serializing_if = "Option::is_none")]
            code: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cause: Option<&'a str>,
            #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "phases")]
            phases: &'a [(&'static str, i64)],
        }
        self.with(|facts| {
            let Facts { workspace, code, cause, phases } = facts;
            serde_json::to_string(&Whole { line, workspace: workspace.as_ref(), code: *code, cause: cause.as_deref(), phases })
                .unwrap_or_default()
        })
    }
}

fn phases<S: Serializer>(phases: &[(&'static str, i64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(phases.iter().copied())
}
