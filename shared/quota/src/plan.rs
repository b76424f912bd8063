//! The decision without the state: from what is wanted, the limits, and what is used and held of them, to a hold or a refusal.
//!
//! Whoever keeps the state (the [`Counter`](crate::Counter) in memory, rows in a database) calls this and then applies what it says. The trap: what it
//! was told must still be true when it is applied. In memory nothing runs in between; rows are compared with the limits once more as they are changed.
//!
//! What is used and held is given cap by cap ([`Stand`]), in the order of the caps that the decision is about: [`caps`] of a turn that begins,
//! [`caps_now`] of one that runs.

use crate::alert::{self, Alert};
use crate::budget::{AdmitError, Budget, fit, no_crumbs, output_ever, output_now, shared, slice, whole};
use crate::hold::{Hold, Request};
use crate::waits::Waits;
use crate::window::{self, Amount, Cap, LimitName, Period, Scope, Span};
use crate::words::Refusal;
use astra_kernel::{Allowance, MoneyError, Timestamp, Tokens, Usage};
use serde::{Deserialize, Serialize};

/// What counts as a minute for `maxTurnsPerMinute`, in milliseconds.
pub const MINUTE_MILLIS: i64 = 60_000;

/// What is used and held of one cap's window, by its scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// As the ledger has it.
    pub used: Amount,
    /// What running turns may use.
    pub held: Amount,
}

/// Turns that began within the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// How many.
    pub count: i64,
    /// The first of them.
    pub first: Option<Timestamp>,
}

/// The caps of a turn that wants to begin.
pub fn caps(request: &Request<'_>) -> Vec<Cap> {
    window::caps(request.limits, &request.agent, request.allowance, request.spans)
}

/// The caps of a running turn: the limits of its workspace and of its agent as they are now, also one that came while it ran, over the windows that it began in. Each with the month
/// that they are of: in another one the turn keeps to that month's as they were. None: to all as they were, because nothing is known of the workspace or of the agent, or it is gone.
pub fn caps_now(hold: &Hold, of_workspace: Option<(Span, Allowance)>, of_agent: Option<(Span, Allowance)>) -> Vec<Cap> {
    let mut caps = Vec::with_capacity(4);
    for (scope, now) in [(Scope::workspace(), of_workspace), (Scope::agent(&hold.agent), of_agent)] {
        let is_its_month = now.is_some_and(|(month, _)| hold.is_in(&month));
        let is_kept = |cap: &Cap| now.is_none() || (cap.limit.period() == Period::Month && !is_its_month);
        let as_they_were = hold.caps.iter().filter(|cap| cap.scope == scope && is_kept(cap)).cloned();
        caps.extend(as_they_were.map(|cap| Cap { window: hold.span(cap.limit.period()).unwrap_or(cap.window), ..cap }));
        if let Some((_, allowance)) = now {
            window::push(&mut caps, &scope, &allowance, |period| hold.span(period).filter(|_| period != Period::Month || is_its_month));
        }
    }
    caps
}

/// The windows that a decision about a running turn looks at; `caps` are its own or [`caps_now`].
pub fn windows_now(hold: &Hold, caps: &[Cap]) -> Vec<Span> {
    hold.span(Period::Month).map_or_else(Vec::new, |month| window::looked_at(caps, month))
}

/// The limits that are used up as far as a turn is concerned that may not begin; `stands` are of [`caps`]. That a use does not fit as a whole says nothing of that.
pub fn used_up(request: &Request<'_>, stands: &[Stand]) -> Vec<Alert> {
    if request.presumed.is_some() {
        return Vec::new();
    }
    alert::used_up(&caps(request), stands, request.size.least, &request.price)
}

/// The windows that the decision about a turn that wants to begin looks at.
pub fn windows(request: &Request<'_>) -> Vec<Span> {
    window::looked_at(&caps(request), request.spans.month)
}

fn budgets(caps: &[Cap], stands: &[Stand], max_tokens_per_turn: Option<i64>) -> Vec<Budget> {
    let turn = max_tokens_per_turn.map(|max| Budget { limit: None, scope: Scope::workspace(), max, used: 0, held: 0, window: None });
    let windows = caps.iter().zip(stands).map(|(cap, stand)| Budget {
        limit: Some(cap.limit),
        scope: cap.scope.clone(),
        max: cap.max,
        used: cap.amount(stand.used),
        held: cap.amount(stand.held),
        window: Some(cap.window),
    });
    turn.into_iter().chain(windows).collect()
}

/// Decides whether a turn may begin, and what it holds. `stands` are of [`caps`]; `waits` are the limits that running turns stand still for.
///
/// # Errors
/// [`AdmitError`].
pub fn admit(request: Request<'_>, caps: Vec<Cap>, stands: &[Stand], recent: Recent, waits: &[Waits]) -> Result<Hold, AdmitError> {
    if stands.len() != caps.len() {
        return Err(AdmitError::NotLoaded);
    }
    let Request { size, wanted_output, price, now, max_tokens_per_turn, lease_millis, presumed, .. } = request;
    let is_use = presumed.is_some();
    let budgets = budgets(&caps, stands, max_tokens_per_turn);
    let input_bound = if is_use {
        whole(&budgets, size.full, wanted_output, &price, now)?;
        size.full
    } else {
        counts(&request, recent)?;
        fit(&budgets, size, wanted_output, &price, now)?
    };
    // What running turns need to go on is theirs first: a turn that begins would only take it from them.
    let waited_for =
        |b: &&Budget| b.limit.zip(b.window).is_some_and(|(limit, window)| waits.iter().any(|w| w.is_for(&b.scope, &window, limit)));
    if let Some(budget) = budgets.iter().find(waited_for) {
        let refusal = budget.refusal(input_bound, 1, &price, now)?;
        return Err(AdmitError::Refused(Refusal { retry_after: Some(1), ..refusal }));
    }
    if !is_use {
        no_crumbs(&budgets, input_bound, wanted_output, &price, now)?;
    }
    let left = output_now(&budgets, input_bound, &price).unwrap_or(1);
    let most = left.min(wanted_output);
    let max_output = if price.holds_maximum { most } else { output_ever(&budgets, input_bound, &price).clamp(most, wanted_output) };
    let of_shared = output_now(shared(&budgets), input_bound, &price).unwrap_or(left);
    let output = if price.holds_maximum { most } else { slice(0, left, of_shared).min(most) };
    let (output, max_output) = if is_use { (wanted_output, wanted_output) } else { (output, max_output) };
    Ok(Hold {
        agent: request.agent,
        subject: request.subject,
        guest: request.guest,
        key: request.key,
        started_at: now,
        spans: request.spans.all().to_vec(),
        caps,
        max_tokens_per_turn,
        max_turns_per_minute: request.limits.max_turns_per_minute.filter(|_| !is_use),
        input_bound,
        output,
        max_output,
        bounded_by_budget: max_output < wanted_output,
        cost: price.at_most(input_bound, output)?,
        price,
        lease_millis,
        expires_at: now.plus_millis(lease_millis),
        sequence: 0,
        progress: presumed.unwrap_or(Usage::NONE),
        stop: false,
        until: request.until,
        waits: None,
    })
}

/// The limits that count things, not tokens.
fn counts(request: &Request<'_>, recent: Recent) -> Result<(), AdmitError> {
    let refuse = |limit: &str, max, used, resets_at: Option<Timestamp>| {
        let retry_after = resets_at.map(|at| (at.0 - request.now.0).max(0) / 1000 + 1);
        let (limit, scope) = (limit.into(), "workspace".into());
        Err(AdmitError::Refused(Refusal { limit, scope, max, used, held: 0, needs: 1, resets_at, retry_after }))
    };
    let Recent { count, first } = recent;
    match (request.limits.max_turns_per_minute, request.limits.max_agents) {
        (Some(max), _) if count >= max => {
            refuse("maxTurnsPerMinute", max, count, first.filter(|_| max > 0).map(|at| at.plus_millis(MINUTE_MILLIS)))
        }
        (_, Some(max)) if request.agent_count > max => refuse("maxAgents", max, request.agent_count, None),
        _ => Ok(()),
    }
}

/// Whose limit does not let a hold grow as far as it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// Whose.
    pub scope: Scope,
    /// Over which window; none where nobody can give anything back: the limit of one turn, or one that would not pay for it alone.
    pub window: Option<Span>,
    /// Which one. None: the limit of one turn.
    pub limit: Option<LimitName>,
}

impl Short {
    /// What the turn stands still for, if it does.
    pub fn waits(&self) -> Option<Waits> {
        Some(Waits::new(&self.scope, self.window.as_ref()?, self.limit?))
    }
}

/// What became of a hold that was asked to grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The hold: with all that was asked for and a slice more, or with what was left.
    pub hold: Hold,
    /// Why it is not all that was asked for.
    pub short: Option<Short>,
}

/// Decides a hold anew: for a larger prompt, before the model is called; or for more output, when the model answers. `stands` are of `caps`
/// ([`caps_now`]), with the hold itself in them.
///
/// # Errors
/// [`MoneyError`] when an amount does not fit.
pub fn grow(old: &Hold, caps: Vec<Cap>, stands: &[Stand], input: Tokens, output: Tokens) -> Result<Growth, MoneyError> {
    let own = old.amount();
    let others: Vec<_> = stands.iter().map(|stand| Stand { held: stand.held.less(own), ..*stand }).collect();
    let budgets = budgets(&caps, &others, old.max_tokens_per_turn);
    let input_bound = input.max(old.input_bound);
    let needed = output.min(old.max_output);
    let may_come = output_ever(&budgets, input_bound, &old.price) >= needed.max(1);
    let short =
        |budget: &Budget| Some(Short { scope: budget.scope.clone(), window: budget.window.filter(|_| may_come), limit: budget.limit });
    let unchanged = |short| Ok(Growth { hold: old.clone(), short });
    let is_larger_prompt = input > old.input_bound;
    if !is_larger_prompt && needed <= old.output {
        return unchanged(None);
    }
    let left = match output_now(&budgets, input_bound, &old.price) {
        Ok(left) => left,
        Err(budget) => return unchanged(short(budget)),
    };
    let of_shared = output_now(shared(&budgets), input_bound, &old.price).unwrap_or(left);
    let mut hold = Hold { caps, input_bound, ..old.clone() };
    let mut lacks = None;
    if is_larger_prompt {
        // Nothing was said yet: what is held for output is decided anew too.
        let most = if old.price.holds_maximum { left } else { output_ever(&budgets, input_bound, &old.price) };
        hold.max_output = old.max_output.min(most);
        hold.bounded_by_budget = old.bounded_by_budget || hold.max_output < old.max_output;
        hold.output = if old.price.holds_maximum { hold.max_output } else { slice(0, left, of_shared).min(hold.max_output) };
    } else if left >= needed {
        hold.output = (needed + slice(old.output, left - needed, of_shared - needed)).min(old.max_output);
    } else {
        let least = budgets.iter().min_by_key(|b| output_now(std::slice::from_ref(b), input_bound, &old.price).unwrap_or(0));
        lacks = least.and_then(short);
        if left <= old.output {
            return unchanged(lacks);
        }
        hold.output = left;
    }
    hold.cost = hold.price.at_most(hold.input_bound, hold.output)?;
    Ok(Growth { hold, short: lacks })
}
