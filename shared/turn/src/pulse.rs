//! A running turn's talk with its counter: signs of life, what was delivered, and more to hold when it is needed; and the reasons to cut it.

use crate::meter::Meter;
use astra_host::stream::TurnHost;
use astra_kernel::{Timestamp, Tokens, TurnId, WorkspaceId};
use astra_quota::words::{Answer, Ask, Extend};
use futures_util::future::select;
use std::pin::pin;

/// The first sign of life comes after so many milliseconds: most turns are over by then and need none.
const FIRST: i64 = 1_000;

/// The next ones follow after so many.
const NEXT: i64 = 2_000;

/// What was delivered is told at most so many milliseconds after the first of it: a process that dies loses no more. Later in a long answer it is told after a
/// [`SHARE`] of the time that it has taken, up to [`NEXT`]. Each call tells all, whatever it is for, and an answer that is over sooner costs none.
const TELL: i64 = 500;

/// See [`TELL`]: so much of an answer, at most, is lost with its process, and a long one costs few calls.
const SHARE: i64 = 4;

/// How long to wait, in milliseconds, before the same is asked again (others are to give something back, or the counter is to be there again); twice as long
/// each time, up to the second: many that ask often would only keep the counter from those who have something to give.
const AGAIN: (u32, u32) = (200, 1_000);

/// How long a turn stands still in all, in milliseconds, for others to give something back, if what its provider writes meanwhile does not cost more than it holds
/// before; then it takes what there is and ends with it. A caller who waits for words that may not come is better told soon.
const STANDS_STILL: i64 = 2_000;

/// Why a turn is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It was stopped by name.
    Stopped,
    /// Its deadline has passed.
    Deadline,
    /// The counter no longer knows it: it was taken for dead, or its workspace was deleted.
    Lost,
    /// A budget does not pay for more.
    Quota,
}

/// Speaks with the counter for as long as the turn runs; resolves only when the turn must be cut. A sign of life that fails is left to the next one; what the
/// stream stands still for is asked again until there is an answer.
pub async fn pulse<H: TurnHost>(host: &H, workspace: &WorkspaceId, turn_id: TurnId, meter: &Meter, deadline: Timestamp) -> Cut {
    let began = host.now();
    let mut next = began.plus_millis(FIRST);
    let (mut stood_still, mut again, mut told) = (0, AGAIN.0, 0);
    for sequence in 1.. {
        quiet(host, meter, told, began, next.min(deadline)).await;
        if host.now() >= deadline {
            return Cut::Deadline;
        }
        let want = meter.wants();
        let asked_at = host.now();
        let (output, is_urgent) =
            want.map_or((0, false), |want| (want.output, want.is_urgent && stood_still < STANDS_STILL && !meter.is_overdrawn()));
        let progress = meter.usage();
        told = progress.output_tokens;
        let extend = Extend { turn_id, sequence, progress, input_bound: 0, output, is_urgent };
        meter.called();
        let is_settled = match (host.ask(workspace, &Ask::Extend(extend)).await, want) {
            (Ok(Answer::Extended(extended)), _) if extended.stop => return Cut::Stopped,
            (Ok(Answer::NotRunning), _) => return Cut::Lost,
            (Ok(Answer::Extended(extended)), Some(want)) => {
                meter.granted(want, &extended);
                !extended.wait
            }
            (_, want) => want.is_none(),
        };
        if is_settled {
            again = AGAIN.0;
        } else {
            select(pin!(host.sleep(again)), pin!(meter.overdrawn())).await;
            again = (2 * again).min(AGAIN.1);
            stood_still += host.now().0 - asked_at.0;
        }
        next = host.now().plus_millis(NEXT);
    }
    Cut::Deadline
}

/// Waits until there is something to ask the counter for, or to tell it, until a moment at most.
async fn quiet<H: TurnHost>(host: &H, meter: &Meter, told: Tokens, began: Timestamp, mut until: Timestamp) {
    // Once there is news, more of it changes nothing.
    let mut told = Some(told);
    while meter.wants().is_none() && host.now() < until {
        if told.take_if(|told| meter.has_news(*told)).is_some() {
            let now = host.now();
            until = until.min(now.plus_millis(((now.0 - began.0) / SHARE).clamp(TELL, NEXT)));
        }
        let left = u32::try_from(until.0 - host.now().0).unwrap_or(0);
        select(pin!(host.sleep(left)), pin!(meter.wanted(told.unwrap_or(Tokens::MAX)))).await;
    }
}

#[cfg(test)]
mod tests;
