//! The months that are over, closed into invoices.

use super::{JobError, Step};
use crate::close::{close_some, over_somewhere};
use crate::letterhead::Letterhead;
use astra_host::Host;
use astra_store::invoices::Closed;

pub(super) async fn step<H: Host>(host: &H, cursor: Option<&str>) -> Result<Step, JobError> {
    let Closed { closed, next, .. } = close_some(host, &Letterhead::read(host.shared())?, over_somewhere(host.now()), cursor).await?;
    Ok(Step { next, done: u32::try_from(closed).unwrap_or(u32::MAX), ..Step::default() })
}
