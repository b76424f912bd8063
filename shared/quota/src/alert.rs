//! Marks of a limit that were passed: for who wants to know before it is reached.
//!
//! The last mark is told by whichever comes first: the use that passes it, or a turn that is refused or ended because what is left does not pay for it
//! ([`used_up`]). Near a limit the latter is the rule, because nothing is begun that may not be paid for.

use crate::budget::needs;
use crate::plan::Stand;
use crate::window::Cap;
use astra_kernel::{Price, Timestamp, Tokens, WorkspaceId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The marks, in percent of a limit.
pub const MARKS: [i64; 3] = [50, 80, 100];

/// From so many percent on a limit is used up when it does not pay for a turn. Below, the turn is too large for it.
const USED_UP: i64 = 90;

/// One mark that was passed. It is told once for each window, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// The limit's name in the API.
    pub limit: String,
    /// Whose.
    pub scope: String,
    /// When its window began.
    pub starts_at: Timestamp,
    /// The mark, in percent.
    pub mark: i64,
    /// The limit.
    pub max: i64,
    /// Used of it.
    pub used: i64,
}

/// Marks that were passed and belong to no turn's record: the argument of the SQL function `quota_mark`.
#[derive(Debug, Serialize)]
pub struct Marks {
    /// The marks.
    pub alerts: Vec<Alert>,
    /// When.
    pub now: Timestamp,
}

/// How long it is known that a mark was told, in milliseconds. After that it is told again, which changes nothing.
const TOLD_MILLIS: i64 = 600_000;

/// So many are known at most.
const TOLD_MOST: usize = 10_000;

/// Which marks were told lately: a limit that is used up refuses turn after turn, and one of them tells it.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<(WorkspaceId, Timestamp, String, String), Timestamp>);

impl Told {
    /// Nothing was told.
    pub const fn nothing() -> Self {
        Self(BTreeMap::new())
    }

    /// What of this is to be told now, if anything. It counts as told from then on.
    pub fn news(&mut self, workspace: &WorkspaceId, mut alerts: Vec<Alert>, now: Timestamp) -> Option<Marks> {
        if self.0.len() > TOLD_MOST {
            self.forget();
        }
        alerts.retain(|Alert { limit, scope, starts_at, .. }| {
            let until = self.0.entry((workspace.clone(), *starts_at, limit.clone(), scope.clone())).or_insert(now);
            let is_due = *until <= now;
            if is_due {
                *until = now.plus_millis(TOLD_MILLIS);
            }
            is_due
        });
        (!alerts.is_empty()).then_some(Marks { alerts, now })
    }

    /// What was to be told was not.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// Which marks were passed between two moments.
pub fn passed(caps: &[Cap], before: &[Stand], after: &[Stand]) -> Vec<Alert> {
    let stands = caps.iter().zip(before.iter().zip(after));
    stands.flat_map(|(cap, (before, after))| marks(cap, cap.amount(before.used), cap.amount(after.used))).collect()
}

/// Which limits do not pay for a turn with so much input and a token of output any more, also if nobody held anything: they are used up. A limit of which
/// much is left is not: the turn is too large for it.
pub fn used_up(caps: &[Cap], stands: &[Stand], input: Tokens, price: &Price) -> Vec<Alert> {
    let [.., last] = MARKS;
    let stands = caps.iter().zip(stands).map(|(cap, stand)| (cap, cap.amount(stand.used)));
    let is_used_up =
        |cap: &Cap, used: i64| needs(cap.limit.unit(), input, 1, price).is_ok_and(|needs| cap.max.saturating_sub(used) < needs);
    stands.filter(|(cap, used)| is_at(cap, *used, USED_UP) && is_used_up(cap, *used)).map(|(cap, used)| alert(cap, used, last)).collect()
}

fn marks(cap: &Cap, before: i64, after: i64) -> impl Iterator<Item = Alert> {
    MARKS.into_iter().filter(move |mark| is_at(cap, after, *mark) && !is_at(cap, before, *mark)).map(move |mark| alert(cap, after, mark))
}

/// A limit of nothing has no marks.
fn is_at(cap: &Cap, used: i64, mark: i64) -> bool {
    cap.max > 0 && i128::from(used) * 100 >= i128::from(cap.max) * i128::from(mark)
}

fn alert(cap: &Cap, used: i64, mark: i64) -> Alert {
    let (limit, scope) = (cap.limit.as_str().to_owned(), cap.scope.as_str().to_owned());
    Alert { limit, scope, starts_at: cap.window.starts_at, mark, max: cap.max, used }
}
