//! What the SQL functions of `migrations/0011` take and answer.

use astra_kernel::{AgentId, Month, Timestamp, TurnId};
use astra_quota::words::{Draft, Extended, Record};
use astra_quota::{Hold, QuotaView, Recent, Standing};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is used and held, and the turns of the last minute.
#[derive(Deserialize)]
pub(crate) struct Standings {
    pub(crate) standing: Standing,
    pub(crate) recent: Recent,
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

/// `hold_standing`'s argument.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Of<'a> {
    pub(crate) agent_id: &'a AgentId,
    pub(crate) month: Month,
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
    pub(crate) now: Timestamp,
}

/// `hold_extend`'s and `hold_grow`'s answer.
#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Growing {
    NotRunning,
    Ok {
        extended: Extended,
    },
    /// It has to cover more than it does.
    Grow {
        hold: Box<Hold>,
        standings: Option<Standings>,
    },
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
    Ok {
        quota: QuotaView,
    },
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
