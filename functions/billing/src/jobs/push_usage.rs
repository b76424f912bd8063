//! What was used is told to Stripe's meter: the ledger into the outbox, the outbox to Stripe, workspace by workspace, one event at a time.
//!
//! An event is in the outbox before it is sent, with all that it says; a try changes nothing of it. So whoever sends it again, after a try that was cut off or after a lost lease,
//! sends the same, and Stripe knows it by its identifier for a day. What may have been taken longer ago than [`UNSURE_MILLIS`] is not sent again: it is listed for the operator.
//! One call at a time: that keeps Stripe's 1,000 a second and its one at a time per customer and meter.

use super::{JobError, Step};
use crate::stripe::client::{self, Stripe, Verdict, identifier};
use astra_host::Host;
use astra_kernel::{Timestamp, WorkspaceId};
use astra_store::stripe::{Cut, EventDone, EventState, MeterEvent, TakeEvent};
use astra_store::{Operator, StoreError, Tenant};

/// How many workspaces a step looks at.
const WORKSPACES: u32 = 10;

/// After so long a step ends, in milliseconds: well within the lease, whatever the last call takes.
const STEP_MILLIS: i64 = 20_000;

/// How many entries of a ledger go into the outbox at once.
const ENTRIES: u32 = 10_000;

/// How long nobody else sends what was taken, in seconds.
const HIDE_SECONDS: u32 = 120;

/// Stripe takes nothing older than 35 days, and an hour is left for the way.
const OLDEST_MILLIS: i64 = 35 * 24 * 3600 * 1000 - 3_600_000;

/// Nor later than in five minutes: clocks differ.
const AHEAD_MILLIS: i64 = 4 * 60 * 1000;

/// How long Stripe surely knows an identifier, an hour left out.
const UNSURE_MILLIS: i64 = 23 * 3600 * 1000;

/// The pause after the first try, in milliseconds; twice as long after each further one, an hour at most.
const PAUSE_MILLIS: i64 = 30_000;

/// How many pages of meters are looked through.
const PAGES: usize = 20;

pub(super) async fn step<H: Host>(host: &H, cursor: Option<&str>) -> Result<Step, JobError> {
    let stripe = Stripe::read(host.shared())?;
    let Some(after) = cursor else {
        check_meter(host, &stripe).await?;
        return Ok(Step { next: Some(String::new()), ..Step::default() });
    };
    let until = host.now().plus_millis(STEP_MILLIS);
    let page = Operator::open(host).stripe_customers(Some(after).filter(|after| !after.is_empty()), WORKSPACES).await?;
    let mut step = Step { next: page.next, ..Step::default() };
    let mut last = after.to_owned();
    for customer in page.data {
        // What is put in is told within the same run.
        while tenant(host, &customer.workspace_id)
            .cut_usage(Cut { unit: stripe.unit, event_name: &stripe.event_name, most: ENTRIES, now: host.now() })
            .await?
            > 0
        {}
        loop {
            if host.now() >= until {
                step.next = Some(last);
                return Ok(step);
            }
            if !send_next(host, &stripe, &customer.workspace_id, &mut step).await? {
                break;
            }
        }
        last = customer.workspace_id.to_string();
    }
    Ok(step)
}

fn tenant<'a, H: Host>(host: &'a H, workspace: &WorkspaceId) -> Tenant<'a, H> {
    Tenant::open(host, workspace.clone())
}

/// Sends the next event that is due; false when there is none.
async fn send_next<H: Host>(host: &H, stripe: &Stripe, workspace: &WorkspaceId, step: &mut Step) -> Result<bool, JobError> {
    let now = host.now();
    let take = TakeEvent {
        now,
        hide: HIDE_SECONDS,
        not_before: now.plus_millis(-OLDEST_MILLIS),
        not_after: now.plus_millis(AHEAD_MILLIS),
        unsure_before: now.plus_millis(-UNSURE_MILLIS),
    };
    let taken = tenant(host, workspace).take_meter_event(take).await?;
    if taken.set_aside > 0 {
        step.failed += taken.set_aside;
        step.error.get_or_insert_with(|| "events are uncertain or expired: see GET /billing/stripe/refusals".to_owned());
    }
    let Some(event) = taken.event else { return Ok(false) };
    let answer = host.call_out(stripe.meter_event(host.shared().guard(), workspace, &event)?).await;
    let verdict = client::verdict(&identifier(workspace, event.first_seq), &answer);
    let is_sent = tell(host, workspace, &event, &verdict).await?;
    match verdict {
        Verdict::Sent => step.done += u32::from(is_sent),
        Verdict::Refused { .. } => {
            step.failed += 1;
            step.error.get_or_insert_with(|| "Stripe refused events: see GET /billing/stripe/refusals".to_owned());
        }
        Verdict::Later | Verdict::Unknown => {
            let why = answer.map_or_else(|error| error.to_string(), |answer| format!("it answers {}", answer.status));
            return Err(JobError::Other(format!("Stripe: {why}")));
        }
        Verdict::Misconfigured(why) => return Err(JobError::Other(why.to_owned())),
    }
    Ok(true)
}

/// Writes down what became of a try.
async fn tell<H: Host>(host: &H, workspace: &WorkspaceId, event: &MeterEvent, verdict: &Verdict) -> Result<bool, StoreError> {
    let now = host.now();
    let (state, is_unsure, code, message) = match verdict {
        Verdict::Sent => (EventState::Sent, false, None, None),
        Verdict::Refused { code, message } => (EventState::Refused, false, code.as_deref(), message.as_deref()),
        Verdict::Later | Verdict::Misconfigured(_) => (EventState::Pending, event.was_unsure, None, None),
        Verdict::Unknown => (EventState::Pending, true, None, None),
    };
    let next_at = again(host, now, event.attempt);
    let done = EventDone { first_seq: event.first_seq, attempt: event.attempt, state, is_unsure, next_at, code, message, now };
    tenant(host, workspace).meter_event_done(&done).await
}

/// When it is tried again: later each time, and up to a tenth later than that.
fn again<H: Host>(host: &H, now: Timestamp, attempt: u32) -> Timestamp {
    let mut random = [0];
    host.fill_random(&mut random);
    let pause = (PAUSE_MILLIS << attempt.saturating_sub(1).min(7)).min(3_600_000);
    now.plus_millis(pause + pause / 10 * i64::from(random[0]) / 255)
}

/// Events are sent only to a meter that adds them up.
async fn check_meter<H: Host>(host: &H, stripe: &Stripe) -> Result<(), JobError> {
    let mut after = None;
    for _ in 0..PAGES {
        let answer = host.call_out(stripe.meters(host.shared().guard(), after.as_deref())?).await;
        match client::fits(stripe, &answer).map_err(JobError::Other)? {
            None => return Ok(()),
            more => after = more,
        }
    }
    Err(JobError::Other(format!("Stripe has too many meters to find {} among them", stripe.event_name)))
}
