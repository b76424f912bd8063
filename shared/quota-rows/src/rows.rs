//! What the SQL functions of `migrations/0011`, `0012`, `0017`, `0027` and `0051` take and answer.

use astra_kernel::{AgentId, Allowance, Limits, NanoUsd, Timestamp, TurnId};
use astra_quota::words::{Compared, Draft, Extended, Record};
use astra_quota::{Amount, Cap, Hold, QuotaView, Recent, Scope, Span, Spans, Stand, Waits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is used and held of one window by one scope: the window's beginning (for code from before), scope, cost and tokens used, cost and tokens held.
#[derive(Deserialize)]
struct Sum(#[expect(dead_code, reason = "windows are told apart by their end too")] String, String, NanoUsd, i64, NanoUsd, i64);

/// What is used and held, the turns of the last minute, and what running turns stand still for.
#[derive(Deserialize)]
pub(crate) struct Standings {
    /// The window of each sum.
    windows: Vec<String>,
    sums: Vec<Sum>,
    pub(crate) recent: Recent,
    pub(crate) waits: Vec<Waits>,
    /// Which rows of the workspace, its plan and the agent all this was read with, limits and time zone too. None: the workspace is gone.
    pub(crate) of: Option<String>,
}

impl Standings {
    fn sum(&self, window: &Span, scope: &Scope) -> Option<Stand> {
        let id = window.id();
        let (_, Sum(_, _, cost, tokens, cost_held, tokens_held)) =
            self.windows.iter().zip(&self.sums).find(|(known, sum)| **known == id && sum.1 == scope.as_str())?;
        let amount = |cost: &NanoUsd, tokens: &i64| Amount { cost: *cost, tokens: *tokens };
        Some(Stand { used: amount(cost, tokens), held: amount(cost_held, tokens_held) })
    }

    /// Whether all these windows are built.
    pub(crate) fn has(&self, windows: &[Span]) -> bool {
        windows.iter().all(|window| self.sum(window, &Scope::workspace()).is_some())
    }

    /// How each cap stands, when its window is built: a scope without a row has used nothing.
    pub(crate) fn stands(&self, caps: &[Cap]) -> Vec<Stand> {
        caps.iter().map(|cap| self.sum(&cap.window, &cap.scope).unwrap_or_default()).collect()
    }
}

/// `hold_begin`'s answer. (No enum: a tagged one cannot hold a document that is not looked into.)
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Read {
    pub(crate) outcome: String,
    pub(crate) turn_id: Option<TurnId>,
    #[serde(default)]
    pub(crate) same: bool,
    pub(crate) context: Option<Box<RawValue>>,
    pub(crate) standings: Option<Standings>,
}

/// `hold_standing`'s argument. No agent: all of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Of<'a> {
    pub(crate) windows: &'a [Span],
    pub(crate) agent_id: Option<&'a AgentId>,
    pub(crate) now: Timestamp,
}

/// `hold_take`'s argument.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Take<'a> {
    pub(crate) turn_id: TurnId,
    pub(crate) hold: &'a Hold,
    pub(crate) tokens: i64,
    pub(crate) draft: &'a Draft,
    /// [`Standings::of`] of the limits that this was decided by.
    pub(crate) of: Option<&'a str>,
    pub(crate) now: Timestamp,
}

/// `hold_take`'s answer.
#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum TakeOutcome {
    /// It is held.
    Taken,
    /// The turn has a hold already.
    Held { hold: Box<Hold> },
    /// It does not fit any more.
    Full { standings: Standings },
    /// The context is no longer what the turn would find.
    Again,
}

/// The argument of a function that takes a moment and nothing else.
#[derive(Serialize)]
pub(crate) struct At {
    pub(crate) now: Timestamp,
}

/// `hold_extend`'s argument.
#[derive(Serialize)]
pub(crate) struct Alive<'a> {
    #[serde(flatten)]
    pub(crate) extend: &'a astra_quota::words::Extend,
    pub(crate) now: Timestamp,
}

/// `hold_grow`'s argument.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Grow<'a> {
    pub(crate) turn_id: TurnId,
    pub(crate) was: &'a Hold,
    pub(crate) hold: &'a Hold,
    pub(crate) tokens: i64,
    /// As in [`Take`].
    pub(crate) of: Option<&'a str>,
    pub(crate) now: Timestamp,
}

/// `hold_extend`'s, `hold_grow`'s and `hold_wait`'s answer.
#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Growing {
    NotRunning,
    Ok {
        extended: Extended,
    },
    /// It has to cover more than it does.
    Grow(Box<ToGrow>),
    /// It does now.
    Grown,
    /// It cannot, and others may give back what it lacks, or not.
    Wait {
        wait: bool,
    },
}

/// What has to be known to decide how a hold grows.
#[derive(Deserialize)]
pub(crate) struct ToGrow {
    pub(crate) hold: Hold,
    /// Those of now, in the month in which it began. None: the workspace is gone.
    pub(crate) limits: Option<Limits>,
    /// Its agent's, likewise. None: the agent is gone, or it is granted.
    #[serde(default)]
    pub(crate) allowance: Option<Allowance>,
    /// The windows that it began in, in the time zone of now. None: likewise.
    pub(crate) spans: Option<Spans>,
    pub(crate) standings: Standings,
}

/// `hold_wait`'s argument.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Waiting<'a> {
    pub(crate) turn_id: TurnId,
    pub(crate) scope: &'a Scope,
    pub(crate) window: &'a Span,
    pub(crate) waits: Waits,
}

/// `hold_finish`'s argument.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finish<'a> {
    #[serde(flatten)]
    pub(crate) record: &'a Record,
    pub(crate) now: Timestamp,
    pub(crate) only_expired: bool,
}

/// `hold_finish`'s answer.
#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Saved {
    Finished {
        quota: QuotaView,
        #[serde(default)]
        receipt: Option<String>,
    },
    /// It had no hold any more.
    Late {
        #[serde(default)]
        receipt: Option<String>,
    },
    /// It was to be ended as expired and is not.
    Alive,
}

/// `hold_status`' answer.
#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Status {
    NotFound,
    /// Holds have to be ended first.
    Expired,
    Ok(Box<StatusNow>),
}

/// The limits and how they stand.
#[derive(Deserialize)]
pub(crate) struct StatusNow {
    #[serde(flatten)]
    pub(crate) status: astra_quota::Status,
    pub(crate) standings: Standings,
}

/// `hold_reconcile`'s answer.
#[derive(Deserialize)]
pub(crate) struct Reconciled {
    pub(crate) data: Vec<Compared>,
}

/// `holds_expired`'s answer.
#[derive(Deserialize)]
pub(crate) struct Expired {
    pub(crate) data: Vec<Dead>,
}

/// A turn of which nothing was heard in time.
#[derive(Deserialize)]
pub(crate) struct Dead {
    pub(crate) hold: Hold,
    pub(crate) draft: Draft,
}
