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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::begin::TurnAsk;
    use crate::finish::Payer;
    use astra_host::testing::{FakeHost, NOW};
    use astra_quota::words::{Answer, Finished};
    use astra_quota::{Guest, QuotaView};
    use futures_util::FutureExt as _;
    use serde_json::json;

    fn hold(host: &FakeHost) -> TurnHold<FakeHost> {
        hold_paid_by(host, None)
    }

    fn hold_paid_by(host: &FakeHost, payer: Option<Payer>) -> TurnHold<FakeHost> {
        host.counter(|_| Ok(Answer::Finished(Finished { saved: true, quota: QuotaView::default(), receipt: None })));
        let id = "00000000-0000-7000-8000-000000000001";
        let context = serde_json::from_value(json!({
            "workspace": { "id": "acme", "displayName": "ACME", "plan": "pro", "ownerId": "o" }, "agent": { "id": "a", "definition": {} },
            "model": { "provider": "local", "modelId": "echo-1" }, "sessionId": id, "newSession": true,
            "price": { "version": 1, "inputNanoPerMtok": 1_000_000, "cachedInputNanoPerMtok": 1_000_000, "outputNanoPerMtok": 1_000_000 },
        }));
        let ask = TurnAsk {
            agent_id: "a".to_owned().try_into().unwrap(),
            message: "hello".into(),
            session_id: None,
            metadata: None,
            idempotency_key: Some("k".into()),
            request_hash: "h".into(),
            subject: "u".into(),
            token_id: None,
            scope: None,
        };
        let opening = Opening::new("acme".to_owned().try_into().unwrap(), id.parse().unwrap(), ask, &context.unwrap(), NOW, payer);
        let meter = Meter::new(100, 100);
        meter.asked(7);
        meter.delivered(3);
        let mut hold = TurnHold::new(host.clone(), opening, 10, meter);
        hold.text = "said so far".into();
        hold
    }

    #[test]
    fn a_hold_that_is_dropped_is_settled_with_what_was_counted() {
        let host = FakeHost::new(&[]);
        drop(hold(&host));
        let asked = host.asked();
        assert!(
            matches!(&asked[..], [one] if one.contains("Finish") && one.contains("input_tokens: 7") && one.contains("output_tokens: 3")),
            "{asked:?}"
        );
        assert!(asked[0].contains("status: Failed") && asked[0].contains("said so far"), "{asked:?}");
    }

    #[test]
    fn a_hold_that_is_settled_is_settled_once() {
        let host = FakeHost::new(&[]);
        hold(&host).settle(End::failed(Code::UpstreamError)).now_or_never().unwrap().unwrap();
        assert_eq!(host.asked().len(), 1, "dropping it adds nothing");
    }

    #[test]
    fn a_hold_that_another_workspace_pays_for_is_settled_there() {
        let host = FakeHost::new(&[]);
        let id = |text: &str| text.to_owned().try_into().unwrap();
        let grant_id = "00000000-0000-7000-8000-000000000002".parse().unwrap();
        let guest = Guest { workspace: id("acme"), grant_id, ticket: "t".into() };
        let agent_id = "a@acme".to_owned().try_into().unwrap();
        let hold = hold_paid_by(&host, Some(Payer { workspace: id("beta"), agent_id, guest: guest.clone() }));
        let answer = hold.settle(End::failed(Code::UpstreamError)).now_or_never().unwrap().unwrap();
        let asked = host.asked();
        for said in [format!("{guest:?}"), r#"AgentId("a@acme")"#.to_owned(), r#"Some("acme\nk")"#.to_owned()] {
            assert!(asked[0].starts_with("beta Finish") && asked[0].contains(&said), "{said} in {asked:?}");
        }
        // What is told is the receiver's.
        assert_eq!((answer.paid_by, answer.agent_id.as_str()), (Some(id("beta")), "a"));
    }
}
