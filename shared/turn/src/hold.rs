//! A turn's hold as a value: it is settled, whatever happens.
//!
//! [`TurnHold::settle`] consumes it. One that is dropped instead (a task that panics or is cut off) settles itself in the background with what was counted. A
//! process that dies settles nothing; then the counter ends the turn when its lease is over.

use crate::answer::TurnAnswer;
use crate::finish::{self, End, Opening};
use crate::meter::Meter;
use astra_host::Failure;
use astra_host::stream::TurnHost;
use astra_kernel::{Code, Tokens};
use astra_quota::words::TurnStatus;

/// See the module's head.
#[must_use = "a hold is settled"]
pub struct TurnHold<H: TurnHost> {
    host: H,
    opening: Option<Opening>,
    text: String,
    meter: Meter,
    input_bound: Tokens,
}

impl<H: TurnHost> std::fmt::Debug for TurnHold<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnHold").field("turn", &self.opening.as_ref().map(|o| o.turn_id)).finish_non_exhaustive()
    }
}

impl<H: TurnHost> TurnHold<H> {
    pub(crate) fn new(host: H, opening: Opening, input_bound: Tokens, meter: Meter) -> Self {
        Self { host, opening: Some(opening), text: String::new(), meter, input_bound }
    }

    /// The beginning of the turn's record. None only once it is settled.
    pub fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    /// What was delivered so far, and its meter.
    pub(crate) fn delivery(&mut self) -> (&mut String, &Meter) {
        (&mut self.text, &self.meter)
    }

    /// What was delivered.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Input and output tokens that are covered.
    pub(crate) fn covered(&self) -> (Tokens, Tokens) {
        (self.input_bound, self.meter.held())
    }

    /// Saves the turn and replaces the hold by what was really used.
    ///
    /// # Errors
    /// Those of [`finish::finish`].
    pub async fn settle(mut self, end: End) -> Result<TurnAnswer, Failure> {
        let opening = self.opening.take().ok_or_else(|| Failure::internal("a hold was settled twice"))?;
        finish::finish(&self.host, opening, end).await
    }
}

impl<H: TurnHost> Drop for TurnHold<H> {
    fn drop(&mut self) {
        let Some(opening) = self.opening.take() else { return };
        let text = std::mem::take(&mut self.text);
        let content = (!text.is_empty()).then_some(text);
        let end =
            End { status: TurnStatus::Failed, finish_reason: "error", content, usage: self.meter.usage(), error: Some(Code::Internal) };
        let host = self.host.clone();
        self.host.background(async move {
            // When it cannot be saved, it is tried for a while in there, and then the counter ends the turn.
            let _ = finish::finish(&host, opening, end).await;
        });
    }
}
