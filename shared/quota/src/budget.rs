//! One decision: how much of a prompt and how much output all limits pay for together.

use crate::hold::Size;
use crate::words::Refusal;
use astra_kernel::{MoneyError, NanoUsd, Price, Timestamp, Tokens};

/// Output that a prompt should leave room for: before it, older messages are left out.
const OUTPUT_RESERVE: Tokens = 256;

/// Why a turn may not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// A limit is reached.
    #[error("a limit is reached")]
    Refused(Refusal),
    /// What was spent is not known: load it first.
    #[error("the counter has not loaded what was spent")]
    NotLoaded,
    /// An amount does not fit.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// One limit against what is used and held of it, while a decision is made.
pub(crate) struct Budget {
    pub(crate) limit: &'static str,
    pub(crate) scope: &'static str,
    pub(crate) max: i64,
    pub(crate) used: i64,
    pub(crate) held: i64,
    pub(crate) resets_at: Option<Timestamp>,
    pub(crate) unit: Unit,
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Tokens,
    Money,
}

impl Budget {
    fn left(&self) -> i64 {
        self.max.saturating_sub(self.used).saturating_sub(self.held)
    }

    /// How much output it pays for after so much input; none when not even one token.
    fn output_after(&self, input: Tokens, price: &Price) -> Option<Tokens> {
        let output = match self.unit {
            Unit::Tokens => Tokens::try_from(self.left()).ok()?.checked_sub(input)?,
            Unit::Money => price.affordable_output(NanoUsd(self.left()), input)?,
        };
        (output >= 1).then_some(output)
    }

    fn refusal(&self, input: Tokens, price: &Price, now: Timestamp) -> Result<Refusal, MoneyError> {
        let needs = match self.unit {
            Unit::Tokens => i64::try_from(input.saturating_add(1)).unwrap_or(i64::MAX),
            Unit::Money => price.at_most(input, 1)?.0,
        };
        // Waiting helps when running turns may give back enough, or when the month ends.
        let fits_without_holds = self.max.saturating_sub(self.used) >= needs;
        let retry_after = if self.held > 0 && fits_without_holds {
            Some(1)
        } else {
            self.resets_at.filter(|_| self.max >= needs).map(|at| (at.0 - now.0).max(0) / 1000 + 1)
        };
        Ok(Refusal {
            limit: self.limit.to_owned(),
            scope: self.scope.to_owned(),
            max: self.max,
            used: self.used,
            held: self.held,
            needs,
            resets_at: self.resets_at,
            retry_after,
        })
    }
}

/// How much of the prompt and how much output all budgets pay for together: the whole prompt if there is room for some output beside it,
/// else as much of the conversation as leaves room, else none of it.
pub(crate) fn fit(budgets: &[Budget], size: Size, wanted: Tokens, price: &Price, now: Timestamp) -> Result<(Tokens, Tokens), AdmitError> {
    let Size { least, full } = size;
    let output = |input| budgets.iter().try_fold(wanted, |most, b| b.output_after(input, price).map(|o| most.min(o)));
    if output(least).is_none() {
        let failed = budgets.iter().find(|b| b.output_after(least, price).is_none()).ok_or(AdmitError::NotLoaded)?;
        return Err(AdmitError::Refused(failed.refusal(least, price, now)?));
    }
    let reserve = wanted.min(OUTPUT_RESERVE);
    let leaves_room = |input| output(input).is_some_and(|o| o >= reserve);
    let (mut fits, mut above) = (least, full.max(least) + 1);
    while above - fits > 1 {
        let middle = fits + (above - fits) / 2;
        if leaves_room(middle) { fits = middle } else { above = middle }
    }
    Ok((fits, output(fits).unwrap_or(1)))
}
