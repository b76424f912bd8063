//! The counters, compared with the ledger, workspace by workspace.

use super::{JobError, Step};
use crate::quota;
use astra_host::Host;
use astra_store::Operator;

/// How many workspaces a step looks at.
const WORKSPACES: u32 = 20;

pub(super) async fn step<H: Host>(host: &H, cursor: Option<&str>) -> Result<Step, JobError> {
    let page = Operator::open(host).list_workspaces(cursor, WORKSPACES).await?;
    let mut step = Step { next: page.next, ..Step::default() };
    for workspace in page.data {
        match quota::compare(host, &workspace.id).await {
            Ok(compared) => {
                step.done += 1;
                let drift = compared.iter().filter(|window| window.counter != window.ledger).count();
                if drift > 0 {
                    host.log(&format!(r#"{{"event":"drift","workspace":"{}","windows":{drift}}}"#, workspace.id));
                }
            }
            Err(failure) => {
                step.failed += 1;
                step.error.get_or_insert_with(|| failure.cause().map_or_else(|| failure.problem().detail.clone(), str::to_owned));
            }
        }
    }
    match step.error {
        // Not this one's or that one's fault: nobody is there.
        Some(error) if step.done == 0 => Err(JobError::Other(error)),
        error => Ok(Step { error, ..step }),
    }
}
