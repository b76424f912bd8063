//! The ledger's new entries, rolled up into sums by day and month. It may run at any time, twice at once, and end anywhere: an answer is the same before and after it.

use super::{JobError, Step};
use astra_host::Host;
use astra_store::Operator;
use astra_store::rollups::RolledUp;

/// How many entries a step rolls up at most: some hundred milliseconds.
const ENTRIES: u32 = 20_000;

pub(super) async fn step<H: Host>(host: &H) -> Result<Step, JobError> {
    let RolledUp { rolled_up, left, .. } = Operator::open(host).roll_up(ENTRIES).await?;
    // Nothing done and something left: another run has it.
    let next = (rolled_up > 0 && left > 0).then(|| "on".to_owned());
    Ok(Step { next, done: u32::try_from(rolled_up).unwrap_or(u32::MAX), ..Step::default() })
}
