//! A turn that wants to begin: what it must be given, or why it must be refused.

use crate::end::mark;
use crate::model::{Limit, Line, Model, Room, Turn, Waits, all_pay, amount, is_in, largest, limits_of, of_shared, output_for, slice};
use crate::world::{AGENT_COUNT, LEASE, World, per_turn, price};
use crate::{agent, turn_id};
use astra_kernel::{Price, Timestamp, Tokens, TurnId, Usage, UsageSource};
use astra_quota::{AdmitError, Alert, Known, Refusal, Request, Size, Span, plan};

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) agent: u8,
    pub(crate) least: Tokens,
    pub(crate) history: Tokens,
    pub(crate) output: Tokens,
    /// An idempotency key and a body.
    pub(crate) key: Option<(u8, bool)>,
    /// What was spent is read from the ledger before.
    pub(crate) loads: bool,
    /// It is a use and no turn: what it is charged if nothing is heard of it.
    pub(crate) presumed: Option<Tokens>,
}

impl Wish {
    fn key(&self) -> Option<(String, String)> {
        self.key.map(|(key, body)| (format!("key{key}"), format!("{body}")))
    }

    fn presumed(&self) -> Option<Usage> {
        self.presumed.map(|input_tokens| Usage { input_tokens, source: UsageSource::Estimated, ..Usage::NONE })
    }

    fn subject(&self) -> String {
        format!("member{}", self.agent % 2)
    }
}

impl Model {
    /// The limits of a turn that begins now.
    fn limits_now(&self, agent: u8) -> Vec<Limit> {
        let spans = self.zone.spans(self.now);
        let mut limits = limits_of(None, &self.limits.allowance(), |period| Some(spans.of(period)));
        let of_agent = self.allowances[usize::from(agent)].unwrap_or_default();
        limits.extend(limits_of(Some(agent), &of_agent, |period| Some(spans.of(period))));
        limits
    }

    /// Whose answer a request with this key must have: a turn's that runs, or that ended within the last minute and began in this month.
    fn known(&self, (key, hash): &(String, String), subject: &str) -> Option<Known> {
        let running = self.running.iter().filter_map(|(turn, t)| Some((*turn, t.key.as_ref()?, &t.subject)));
        let is_fresh =
            |at: Timestamp, month: &Span| self.now.0 - at.0 < 60_000 && (month.starts_at.0..month.ends_at.0).contains(&self.now.0);
        let closed = self.closed.iter().filter(|c| is_fresh(c.at, &c.month)).map(|c| (c.turn, &c.key, &c.subject));
        let (turn, (_, body), whose) = running.chain(closed).find(|(_, (k, _), _)| k == key)?;
        Some(if body == hash && whose == subject { Known::Same(turn) } else { Known::Other })
    }

    fn begin(&mut self, turn: TurnId, wish: &Wish) -> Result<(), AdmitError> {
        let (spans, price, now) = (self.zone.spans(self.now), price(wish.agent), self.now);
        let is_over =
            |window: &Span, model: &Self| window.ends_at.0 <= now.0 && !model.running.values().any(|t| is_in(window, t.started_at));
        self.known = self.known.iter().filter(|window| !is_over(window, self)).copied().collect();
        self.tell(wish.agent);
        let limits = self.limits_now(wish.agent);
        let mut windows = vec![spans.month];
        for limit in &limits {
            if !windows.contains(&limit.window) {
                windows.push(limit.window);
            }
        }
        if !windows.iter().all(|window| self.known.contains(window)) {
            return Err(AdmitError::NotLoaded);
        }
        let lines = self.lines(&limits, per_turn(wish.agent), None);
        let (input, output, max_output) =
            if wish.presumed.is_some() { self.whole(wish, &lines, &price)? } else { self.sliced(wish, &lines, &price)? };
        let per_minute = self.limits.max_turns_per_minute.filter(|_| wish.presumed.is_none());
        self.begun.extend(per_minute.map(|_| now));
        let turn_now = Turn {
            agent: wish.agent,
            subject: wish.subject(),
            key: wish.key(),
            started_at: now,
            windows: [spans.month, spans.day, spans.hour],
            limits,
            max_tokens: per_turn(wish.agent),
            per_minute,
            price,
            input,
            output,
            max_output,
            is_bounded: max_output < wish.output,
            expires_at: Timestamp(now.0 + LEASE),
            sequence: 0,
            progress: wish.presumed().unwrap_or(Usage::NONE),
            stop: false,
            waits: None,
            is_use: wish.presumed.is_some(),
        };
        self.running.insert(turn, turn_now);
        Ok(())
    }

    /// All of it or nothing, whatever others hold.
    fn whole(&self, wish: &Wish, lines: &[Line], price: &Price) -> Result<(Tokens, Tokens, Tokens), AdmitError> {
        let (input, now) = (wish.least + wish.history, self.now);
        let is_there = |line: &Line| all_pay(std::slice::from_ref(line), Room::Now, amount(price, input, wish.output));
        if let Some(line) = lines.iter().find(|line| !is_there(line)) {
            return Err(AdmitError::Refused(line.refusal(input, wish.output, price, now)));
        }
        if let Some(line) = lines.iter().find(|line| self.is_waited_for(line)) {
            return Err(AdmitError::Refused(Refusal { retry_after: Some(1), ..line.refusal(input, 1, price, now) }));
        }
        Ok((input, wish.output, wish.output))
    }

    /// As much of the conversation as leaves room, and a slice of output: how much input, how much output, and how much it may become.
    fn sliced(&self, wish: &Wish, lines: &[Line], price: &Price) -> Result<(Tokens, Tokens, Tokens), AdmitError> {
        self.refuse_by_count()?;
        let now = self.now;
        let pay = |input, output| all_pay(lines, Room::Now, amount(price, input, output));
        if let Some(line) = lines.iter().find(|line| !all_pay(std::slice::from_ref(*line), Room::Now, amount(price, wish.least, 1))) {
            return Err(AdmitError::Refused(line.refusal(wish.least, 1, price, now)));
        }
        // As much of the conversation as leaves room for some output.
        let input = wish.least + largest(wish.history, |more| pay(wish.least + more, wish.output.min(256)));
        if let Some(line) = lines.iter().find(|line| self.is_waited_for(line)) {
            return Err(AdmitError::Refused(Refusal { retry_after: Some(1), ..line.refusal(input, 1, price, now) }));
        }
        // No crumbs while others will give back: what suffices would be there but for what they hold.
        let suffices = wish.output.min(256);
        let is_there = |line: &Line| all_pay(std::slice::from_ref(line), Room::Now, amount(price, input, suffices));
        if let Some(line) = lines.iter().find(|line| !is_there(line)).filter(|_| all_pay(lines, Room::Ever, amount(price, input, suffices)))
        {
            return Err(AdmitError::Refused(Refusal { retry_after: Some(1), ..line.refusal(input, suffices, price, now) }));
        }
        let left = output_for(lines, Room::Now, price, input);
        let most = left.min(wish.output);
        Ok(if price.holds_maximum {
            (input, most, most)
        } else {
            let output = slice(0, left, of_shared(lines, price, input)).min(most);
            (input, output, output_for(lines, Room::Ever, price, input).min(wish.output))
        })
    }

    /// The limits near their end that do not pay for the least that is needed, also if nobody held anything: the last mark of each.
    fn used_up(&self, wish: &Wish) -> Vec<Alert> {
        if wish.presumed.is_some() {
            return vec![];
        }
        let limits = self.limits_now(wish.agent);
        let lines = self.lines(&limits, None, None);
        let least = amount(&price(wish.agent), wish.least, 1);
        let is_near = |line: &Line| line.max > 0 && line.used * 10 >= line.max * 9;
        let used_up =
            limits.iter().zip(&lines).filter(|(_, line)| is_near(line) && !all_pay(std::slice::from_ref(*line), Room::Ever, least));
        used_up.map(|(limit, line)| mark(limit, 100, line.used)).collect()
    }

    /// What running turns wait for is theirs first.
    fn is_waited_for(&self, line: &Line) -> bool {
        let is_for = |waits: Waits| (waits.name, waits.agent, Some(waits.window)) == (line.name, line.agent, line.window);
        self.running.values().any(|turn| turn.waits.is_some_and(is_for))
    }

    fn refuse_by_count(&self) -> Result<(), AdmitError> {
        let refuse = |limit: &str, max, used, resets_at: Option<Timestamp>| {
            let retry_after = resets_at.map(|at| (at.0 - self.now.0) / 1000 + 1);
            let (limit, scope) = (limit.into(), "workspace".into());
            Err(AdmitError::Refused(Refusal { limit, scope, max, used, held: 0, needs: 1, resets_at, retry_after }))
        };
        let (count, first) = self.last_minute();
        if let Some(max) = self.limits.max_turns_per_minute.filter(|max| count >= *max) {
            return refuse("maxTurnsPerMinute", max, count, first.filter(|_| max >= 1).map(|at| Timestamp(at.0 + 60_000)));
        }
        match self.limits.max_agents {
            Some(max) if AGENT_COUNT > max => refuse("maxAgents", max, AGENT_COUNT, None),
            _ => Ok(()),
        }
    }

    /// How many turns began within the last minute, and when the first of them.
    pub(crate) fn last_minute(&self) -> (i64, Option<Timestamp>) {
        let recent: Vec<_> = self.begun.iter().filter(|at| self.now.0 - at.0 < 60_000).copied().collect();
        (i64::try_from(recent.len()).unwrap(), recent.first().copied())
    }
}

impl Line {
    fn refusal(&self, input: Tokens, output: Tokens, price: &Price, now: Timestamp) -> Refusal {
        let small = |number: i128| i64::try_from(number).unwrap();
        let needs = amount(price, input, output).of(self.is_cost);
        let after_window = self.window.filter(|_| needs <= self.max).map(|window| (window.ends_at.0 - now.0) / 1000 + 1);
        Refusal {
            limit: self.name.into(),
            scope: if self.agent.is_some() || self.window.is_none() { "agent" } else { "workspace" }.into(),
            max: small(self.max),
            used: small(self.used),
            held: small(self.held),
            needs: small(needs),
            resets_at: self.window.map(|window| window.ends_at),
            // When others may give back enough: soon. Else when the window is over, if the limit is not too small for it even then.
            retry_after: if self.held > 0 && self.used + needs <= self.max { Some(1) } else { after_window },
        }
    }
}

impl World {
    /// As the desk does it: the key first, then what was spent, then the decision. The database denies an agent that is not there.
    pub(crate) fn begin(&mut self, wish: &Wish) {
        if self.model.allowances[usize::from(wish.agent)].is_none() {
            return;
        }
        let subject = wish.subject();
        if let Some(key) = wish.key() {
            let known = self.counter.known(&key.0, &key.1, &subject, self.model.now);
            assert_eq!(known, self.model.known(&key, &subject), "whose key it is");
            if known.is_some() {
                return;
            }
        }
        self.next += 1;
        self.admit(turn_id(self.next), wish);
    }

    /// The same message once more: its turn keeps what it holds.
    pub(crate) fn begin_again(&mut self, turn: TurnId, wish: &Wish) {
        let before = self.counter.hold(turn).cloned();
        let again = self.request(turn, wish, |counter, request| counter.admit(request).cloned().ok());
        assert_eq!(again, before, "a turn that holds something keeps it");
    }

    fn request<T>(&mut self, turn: TurnId, wish: &Wish, ask: impl FnOnce(&mut astra_quota::Counter, Request<'_>) -> T) -> T {
        let allowance = self.model.allowances[usize::from(wish.agent)].unwrap_or_default();
        let (limits, spans) = (self.model.limits, self.model.zone.spans(self.model.now));
        let request = Request {
            turn,
            agent: agent(wish.agent),
            subject: wish.subject(),
            guest: None,
            key: wish.key(),
            now: self.model.now,
            spans: &spans,
            limits: &limits,
            allowance: &allowance,
            agent_count: AGENT_COUNT,
            max_tokens_per_turn: per_turn(wish.agent),
            until: None,
            size: Size { least: wish.least, full: wish.least + wish.history },
            wanted_output: wish.output,
            presumed: wish.presumed(),
            price: price(wish.agent),
            lease_millis: LEASE,
        };
        ask(&mut self.counter, request)
    }

    fn admit(&mut self, turn: TurnId, wish: &Wish) {
        if wish.loads {
            let windows = self.request(turn, wish, |_, request| plan::windows(&request));
            self.load(&windows);
        }
        let expected = self.model.begin(turn, wish);
        let admitted = self.request(turn, wish, |counter, request| counter.admit(request).map(|_| ()));
        assert_eq!(admitted, expected, "whether it may begin: {wish:?}");
        if let Err(AdmitError::Refused(refusal)) = &admitted {
            self.check_refusal(refusal);
            let told =
                self.request(turn, wish, |counter, request| plan::used_up(&request, &counter.stands(&plan::caps(&request)).unwrap()));
            assert_eq!(told, self.model.used_up(wish), "the last mark of what is used up");
        }
        if admitted.is_ok() {
            self.check_decision(turn);
            self.check_no_crumbs(turn, wish);
        }
    }

    /// What begins with less than suffices would never get it, whoever gives something back.
    fn check_no_crumbs(&self, turn: TurnId, wish: &Wish) {
        let hold = self.counter.hold(turn).unwrap();
        let suffices = wish.output.min(256);
        let need = amount(&hold.price, hold.input_bound, suffices);
        let lines = self.model.lines(&self.model.limits_now(wish.agent), per_turn(wish.agent), None);
        assert!(hold.output >= suffices || !all_pay(&lines, Room::Ever, need), "it begins with crumbs: {hold:?}");
    }

    /// No refusal is false: what is needed is not there, or somebody waits for it.
    fn check_refusal(&self, refusal: &Refusal) {
        let left = refusal.max - refusal.used - refusal.held;
        let is_waited_for = refusal.retry_after == Some(1) && self.model.running.values().any(|turn| turn.waits.is_some());
        assert!(left < refusal.needs || is_waited_for || refusal.limit == "maxAgents", "it refuses what is there: {refusal:?}");
    }
}
