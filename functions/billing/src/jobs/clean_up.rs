//! What is old is removed, workspace by workspace (`astra.clean_up` says what that is).

use super::{JobError, Step};
use astra_host::Host;
use astra_store::{Operator, Tenant};

/// How many workspaces a step looks at.
const WORKSPACES: u32 = 50;

pub(super) async fn step<H: Host>(host: &H, cursor: Option<&str>) -> Result<Step, JobError> {
    let page = Operator::open(host).list_workspaces(cursor, WORKSPACES).await?;
    let mut step = Step { next: page.next, ..Step::default() };
    for workspace in page.data {
        step.done += Tenant::open(host, workspace.id).clean_up(host.now()).await?;
    }
    Ok(step)
}
