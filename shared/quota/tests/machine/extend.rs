//! A sign of life: what is noted of it, how far the hold must grow, and whether it is worth to wait.

use crate::model::{Limit, Line, Model, Room, Turn, Waits, is_in, limits_of, of_shared, output_for, slice};
use crate::world::{LEASE, World};
use astra_kernel::{Allowance, Timestamp, TurnId};
use astra_quota::words::Extend;
use astra_quota::{Heard, Period, Span};
use std::collections::BTreeSet;

impl Model {
    fn extend(&mut self, extend: &Extend) -> Heard {
        let (now, id) = (self.now, extend.turn_id);
        let Some(turn) = self.running.get_mut(&id) else { return Heard::NotRunning };
        // What was overtaken changes nothing; what comes twice changes nothing more.
        if extend.sequence < turn.sequence {
            return Heard::Taken(turn.answer(extend, false));
        }
        if extend.sequence > turn.sequence {
            (turn.sequence, turn.progress) = (extend.sequence, extend.progress);
            turn.expires_at = turn.expires_at.max(Timestamp(now.0 + LEASE));
        }
        if turn.covers(extend) {
            turn.waits = None;
            return Heard::Taken(turn.answer(extend, false));
        }
        let turn = turn.clone();
        let limits = self.limits_of_running(&turn);
        if !limits.iter().all(|limit| self.known.contains(&limit.window)) {
            return Heard::NotLoaded;
        }
        let lines = self.lines(&limits, turn.max_tokens, Some(id));
        let (grown, short) = grow(&turn, limits, &lines, extend);
        let wait = |line: &Line| Some(Waits { name: line.name, agent: line.agent, window: line.window? });
        let waits = short.filter(|line| extend.is_urgent && self.may_be_given_back(id, line)).and_then(wait);
        // Who waits takes nothing of what is left.
        let turn = Turn { waits, ..if waits.is_some() { turn } else { grown } };
        let answer = turn.answer(extend, waits.is_some());
        self.running.insert(id, turn);
        Heard::Taken(answer)
    }

    /// The limits of the workspace and of the agent as the counter knows them now, over the windows in which the turn began. A month's limits are that month's: in another one the turn's
    /// own are what they were. So are those of a workspace or an agent that the counter was not told of.
    fn limits_of_running(&self, turn: &Turn) -> Vec<Limit> {
        let own = |period| turn.windows.into_iter().find(|window| window.period == period);
        let of_workspace = self.told.map(|(spans, limits)| (spans.month, limits.allowance()));
        let of = |agent: Option<u8>, told: Option<(Span, Allowance)>| {
            let was = turn.limits.iter().filter(|limit| limit.agent == agent);
            let was = was.map(|limit| Limit { window: own(limit.window.period).unwrap(), ..*limit });
            let is_month = |limit: &Limit| limit.window.period == Period::Month;
            let Some((month, allowance)) = told else { return was.collect::<Vec<_>>() };
            let (months, others): (Vec<Limit>, Vec<Limit>) = limits_of(agent, &allowance, own).into_iter().partition(is_month);
            let months = if is_in(&month, turn.started_at) { months } else { was.filter(is_month).collect() };
            months.into_iter().chain(others).collect()
        };
        of(None, of_workspace).into_iter().chain(of(Some(turn.agent), self.told_of.get(&turn.agent).copied())).collect()
    }

    /// Others that go on will give something back when they end; and of those that wait, the last that began is the first to end.
    fn may_be_given_back(&self, id: TurnId, line: &Line) -> bool {
        let Some(window) = line.window else { return false };
        let holds_some = |turn: &Turn| is_in(&window, turn.started_at) && line.agent.is_none_or(|agent| agent == turn.agent);
        self.running.iter().any(|(other, turn)| *other != id && holds_some(turn) && (turn.waits.is_none() || *other > id))
    }
}

/// The hold as large as asked for and a slice more, or with what is left; and the limit for which it can be worth to wait.
fn grow<'a>(turn: &Turn, limits: Vec<Limit>, lines: &'a [Line], extend: &Extend) -> (Turn, Option<&'a Line>) {
    let (price, input, needed) = (&turn.price, turn.input.max(extend.input_bound), extend.output.min(turn.max_output));
    let (left, ever) = (output_for(lines, Room::Now, price, input), output_for(lines, Room::Ever, price, input));
    let shared = of_shared(lines, price, input);
    let tightest = lines.iter().min_by_key(|line| output_for(std::slice::from_ref(line), Room::Now, price, input));
    let short = tightest.filter(|_| ever >= needed.max(1));
    let grown = Turn { limits, input, ..turn.clone() };
    if left == 0 {
        return (turn.clone(), short);
    }
    if extend.input_bound > turn.input {
        // Nothing was said yet: output is decided anew beside the larger prompt.
        let (most, first) = if price.holds_maximum { (left, left) } else { (ever, slice(0, left, shared)) };
        let max_output = turn.max_output.min(most);
        let is_bounded = turn.is_bounded || max_output < turn.max_output;
        return (Turn { output: first.min(max_output), max_output, is_bounded, ..grown }, None);
    }
    if left >= needed {
        let output = (needed + slice(turn.output, left - needed, shared - needed)).min(turn.max_output);
        return (Turn { output, ..grown }, None);
    }
    if left <= turn.output {
        return (turn.clone(), short);
    }
    (Turn { output: left, ..grown }, short)
}

impl World {
    /// Tells the counter that a turn lives, as the desk does.
    pub(crate) fn extend(&mut self, extend: &Extend) -> Heard {
        let before = self.model.running.get(&extend.turn_id).cloned();
        let heard = loop {
            let expected = self.model.extend(extend);
            let heard = self.counter.extend(self.model.now, extend);
            assert_eq!(heard, expected, "the answer to a sign of life: {extend:?} {before:?}");
            if heard != Heard::NotLoaded {
                break heard;
            }
            let windows = self.counter.windows_now(extend.turn_id);
            let turn = &self.model.running[&extend.turn_id];
            let looked_at = self.model.limits_of_running(turn).into_iter().map(|limit| limit.window).chain([turn.windows[0]]);
            assert_eq!(windows.iter().copied().collect::<BTreeSet<_>>(), looked_at.collect(), "what it has to know");
            self.load(&windows);
        };
        if let (Some(before), Some(after)) = (before, self.model.running.get(&extend.turn_id)) {
            assert!(after.output >= before.output || after.input > before.input, "nothing that was granted is taken away");
            if (after.input, after.output) != (before.input, before.output) {
                self.check_decision(extend.turn_id);
            }
        }
        heard
    }
}
