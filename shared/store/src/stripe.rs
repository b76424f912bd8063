//! Usage for Stripe's meters: who a workspace is there, and the outbox.

use crate::triggers::NowArg;
use crate::{Database, Operator, Outcome, Page, PageArg, StoreError, Tenant, operator_statement, tenant_statement};
use astra_kernel::{Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// What the workspace is charged, in millionths of a dollar.
    MicroUsd,
    /// Tokens.
    Tokens,
}

/// A workspace at Stripe.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomerRow {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The customer; none when nothing more is to be told.
    pub customer_id: Option<String>,
    /// The last entry of its ledger that is in the outbox, or before which it was no customer.
    pub pushed_seq: i64,
    /// When the customer was last set.
    pub updated_at: Timestamp,
}

/// How much of a ledger goes into the outbox.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut<'a> {
    /// What is counted.
    pub unit: Unit,
    /// For which meter.
    pub event_name: &'a str,
    /// How many entries are looked at.
    pub most: u32,
    /// The host's clock.
    pub now: Timestamp,
}

/// How events are taken.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TakeEvent {
    /// The host's clock.
    pub now: Timestamp,
    /// For how many seconds nobody else gets it.
    pub hide: u32,
    /// What is older has expired.
    pub not_before: Timestamp,
    /// What is later waits.
    pub not_after: Timestamp,
    /// What may have been taken before then is not sent again.
    pub unsure_before: Timestamp,
}

/// An event to be sent.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeterEvent {
    /// The first entry of the ledger that is in it.
    pub first_seq: i64,
    /// The how manieth try this is.
    pub attempt: u32,
    /// A try before this one may have been taken.
    pub was_unsure: bool,
    /// Whose.
    pub customer_id: String,
    /// The meter's.
    pub event_name: String,
    /// How much.
    pub value: i64,
    /// When.
    pub at: Timestamp,
}

/// What was taken.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The next one that is due.
    pub event: Option<MeterEvent>,
    /// How many were set aside: too old, or uncertain.
    pub set_aside: u32,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventState {
    /// It is tried again.
    Pending,
    /// Stripe has it.
    Sent,
    /// Stripe does not take it.
    Refused,
}

/// What became of a try.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventDone<'a> {
    /// The event.
    pub first_seq: i64,
    /// The how manieth try.
    pub attempt: u32,
    /// What becomes of it.
    pub state: EventState,
    /// Stripe may have it all the same, by this try or one before.
    pub is_unsure: bool,
    /// When it is tried next, if it is.
    pub next_at: Timestamp,
    /// Stripe's word for what was wrong.
    pub code: Option<&'a str>,
    /// And its sentence.
    pub message: Option<&'a str>,
    /// The host's clock.
    pub now: Timestamp,
}

/// An event that Stripe has not taken and that is not sent again by itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalRow {
    /// Whose ledger.
    pub workspace_id: WorkspaceId,
    /// From this entry.
    pub first_seq: i64,
    /// To this one.
    pub last_seq: i64,
    /// Whose at Stripe.
    pub customer_id: String,
    /// The meter's.
    pub event_name: String,
    /// How much.
    pub value: i64,
    /// When.
    pub at: Timestamp,
    /// `refused`, `uncertain` or `expired`.
    pub state: String,
    /// How often it was tried.
    pub attempts: i64,
    /// Stripe's word.
    pub code: Option<String>,
    /// Stripe's sentence.
    pub message: Option<String>,
}

impl<D: Database> Operator<'_, D> {
    /// Workspaces that are, or were, Stripe's customers, by workspace.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stripe_customers(&self, after: Option<&str>, limit: u32) -> Result<Page<CustomerRow>, StoreError> {
        self.call(operator_statement!("op_stripe_customers"), &PageArg { after, limit }).await
    }

    /// Events that Stripe has not taken. `after` is the `next` of a page: nothing else may be passed on from a request ([`is_refusals_cursor`]).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stripe_refusals(&self, after: Option<&str>, limit: u32) -> Result<Page<RefusalRow>, StoreError> {
        self.call(operator_statement!("op_stripe_refusals"), &PageArg { after, limit }).await
    }
}

/// Whether a text has the form of a cursor of [`Operator::stripe_refusals`]: a workspace, a colon, a number.
pub fn is_refusals_cursor(text: &str) -> bool {
    text.split_once(':').is_some_and(|(id, seq)| {
        (1..=18).contains(&seq.len()) && seq.bytes().all(|b| b.is_ascii_digit()) && WorkspaceId::try_from(id.to_owned()).is_ok()
    })
}

impl<D: Database> Tenant<'_, D> {
    /// Says who the workspace is at Stripe; what is entered from then on is told. False when there is no such workspace.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_stripe_customer(&self, customer_id: Option<&str>, now: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Arg<'a> {
            customer_id: Option<&'a str>,
            now: Timestamp,
        }
        let Outcome { outcome } = self.call(tenant_statement!("stripe_customer_put"), &Arg { customer_id, now }).await?;
        Ok(outcome == "ok")
    }

    /// Puts what is new in the ledger into the outbox. How many events that makes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cut_usage(&self, cut: Cut<'_>) -> Result<u32, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            made: u32,
        }
        self.call(tenant_statement!("stripe_cut"), &cut).await.map(|Answer { made }| made)
    }

    /// Takes the next event that is due.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_meter_event(&self, take: TakeEvent) -> Result<Taken, StoreError> {
        self.call(tenant_statement!("stripe_take"), &take).await
    }

    /// Says what became of a try. False when somebody else has taken it meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn meter_event_done(&self, done: &EventDone<'_>) -> Result<bool, StoreError> {
        let Outcome { outcome } = self.call(tenant_statement!("stripe_done"), done).await?;
        Ok(outcome == "ok")
    }

    /// Has what was refused tried again. How many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn retry_meter_events(&self, now: Timestamp) -> Result<u32, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            count: u32,
        }
        self.call(tenant_statement!("stripe_retry"), &NowArg { now }).await.map(|Answer { count }| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_told_from_other_texts() {
        assert!(is_refusals_cursor("a:1") && is_refusals_cursor("customer-acme:999999999999999999"));
        for text in ["", ":", "a:", ":1", "A:1", "a:-1", "a:1.5", "a:1000000000000000000", "a\0:1", "a:1:2"] {
            assert!(!is_refusals_cursor(text), "{text}");
        }
    }
}
