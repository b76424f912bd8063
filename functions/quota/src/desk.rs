//! Answers what a workspace's counter is asked. Generic over the database and the durable rows, so that it is tested without a runtime.
//!
//! The traps: 1. Between two awaits other events run here, so a decision and what it is based on stand together without one. 2. What was spent is
//! loaded from the ledger only while no record is being written ([`Desk::ledger`] is locked), else it might be counted twice or not at all.
//! 3. A turn is settled in memory first and then saved: if the database does not take it, its row keeps it, and it was counted either way.
//! 4. A row is deleted after the database has the record, never before; if that is lost, the alarm saves it again, which changes nothing.

use crate::gate::Gate;
use astra_kernel::{AgentId, Limits, NanoUsd, Timestamp, TurnId, WorkspaceId};
use astra_quota::context::{Context, Outcome};
use astra_quota::words::{Begin, Begun, Draft, Extend, Finished, Record};
use astra_quota::{AdmitError, Answer, Ask, Counter, Hold, Known, QuotaView, SaveOutcome, Spent};
use astra_store::{Database, StoreError, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// How often a turn that begins has what was spent loaded again.
const LOADS: usize = 5;

/// How long after a failed delivery the next try is made, in milliseconds.
const RETRY_MILLIS: i64 = 1_000;

/// The longest such wait, in milliseconds: it doubles from failure to failure.
const RETRY_MOST_MILLIS: i64 = 10_000;

/// What must outlive the object's memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Row {
    /// A running turn.
    Running {
        /// Its budget.
        hold: Box<Hold>,
        /// Its record as it would be with nothing produced.
        draft: Box<Draft>,
    },
    /// A turn that has ended and is not in the database yet.
    Ended(Box<Record>),
}

/// Durable rows, one per turn. Writes are made without waiting; the runtime holds answers back until they are durable.
pub trait Rows {
    /// All of them.
    fn all(&self) -> Vec<(TurnId, Row)>;
    /// One of them.
    fn get(&self, turn: TurnId) -> Option<Row>;
    /// Writes or replaces one. False when the store failed.
    #[must_use]
    fn put(&self, turn: TurnId, row: &Row) -> bool;
    /// Deletes some.
    fn delete(&self, turns: &[TurnId]);
}

/// What `quota_status` answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    outcome: String,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    agents: Vec<AgentBudget>,
    agent_count: Option<i64>,
    spent: Option<Spent>,
}

/// An agent that has a limit of its own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AgentBudget {
    id: AgentId,
    max_cost_nano_usd_per_month: NanoUsd,
}

/// Whether the database was asked about an idempotency key already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    BeforeDatabase,
    AfterDatabase,
}

/// One workspace's counter with its database and rows.
pub struct Desk<D, R> {
    workspace: WorkspaceId,
    database: D,
    rows: R,
    counter: RefCell<Counter>,
    /// Passed alone while the ledger is read as a whole, together while records are added to it.
    ledger: Gate,
    saving: RefCell<BTreeSet<TurnId>>,
    undelivered: RefCell<BTreeMap<TurnId, Record>>,
    done: RefCell<Vec<TurnId>>,
    failures: Cell<u32>,
    latest: Cell<Timestamp>,
}

impl<D: Database, R: Rows> Desk<D, R> {
    /// Goes on with what the rows say.
    pub fn open(workspace: WorkspaceId, database: D, rows: R) -> Self {
        let (mut holds, mut undelivered) = (Vec::new(), BTreeMap::new());
        for (turn, row) in rows.all() {
            match row {
                Row::Running { hold, draft: _ } => holds.push((turn, *hold)),
                Row::Ended(record) => {
                    undelivered.insert(turn, *record);
                }
            }
        }
        Self {
            workspace,
            database,
            rows,
            counter: RefCell::new(Counter::with_holds(holds)),
            ledger: Gate::default(),
            saving: RefCell::default(),
            undelivered: RefCell::new(undelivered),
            done: RefCell::default(),
            failures: Cell::new(0),
            latest: Cell::new(Timestamp(0)),
        }
    }

    /// The workspace.
    pub fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    fn tenant(&self) -> Tenant<'_, D> {
        Tenant::open(&self.database, self.workspace.clone())
    }

    /// A clock that never goes back: a turn must not begin in a month that has ended here.
    fn tick(&self, now: Timestamp) -> Timestamp {
        self.latest.set(self.latest.get().max(now));
        self.latest.get()
    }

    /// Answers one ask.
    pub async fn answer(&self, ask: Ask, now: Timestamp) -> Answer {
        let now = self.tick(now);
        match ask {
            Ask::Begin(begin) => self.begin(&begin, now).await.unwrap_or_else(refuse),
            Ask::Extend(extend) => self.extend(&extend, now),
            Ask::Finish(record) => self.finish(*record, now).await,
            Ask::Stop(stop) if self.counter.borrow_mut().stop(stop.turn_id, stop.subject.as_deref()) => Answer::Stopping,
            Ask::Stop(_) => Answer::NotRunning,
            Ask::Status => self.status(now).await.unwrap_or_else(refuse),
            Ask::Forget => self.forget(),
            Ask::Ping => Answer::Pong,
        }
    }

    /// Reads the turn's context; decides; keeps the hold durably.
    async fn begin(&self, begin: &Begin, now: Timestamp) -> Result<Answer, StoreError> {
        // What was spent may come into doubt while the context is read; then both are read again.
        for _ in 0..LOADS {
            if let Some(answer) = self.try_begin(begin, now).await? {
                return Ok(answer);
            }
        }
        Err(StoreError::Unreachable)
    }

    async fn try_begin(&self, begin: &Begin, now: Timestamp) -> Result<Option<Answer>, StoreError> {
        if let Some(known) = self.known(begin, now, Asked::BeforeDatabase) {
            return Ok(Some(known));
        }
        let (text, now) = self.read_context(begin, now).await?;
        let outcome: Outcome = parse(&text)?;
        if outcome.outcome != "ok" {
            return RawValue::from_string(text).map(|denial| Some(Answer::Denied(denial))).map_err(|_| StoreError::Shape("turn_begin"));
        }
        let context: Context = parse(&text)?;
        // Nothing is awaited from here on: what is decided is still true when it is written down.
        if let Some(known) = self.known(begin, now, Asked::AfterDatabase) {
            return Ok(Some(known));
        }
        let hold = match self.counter.borrow_mut().admit(now, context.request(begin)) {
            Ok(hold) => hold.clone(),
            Err(AdmitError::Refused(refusal)) => return Ok(Some(Answer::Refused(refusal))),
            Err(AdmitError::NotLoaded) => return Ok(None),
            Err(AdmitError::Money(_)) => return Err(StoreError::Shape("turn_begin: price")),
        };
        let answer = Begun {
            context: RawValue::from_string(text).map_err(|_| StoreError::Shape("turn_begin"))?,
            started_at: hold.started_at,
            input_bound: hold.input_bound,
            max_output: hold.max_output,
            bounded_by_budget: hold.bounded_by_budget,
        };
        let turn = begin.turn_id;
        let draft = Box::new(context.draft(begin.clone(), hold.started_at));
        if !self.rows.put(turn, &Row::Running { hold: Box::new(hold), draft }) {
            self.counter.borrow_mut().release(turn);
            return Err(StoreError::Unreachable);
        }
        // In the same write as the new row: what earlier turns no longer need.
        self.sweep();
        Ok(Some(Answer::Begun(Box::new(answer))))
    }

    fn known(&self, begin: &Begin, now: Timestamp, asked: Asked) -> Option<Answer> {
        let key = begin.idempotency_key.as_deref()?;
        let known = self.counter.borrow_mut().known(key, &begin.request_hash, &begin.subject, now);
        let undelivered = || {
            let undelivered = self.undelivered.borrow();
            let record = undelivered.values().find(|r| r.idempotency_key.as_deref() == Some(key))?;
            let same = record.request_hash == begin.request_hash && record.subject == begin.subject;
            Some(if same { Known::Same(record.turn_id) } else { Known::Other })
        };
        match known.or_else(undelivered)? {
            // Ended within the minute and saved: the database has its answer. If it was asked before that turn was saved, the caller asks again.
            Known::Same(turn) if asked == Asked::BeforeDatabase && self.counter.borrow().hold(turn).is_none() && !self.is_unsaved(turn) => {
                None
            }
            Known::Same(turn) => Some(Answer::Running(turn)),
            Known::Other => Some(Answer::KeyReused),
        }
    }

    fn is_unsaved(&self, turn: TurnId) -> bool {
        self.saving.borrow().contains(&turn) || self.undelivered.borrow().contains_key(&turn)
    }

    /// `turn_begin`, together with what was spent when that is not known.
    async fn read_context(&self, begin: &Begin, now: Timestamp) -> Result<(String, Timestamp), StoreError> {
        if self.needs_load(now) {
            let _alone = self.ledger.alone().await;
            // Another turn may have loaded it while this one waited.
            let now = self.tick(now);
            if self.needs_load(now) {
                self.deliver().await;
                let text = self.tenant().begin_turn(&argument(begin, now, true)?).await?;
                if let Ok(Context { spent: Some(spent), .. }) = parse::<Context>(&text) {
                    self.load(spent, now);
                }
                return Ok((text, now));
            }
        }
        let text = self.tenant().begin_turn(&argument(begin, self.tick(now), false)?).await?;
        Ok((text, self.tick(now)))
    }

    fn needs_load(&self, now: Timestamp) -> bool {
        let mut counter = self.counter.borrow_mut();
        counter.roll(now);
        counter.needs_load()
    }

    /// Takes what the ledger says, and adds what could not be written to it yet.
    fn load(&self, spent: Spent, now: Timestamp) {
        let mut counter = self.counter.borrow_mut();
        let month = now.month();
        counter.load(month, spent);
        for record in self.undelivered.borrow().values() {
            let _ = counter.finish(now, record.turn_id, &record.agent_id, record.started_at, record.charge(), SaveOutcome::Saved);
        }
    }

    fn extend(&self, extend: &Extend, now: Timestamp) -> Answer {
        let mut counter = self.counter.borrow_mut();
        let Some(extended) = counter.extend(now, extend) else { return Answer::NotRunning };
        // What was reported must survive the object: it is what a dead turn is charged.
        if let (Some(hold), Some(Row::Running { hold: _, draft })) = (counter.hold(extend.turn_id), self.rows.get(extend.turn_id))
            && !self.rows.put(extend.turn_id, &Row::Running { hold: Box::new(hold.clone()), draft })
        {
            return Answer::Unavailable;
        }
        Answer::Extended(extended)
    }

    /// Settles a turn and saves it.
    async fn finish(&self, mut record: Record, now: Timestamp) -> Answer {
        let turn = record.turn_id;
        if !self.saving.borrow_mut().insert(turn) {
            // The same record is on its way already.
            return Answer::Unavailable;
        }
        let settled = self.settle(&record, now);
        let quota = settled.clone().unwrap_or_default();
        if let Some(answer) = &mut record.answer {
            *answer = with_quota(answer, &quota).unwrap_or_else(|| answer.clone());
        }
        let saved = self.save(&record).await;
        self.saving.borrow_mut().remove(&turn);
        match saved {
            Ok(_) if record.answer.is_some() && (settled.is_none() || self.needs_load(self.tick(now))) => {
                Answer::Finished(Finished { saved: true, quota: self.figures(&record.agent_id, now).await })
            }
            Ok(_) => Answer::Finished(Finished { saved: true, quota }),
            Err(_) if self.rows.put(turn, &Row::Ended(Box::new(record.clone()))) => {
                self.undelivered.borrow_mut().insert(turn, record);
                Answer::Finished(Finished { saved: false, quota })
            }
            Err(_) => Answer::Unavailable,
        }
    }

    /// What is used and left, for the answer of a turn that is saved, when that came into doubt in its course. Empty when it cannot be had: the
    /// turn has ended all the same. The caller does not hold the ledger.
    async fn figures(&self, agent: &AgentId, now: Timestamp) -> QuotaView {
        let Ok(Some(mut status)) = self.read_status(now).await else { return QuotaView::default() };
        status.agents.retain(|budget| budget.id == *agent);
        self.view(&Status { agent_count: None, ..status }, now)
    }

    /// Charges a turn in memory. None when it is not known what is left: its limits went with its hold, or what was spent is in doubt.
    fn settle(&self, record: &Record, now: Timestamp) -> Option<QuotaView> {
        let mut counter = self.counter.borrow_mut();
        let limits = counter.hold(record.turn_id).map(|h| (h.limits, h.agent_max_cost));
        // An amount that does not fit makes the counter load again.
        let _ = counter.finish(now, record.turn_id, &record.agent_id, record.started_at, record.charge(), SaveOutcome::Saved);
        let (limits, agent) = limits.filter(|_| !counter.needs_load())?;
        let agents: Vec<_> = agent.map(|max| (record.agent_id.clone(), max)).into_iter().collect();
        Some(counter.view(&limits, &agents, None, now))
    }

    /// Sends a record that was settled to the database.
    async fn save(&self, record: &Record) -> Result<SaveOutcome, StoreError> {
        let _shared = self.ledger.together().await;
        self.send(record).await
    }

    async fn send(&self, record: &Record) -> Result<SaveOutcome, StoreError> {
        #[derive(Deserialize)]
        struct Saved {
            outcome: SaveOutcome,
        }
        let arg = serde_json::to_string(record).map_err(|_| StoreError::Shape("turn_finish"))?;
        let Saved { outcome } = parse(&self.tenant().finish_turn(&arg).await?)?;
        if outcome != SaveOutcome::Saved {
            // It was charged before: the ledger knows how much.
            self.counter.borrow_mut().doubt();
        }
        self.done.borrow_mut().push(record.turn_id);
        Ok(outcome)
    }

    /// Sends what the database did not take before. The caller holds the ledger.
    async fn deliver(&self) {
        let records: Vec<Record> = self.undelivered.borrow().values().cloned().collect();
        for record in records {
            if self.send(&record).await.is_ok() {
                self.undelivered.borrow_mut().remove(&record.turn_id);
            }
        }
        self.sweep();
        let failed = !self.undelivered.borrow().is_empty();
        self.failures.set(if failed { self.failures.get().saturating_add(1) } else { 0 });
    }

    /// Deletes rows that the database has made needless. True when there were any.
    pub fn sweep(&self) -> bool {
        let done = self.done.take();
        if !done.is_empty() {
            self.rows.delete(&done);
        }
        !done.is_empty()
    }

    /// Whether [`Desk::sweep`] has something to do.
    pub fn wants_sweep(&self) -> bool {
        !self.done.borrow().is_empty()
    }

    async fn status(&self, now: Timestamp) -> Result<Answer, StoreError> {
        Ok(Answer::Status(self.read_status(now).await?.map(|status| self.view(&status, now))))
    }

    fn view(&self, status: &Status, now: Timestamp) -> QuotaView {
        let Status { outcome: _, limits, agents, agent_count, spent: _ } = status;
        let agents: Vec<_> = agents.iter().map(|a| (a.id.clone(), a.max_cost_nano_usd_per_month)).collect();
        self.counter.borrow().view(limits, &agents, *agent_count, self.tick(now))
    }

    /// Reads the limits, and what was spent when that is not known: it is when this returns. None when there is no such workspace.
    async fn read_status(&self, now: Timestamp) -> Result<Option<Status>, StoreError> {
        // As for a turn that begins: what was spent may come into doubt meanwhile.
        for _ in 0..LOADS {
            let status = self.try_status(now).await?;
            if status.outcome != "ok" {
                return Ok(None);
            }
            if !self.counter.borrow().needs_load() {
                return Ok(Some(status));
            }
        }
        Err(StoreError::Unreachable)
    }

    async fn try_status(&self, now: Timestamp) -> Result<Status, StoreError> {
        // Alone only when the ledger is read too.
        let alone = if self.needs_load(now) { Some(self.ledger.alone().await) } else { None };
        let now = self.tick(now);
        let needs_load = alone.is_some() && self.needs_load(now);
        if needs_load {
            self.deliver().await;
        }
        let text = self.tenant().quota_status(now.month(), needs_load).await?;
        let mut status: Status = parse(&text)?;
        if let (true, Some(spent)) = (needs_load, status.spent.take()) {
            self.load(spent, now);
        }
        Ok(status)
    }

    fn forget(&self) -> Answer {
        let turns: Vec<TurnId> = self.rows.all().into_iter().map(|(turn, _)| turn).collect();
        self.rows.delete(&turns);
        self.counter.replace(Counter::default());
        self.undelivered.borrow_mut().clear();
        Answer::Forgotten
    }

    /// Ends turns of which nothing was heard in time, and delivers what was kept. To be called at [`Desk::wake_at`].
    pub async fn wake(&self, now: Timestamp) {
        let now = self.tick(now);
        let expired = self.counter.borrow().expired(now);
        for turn in expired {
            let Some(Row::Running { hold, draft }) = self.rows.get(turn) else {
                self.counter.borrow_mut().release(turn);
                continue;
            };
            let Ok(record) = draft.expired(&hold, now) else { continue };
            self.finish(record, now).await;
        }
        if !self.undelivered.borrow().is_empty() {
            let _alone = self.ledger.alone().await;
            self.deliver().await;
        }
        self.sweep();
    }

    /// When [`Desk::wake`] has something to do next.
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let wait = (RETRY_MILLIS << self.failures.get().min(6)).min(RETRY_MOST_MILLIS);
        let retry = (!self.undelivered.borrow().is_empty()).then(|| now.plus_millis(wait));
        self.counter.borrow().next_expiry().into_iter().chain(retry).min()
    }
}

/// Adds `quota` to an object. As text: a tree of values would be built only to be written again.
fn with_quota(answer: &RawValue, quota: &QuotaView) -> Option<Box<RawValue>> {
    let open = answer.get().strip_suffix('}')?;
    let comma = if open == "{" { "" } else { "," };
    let quota = serde_json::to_string(quota).ok()?;
    RawValue::from_string(format!("{open}{comma}\"quota\":{quota}}}")).ok()
}

#[expect(clippy::needless_pass_by_value, reason = "called by unwrap_or_else")]
fn refuse(error: StoreError) -> Answer {
    if error.is_passing() { Answer::Unavailable } else { Answer::Fault(error.to_string()) }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, StoreError> {
    astra_kernel::json::from_str(text).map_err(|_| StoreError::Shape(std::any::type_name::<T>()))
}

fn argument(begin: &Begin, now: Timestamp, need_spent: bool) -> Result<String, StoreError> {
    begin.argument(now, need_spent).map_err(|_| StoreError::Shape("turn_begin"))
}
