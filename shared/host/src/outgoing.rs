//! Calls to addresses that a tenant or an operator names. There is no such call but through the [`Guard`]: an [`Outgoing`] can be made in no other way.

use crate::guard::{Guard, Refusal};

/// A call that the guard has let pass, as far as its address says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    url: String,
    /// `GET` or `POST`.
    pub method: http::Method,
    /// Headers. Those with secrets are not printed: nothing prints them.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
    /// How long it may take, in milliseconds, its answer included.
    pub millis: u32,
    /// How much of the answer is read, in bytes; with 0 nothing.
    pub limit: usize,
}

impl Outgoing {
    /// A call of this address.
    ///
    /// # Errors
    /// Why the address is not called.
    pub fn new(guard: &Guard, method: http::Method, url: String, millis: u32) -> Result<Self, Refusal> {
        guard.check(&url)?;
        Ok(Self { url, method, headers: Vec::new(), body: String::new(), millis, limit: 0 })
    }

    /// Where it goes.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// What was answered: any status, a redirect's too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// As much of the body as was asked for; what is no UTF-8 is replaced.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnswered {
    /// Nobody there, or an address that is inside: nothing was sent.
    #[error("it cannot be reached")]
    Unreachable,
    /// Not in time. It may have been received.
    #[error("it did not answer in time")]
    TimedOut,
    /// It broke off. It may have been received.
    #[error("the connection broke")]
    Broken,
}
