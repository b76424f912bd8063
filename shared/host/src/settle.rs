//! A record to the counter, which settles and saves it: sent until that has it.

use crate::CounterUnreachable;
use crate::stream::TurnHost;
use astra_kernel::WorkspaceId;
use astra_quota::words::{Answer, Ask, Finished, Record};

/// Waits between the attempts to save, in milliseconds.
const WAITS: [u32; 4] = [100, 400, 1_000, 2_500];

/// How often, and after how many milliseconds each, saving is tried once more when the caller has been told that it failed: a database that is started anew
/// or moves elsewhere is back within that.
const LATE: (usize, u32) = (60, 2_000);

/// Saves and settles. The same record may be sent again and again.
///
/// # Errors
/// When the counter cannot be reached. Saving goes on in the background for a while; when that is in vain too, or the process ends, the counter ends what it holds
/// by itself, charged with what was last reported.
pub async fn settle<H: TurnHost>(host: &H, counter: &WorkspaceId, record: Record) -> Result<Finished, CounterUnreachable> {
    let record = Ask::Finish(Box::new(record));
    let mut waits = WAITS.iter();
    loop {
        if let Ok(Answer::Finished(finished)) = host.ask(counter, &record).await {
            return Ok(finished);
        }
        let Some(wait) = waits.next() else {
            host.background(late(host.clone(), counter.clone(), record));
            return Err(CounterUnreachable);
        };
        host.sleep(*wait).await;
    }
}

async fn late<H: TurnHost>(host: H, counter: WorkspaceId, record: Ask) {
    let (times, wait) = LATE;
    for _ in 0..times {
        host.sleep(wait).await;
        if let Ok(Answer::Finished(_)) = host.ask(&counter, &record).await {
            return;
        }
    }
}
