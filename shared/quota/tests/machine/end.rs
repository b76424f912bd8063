//! A turn's end: its charge takes the place of its hold, once, in the windows in which it began; or it dies and is charged what it reported.

use crate::agent;
use crate::check::scope_name;
use crate::model::{Closed, Entry, Limit, Model, Sum, amount};
use crate::world::{World, price};
use astra_kernel::{NanoUsd, TurnId, Usage, UsageSource};
use astra_quota::words::Extend;
use astra_quota::{Alert, Amount, Heard, Hold, SaveOutcome, alert};

/// A mark that is passed.
pub(crate) fn mark(limit: &Limit, mark: i128, used: i128) -> Alert {
    let small = |number| i64::try_from(number).unwrap();
    let (name, scope, starts_at) = (limit.name.into(), scope_name(limit.agent).into(), limit.window.starts_at);
    Alert { limit: name, scope, starts_at, mark: small(mark), max: limit.max, used: small(used) }
}

fn charge(agent: u8, usage: &Usage) -> Sum {
    Sum { cost: price(agent).cost(usage).unwrap().0.into(), tokens: usage.total_tokens().into() }
}

impl Model {
    fn close(&mut self, turn: TurnId) {
        if let Some(ended) = self.running.remove(&turn) {
            let (at, month, subject) = (self.now, ended.windows[0], ended.subject);
            self.closed.extend(ended.key.map(|key| Closed { at, turn, subject, key, month }));
        }
    }

    /// What the database does with a record.
    fn save(&mut self, turn: TurnId, entry: Entry) -> SaveOutcome {
        match self.ledger.get_mut(&turn) {
            None => {
                self.ledger.insert(turn, entry);
                SaveOutcome::Saved
            }
            // A settlement that comes after all corrects what was charged when the turn was taken for dead: once.
            Some(there) if there.is_expired && !entry.is_expired => {
                *there = entry;
                SaveOutcome::Corrected
            }
            Some(_) => SaveOutcome::Duplicate,
        }
    }

    /// The marks that lie above one use and not above another.
    fn marks(&self, limits: &[Limit], before: &[i128]) -> Vec<Alert> {
        let passed = |(limit, before): (&Limit, &i128)| {
            let (limit, before) = (*limit, *before);
            let after = self.used(&limit.window, limit.agent).of(limit.is_cost);
            let percent = move |used: i128| if limit.max > 0 { used * 100 / i128::from(limit.max) } else { 0 };
            [50, 80, 100]
                .into_iter()
                .filter(move |mark| percent(before) < *mark && *mark <= percent(after))
                .map(move |percent| mark(&limit, percent, after))
        };
        limits.iter().zip(before).flat_map(passed).collect()
    }
}

impl World {
    /// As the desk does it: settle in memory, save, and doubt what was a record already. `knows`: or as who knows before what the database says.
    fn settle(&mut self, turn: TurnId, entry: Entry, knows: bool) {
        let hold = self.counter.hold(turn).cloned();
        let limits = self.model.running.get(&turn).map(|turn| turn.limits.clone()).unwrap_or_default();
        let caps = hold.map(|hold| hold.caps).unwrap_or_default();
        let used: Vec<_> = limits.iter().map(|limit| self.model.used(&limit.window, limit.agent).of(limit.is_cost)).collect();
        let before = self.counter.stands(&caps);

        let small = |number| i64::try_from(number).unwrap();
        let amount = Amount { cost: NanoUsd(small(entry.charge.cost)), tokens: small(entry.charge.tokens) };
        let (whose, started_at, now) = (agent(entry.agent), entry.started_at, self.model.now);
        self.model.close(turn);
        let outcome = self.model.save(turn, entry);
        let told = if knows { outcome } else { SaveOutcome::Saved };
        self.counter.finish(now, turn, &whose, started_at, amount, told).unwrap();
        if outcome == SaveOutcome::Saved {
            let after = self.counter.stands(&caps);
            let alerts = before.zip(after).map(|(before, after)| alert::passed(&caps, &before, &after));
            assert!(alerts.is_none_or(|alerts| alerts == self.model.marks(&limits, &used)), "each mark is told as it is passed");
        } else {
            if !knows {
                self.counter.doubt();
            }
            self.model.known.clear();
        }
        self.ended.insert(turn);
        assert_eq!(self.counter.hold(turn), None, "what is settled holds nothing");
    }

    /// As the desk does it when neither the database nor its own rows take a record: the turn holds again what it held.
    pub(crate) fn undo(&mut self, turn: TurnId) {
        let (hold, there) = (self.counter.hold(turn).unwrap().clone(), self.model.running[&turn].clone());
        let (whose, charge) = (hold.agent.clone(), Amount { cost: NanoUsd(1), tokens: 1 });
        self.counter.finish(self.model.now, turn, &whose, hold.started_at, charge, SaveOutcome::Saved).unwrap();
        self.model.close(turn);
        self.counter.doubt();
        self.model.known.clear();
        self.counter.resume(turn, hold.clone());
        self.model.running.insert(turn, there);
        // Who holds something again is not set back.
        self.counter.resume(turn, Hold { output: 0, ..hold });
    }

    pub(crate) fn finish(&mut self, turn: TurnId, usage: &Usage) {
        let hold = &self.model.running[&turn];
        let entry = Entry { agent: hold.agent, started_at: hold.started_at, charge: charge(hold.agent, usage), is_expired: false };
        self.settle(turn, entry, false);
    }

    pub(crate) fn finish_again(&mut self, turn: TurnId, usage: &Usage, knows: bool) {
        let entry = &self.model.ledger[&turn];
        let entry = Entry { charge: charge(entry.agent, usage), is_expired: false, ..entry.clone() };
        self.settle(turn, entry, knows);
    }

    /// Ends what has expired, as the alarm does.
    pub(crate) fn wake(&mut self) {
        for turn in self.counter.expired(self.model.now) {
            let dead = &self.model.running[&turn];
            assert!(dead.expires_at <= self.model.now, "it lives");
            // What was last reported, never more than was held.
            let reported = dead.progress;
            let (input_tokens, output_tokens) = (reported.input_tokens.min(dead.input), reported.output_tokens.min(dead.output));
            let expected = Usage {
                input_tokens,
                cached_input_tokens: reported.cached_input_tokens.min(input_tokens),
                output_tokens,
                reasoning_tokens: reported.reasoning_tokens.min(output_tokens),
                source: UsageSource::Estimated,
            };
            assert_eq!(self.counter.hold(turn).unwrap().charge_if_dead(), expected, "what a dead turn is charged");
            let (held, charge) = (amount(&dead.price, dead.input, dead.output), charge(dead.agent, &expected));
            assert!(charge.cost <= held.cost && charge.tokens <= held.tokens, "a dead turn is charged no more than it held");
            self.settle(turn, Entry { agent: dead.agent, started_at: dead.started_at, charge, is_expired: true }, false);
        }
        assert_eq!(self.counter.expired(self.model.now), [], "no hold outlives its lease");
    }

    /// Lets all that is running ask for more, until all have ended: each ends when it gets no more and need not wait. That ends.
    pub(crate) fn drain(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "they wait for each other for ever: {:?}", self.model.running);
            let running = &self.model.running;
            let Some((turn, hold)) = running.iter().nth(round % running.len().max(1)) else { return };
            let (turn, sequence, output) = (*turn, hold.sequence + 1, hold.output + 1);
            let (is_full, input, progress) = (hold.output >= hold.max_output, hold.input, hold.progress);
            let heard = self.extend(&Extend { turn_id: turn, sequence, progress, input_bound: 0, output, is_urgent: true });
            let Heard::Taken(extended) = heard else { panic!("{heard:?}") };
            self.check(true);
            if !extended.wait && (!extended.covered || is_full) {
                self.finish(turn, &Usage { input_tokens: input, output_tokens: extended.output, ..Usage::NONE });
                self.check(false);
            }
        }
    }
}
