//! The webhooks' outbox: what is due is signed and sent, a few at a time.
//!
//! A try that got no answer of 2xx is made again after the pauses of Standard Webhooks' own example; after the last it is dead. 410 says that there is no such webhook: it is disabled,
//! as is one that nothing but failures came of for [`GIVE_UP_MILLIS`]. Redirects are failures. No answer's text is kept, nor read.

use super::{JobError, Step};
use crate::webhooks;
use astra_host::Host;
use astra_host::outgoing::Outgoing;
use astra_kernel::webhook::WebhookSecret;
use astra_kernel::{Timestamp, WorkspaceId};
use astra_store::webhooks::{Attempt, Delivered, Due};
use astra_store::{Operator, StoreError, Tenant};
use futures_util::future::join_all;

/// How many are under way at once. (A Worker has six connections, one of them to the database.)
const AT_ONCE: u32 = 4;

/// How long one may take, in milliseconds.
const TIMEOUT_MILLIS: u32 = 15_000;

/// How long nobody else sends what was taken, in seconds.
const HIDE_SECONDS: u32 = 60;

/// The pauses after the first try, the second, …, in seconds.
const PAUSES: [i64; 9] = [5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600];

/// How long nothing but failures comes of a webhook before it is disabled: five days.
const GIVE_UP_MILLIS: i64 = 5 * 24 * 3600 * 1000;

pub(super) async fn step<H: Host>(host: &H) -> Result<Step, JobError> {
    let workspaces = Operator::open(host).webhooks_due(host.now(), AT_ONCE).await?;
    let Some(each) = AT_ONCE.checked_div(u32::try_from(workspaces.len()).unwrap_or(AT_ONCE)) else { return Ok(Step::default()) };
    let mut under_way = Vec::new();
    for workspace in workspaces {
        let due = Tenant::open(host, workspace.clone()).take_deliveries(each, HIDE_SECONDS, host.now()).await?;
        under_way.extend(due.into_iter().map(|due| deliver(host, workspace.clone(), due)));
    }
    // Others have taken what was due: they are at it.
    let more = !under_way.is_empty();
    let mut step = Step { next: more.then(|| "more".to_owned()), ..Step::default() };
    for delivered in join_all(under_way).await {
        let is_delivered = delivered?;
        step.done += u32::from(is_delivered);
        step.failed += u32::from(!is_delivered);
    }
    Ok(step)
}

/// Sends one and says what became of it: whether it was taken.
async fn deliver<H: Host>(host: &H, workspace: WorkspaceId, due: Due) -> Result<bool, StoreError> {
    let began = host.now();
    let answered = match request(host, &workspace, &due, began) {
        Ok(request) => host.call_out(request).await.map(|answer| answer.status).map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    let now = host.now();
    let status = answered.as_ref().ok().copied();
    let is_delivered = status.is_some_and(|status| (200..300).contains(&status));
    let is_gone = status == Some(410);
    let pause = PAUSES.get(usize::try_from(due.attempt).unwrap_or(0).saturating_sub(1));
    let delivered = Delivered {
        id: due.id,
        attempt: due.attempt,
        entry: Attempt { at: began, status, error: answered.err(), millis: now.0 - began.0 },
        is_delivered,
        is_gone,
        next_at: pause.filter(|_| !is_gone).map(|seconds| later(host, now, *seconds)),
        give_up_before: now.plus_millis(-GIVE_UP_MILLIS),
        now,
    };
    Tenant::open(host, workspace).delivered(&delivered).await?;
    Ok(is_delivered)
}

/// After a pause, and up to a tenth longer: what failed together does not come again together.
fn later<H: Host>(host: &H, now: Timestamp, seconds: i64) -> Timestamp {
    let mut random = [0];
    host.fill_random(&mut random);
    now.plus_millis(seconds * 1000 + seconds * 100 * i64::from(random[0]) / 255)
}

/// The request, signed for this moment.
fn request<H: Host>(host: &H, workspace: &WorkspaceId, due: &Due, now: Timestamp) -> Result<Outgoing, String> {
    let mut request = Outgoing::new(host.shared().guard(), http::Method::POST, due.url.clone(), TIMEOUT_MILLIS).map_err(str::to_owned)?;
    let (id, timestamp) = (format!("msg_{}", due.id.simple()), now.unix_seconds());
    let sign = |secret: WebhookSecret| secret.sign(&id, timestamp, &due.body);
    let keys = host.shared().secrets_key().map_err(|error| error.to_string())?;
    let open = |sealed| webhooks::open(keys, workspace, &due.webhook, sealed);
    let mut signatures = sign(open(&due.secret)?);
    if let Some(old) = &due.old_secret {
        signatures = format!("{signatures} {}", sign(open(old)?));
    }
    request.headers = vec![
        ("content-type", "application/json".to_owned()),
        ("user-agent", "astra-edge".to_owned()),
        ("webhook-id", id),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signatures),
    ];
    request.body.clone_from(&due.body);
    Ok(request)
}
