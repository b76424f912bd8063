//! One decision: how much of a prompt and how much output all limits pay for together.

use crate::hold::Size;
use crate::window::{LimitName, Scope, Span, Unit};
use crate::words::Refusal;
use astra_kernel::{MoneyError, NanoUsd, Price, Timestamp, Tokens};

/// Output that a prompt should leave room for: before it, older messages are left out. A turn does not begin with less while others hold what would suffice.
const OUTPUT_RESERVE: Tokens = 256;

/// The least that a hold grows by, where there is as much: some sixty tokens of text, which has about four bytes a token and is held by the byte.
const SLICE_LEAST: Tokens = 256;

/// Far from every limit a hold begins with so much output, and doubles from there: some two thousand tokens of text.
const SLICE_FIRST: Tokens = 8_192;

/// A hold takes at most this part of what is left: near a limit many turns share it, and little is held that nobody uses.
const SLICE_SHARE: Tokens = 256;

/// Why a turn may not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// A limit is reached.
    #[error("a limit is reached")]
    Refused(Refusal),
    /// What was spent in a window is not known: load it first.
    #[error("the counter has not loaded what was spent")]
    NotLoaded,
    /// An amount does not fit.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// One limit against what is used and held of it, while a decision is made.
pub(crate) struct Budget {
    /// None: the limit of one turn.
    pub(crate) limit: Option<LimitName>,
    pub(crate) scope: Scope,
    pub(crate) max: i64,
    pub(crate) used: i64,
    pub(crate) held: i64,
    /// None: the limit of one turn.
    pub(crate) window: Option<Span>,
}

impl Budget {
    fn left(&self) -> i64 {
        self.max.saturating_sub(self.used).saturating_sub(self.held)
    }

    /// How much output some of it pays for after so much input; none when not even one token.
    fn output_for(&self, amount: i64, input: Tokens, price: &Price) -> Option<Tokens> {
        let output = match self.limit.map_or(Unit::Tokens, LimitName::unit) {
            Unit::Tokens => Tokens::try_from(amount).ok()?.checked_sub(input)?,
            Unit::Cost => price.affordable_output(NanoUsd(amount), input)?,
        };
        (output >= 1).then_some(output)
    }

    fn output_now(&self, input: Tokens, price: &Price) -> Option<Tokens> {
        self.output_for(self.left(), input, price)
    }

    /// So much output after so much input is not there.
    pub(crate) fn refusal(&self, input: Tokens, output: Tokens, price: &Price, now: Timestamp) -> Result<Refusal, MoneyError> {
        let needs = needs(self.limit.map_or(Unit::Tokens, LimitName::unit), input, output, price)?;
        let resets_at = self.window.map(|window| window.ends_at);
        // Waiting helps when running turns may give back enough, or when the window ends.
        let fits_without_holds = self.max.saturating_sub(self.used) >= needs;
        let retry_after = if self.held > 0 && fits_without_holds {
            Some(1)
        } else {
            resets_at.filter(|_| self.max >= needs).map(|at| (at.0 - now.0).max(0) / 1000 + 1)
        };
        let agent = self.limit.is_none() || self.scope.agent_id().is_some();
        Ok(Refusal {
            limit: self.limit.map_or("maxTokensPerTurn", LimitName::as_str).to_owned(),
            scope: if agent { "agent" } else { "workspace" }.to_owned(),
            max: self.max,
            used: self.used,
            held: self.held,
            needs,
            resets_at,
            retry_after,
        })
    }
}

/// What a turn needs for so much output after so much input.
pub(crate) fn needs(unit: Unit, input: Tokens, output: Tokens, price: &Price) -> Result<i64, MoneyError> {
    Ok(match unit {
        Unit::Tokens => i64::try_from(input.saturating_add(output)).unwrap_or(i64::MAX),
        Unit::Cost => price.at_most(input, output)?.0,
    })
}

/// How much output all budgets pay for now, beside what others hold; the first budget that does not pay for any.
pub(crate) fn output_now<'a>(budgets: &'a [Budget], input: Tokens, price: &Price) -> Result<Tokens, &'a Budget> {
    budgets.iter().try_fold(Tokens::MAX, |most, b| b.output_now(input, price).map(|output| most.min(output)).ok_or(b))
}

/// How much output all budgets could still pay for if others gave back all that they hold.
pub(crate) fn output_ever(budgets: &[Budget], input: Tokens, price: &Price) -> Tokens {
    let ever = |b: &Budget| b.output_for(b.max.saturating_sub(b.used), input, price).unwrap_or(0);
    budgets.iter().map(ever).min().unwrap_or(Tokens::MAX)
}

/// How much of the prompt all budgets pay for together: the whole prompt if there is room for some output beside it, else as much of the conversation
/// as leaves room, else none of it.
pub(crate) fn fit(budgets: &[Budget], size: Size, wanted: Tokens, price: &Price, now: Timestamp) -> Result<Tokens, AdmitError> {
    let Size { least, full } = size;
    if let Err(failed) = output_now(budgets, least, price) {
        return Err(AdmitError::Refused(failed.refusal(least, 1, price, now)?));
    }
    let reserve = wanted.min(OUTPUT_RESERVE);
    let leaves_room = |input| output_now(budgets, input, price).is_ok_and(|output| output >= reserve);
    let (mut fits, mut above) = (least, full.max(least) + 1);
    while above - fits > 1 {
        let middle = fits + (above - fits) / 2;
        if leaves_room(middle) { fits = middle } else { above = middle }
    }
    Ok(fits)
}

/// Whether all budgets pay for a use as a whole, to the last token.
pub(crate) fn whole(budgets: &[Budget], input: Tokens, output: Tokens, price: &Price, now: Timestamp) -> Result<(), AdmitError> {
    budgets.iter().try_for_each(|budget| {
        let refusal = budget.refusal(input, output, price, now)?;
        if refusal.needs <= budget.left() { Ok(()) } else { Err(AdmitError::Refused(refusal)) }
    })
}

/// Refuses a turn that would begin with crumbs while others hold what would suffice: its answer would be cut, and paid for. What nobody gives anything back
/// to is used to the last token.
pub(crate) fn no_crumbs(budgets: &[Budget], input: Tokens, wanted: Tokens, price: &Price, now: Timestamp) -> Result<(), AdmitError> {
    let least = wanted.min(OUTPUT_RESERVE);
    let is_short = |b: &&Budget| b.output_now(input, price).is_none_or(|output| output < least);
    match budgets.iter().find(is_short) {
        Some(short) if output_ever(budgets, input, price) >= least => Err(AdmitError::Refused(short.refusal(input, least, price, now)?)),
        _ => Ok(()),
    }
}

/// The budgets that a turn has not for itself alone: all but the limit of one turn, which comes first.
pub(crate) fn shared(budgets: &[Budget]) -> &[Budget] {
    match budgets {
        [Budget { window: None, .. }, shared @ ..] => shared,
        all => all,
    }
}

/// How much output to hold beyond what is held, of what is left: little near a limit that others share, as much again far from it.
pub(crate) fn slice(held: Tokens, left: Tokens, shared: Tokens) -> Tokens {
    left.min(SLICE_LEAST.max((shared / SLICE_SHARE).min(SLICE_FIRST.max(held))))
}
