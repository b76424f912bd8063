//! A running turn's signs of life, and the two reasons to cut it: somebody stopped it, or its time is up.

use astra_host::stream::TurnHost;
use astra_kernel::{Timestamp, TurnId, Usage, UsageSource, WorkspaceId};
use astra_quota::words::{Answer, Ask, Extend};
use std::sync::atomic::{AtomicU64, Ordering};

/// The first sign of life comes after so many milliseconds: most turns are over by then and need none.
const FIRST: i64 = 1_000;

/// The next ones follow after so many.
const NEXT: i64 = 2_000;

/// Why a turn is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It was stopped by name.
    Stopped,
    /// Its deadline has passed.
    Deadline,
    /// The counter no longer knows it: it was taken for dead, or its workspace was deleted.
    Lost,
}

/// What was used so far, as far as it can be known while the model answers.
#[derive(Debug, Default)]
pub struct Progress {
    input: AtomicU64,
    output: AtomicU64,
}

impl Progress {
    /// Notes what the provider has in hand, in tokens: the prompt before the request goes out, nothing when the provider has refused it.
    pub fn asked(&self, input: u64) {
        self.input.store(input, Ordering::Relaxed);
    }

    /// Notes what was delivered so far, in tokens.
    pub fn delivered(&self, output: u64) {
        self.output.store(output, Ordering::Relaxed);
    }

    /// What a turn is charged that is cut now, or dies, before the provider has begun to answer.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.input.load(Ordering::Relaxed),
            output_tokens: self.output.load(Ordering::Relaxed),
            source: UsageSource::Estimated,
            ..Usage::NONE
        }
    }
}

/// Reports to the counter again and again; resolves only when the turn must be cut. A report that fails is left to the next one.
pub async fn pulse<H: TurnHost>(host: &H, workspace: &WorkspaceId, turn_id: TurnId, progress: &Progress, deadline: Timestamp) -> Cut {
    let mut wait = FIRST;
    for sequence in 1.. {
        let left = deadline.0 - host.now().0;
        host.sleep(u32::try_from(left.clamp(0, wait)).unwrap_or(0)).await;
        if host.now() >= deadline {
            return Cut::Deadline;
        }
        let extend = Extend { turn_id, sequence, progress: progress.usage(), input_bound: 0 };
        match host.ask(workspace, &Ask::Extend(extend)).await {
            Ok(Answer::Extended(extended)) if extended.stop => return Cut::Stopped,
            Ok(Answer::NotRunning) => return Cut::Lost,
            _ => {}
        }
        wait = NEXT;
    }
    Cut::Deadline
}
