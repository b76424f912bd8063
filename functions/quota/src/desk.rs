//! Answers what a workspace's counter is asked. Generic over the database and the durable rows, so that it is tested without a runtime.
//!
//! The traps: 1. Between two awaits other events run here, so a decision and what it is based on stand together without one. 2. What was spent is
//! loaded from the ledger only while no record is being written ([`Desk::ledger`] is locked), else it might be counted twice or not at all.
//! 3. What was read of the limits while somebody else read newer ones is read again ([`Counter::may_be_old`]). 4. A turn is settled in memory first and then saved: if the database does not take it, its row keeps it, and it was counted either way. If neither does,
//! nothing was done, and its hold goes on ([`Desk::undo`]).
//! 5. A row is deleted after the database has the record, never before; if that is lost, the alarm saves it again, which changes nothing.

use crate::gate::Gate;
use astra_kernel::{AgentId, Timestamp, TurnId, WorkspaceId};
use astra_quota::alert::{Alert, Told};
use astra_quota::context::{Context, Outcome};
use astra_quota::words::{Begin, Begun, Compared, Draft, Extend, Finished, Record};
use astra_quota::{
    AdmitError, Amount, Answer, Ask, Counter, Heard, Hold, Known, QuotaView, Request, SaveOutcome, Span, Spent, Status, alert, plan,
};
use astra_store::words::Opening;
use astra_store::{Database, Kind, StoreError, Tenant, tenant_statement};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// How often a turn that begins has what was spent loaded again.
const LOADS: usize = 5;

/// How long after a failed delivery the next try is made, in milliseconds.
const RETRY_MILLIS: i64 = 1_000;

/// The longest such wait, in milliseconds: it doubles from failure to failure.
const RETRY_MOST_MILLIS: i64 = 10_000;

/// While turns run, their limits are read so often, in milliseconds, beside what is asked.
const LOOK_MILLIS: i64 = 10_000;

/// The object's calls that go together when they come together. Their answers come together too, so what is written down after them is one transaction of its rows.
pub const KINDS: &[Kind] = &[
    Kind { many: tenant_statement!("turns_many"), calls: &[(tenant_statement!("turn_begin"), "turn_begin")], under_way: 2 },
    // They wait for the ledger's place.
    Kind { many: tenant_statement!("turns_many"), calls: &[(tenant_statement!("turn_finish"), "turn_finish")], under_way: 1 },
];

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

/// What `quota_spent` answers.
#[derive(Deserialize)]
struct SpentIn {
    data: Vec<Spent>,
}

/// What `turn_finish` answers.
#[derive(Deserialize)]
struct Saved {
    outcome: SaveOutcome,
    #[serde(default)]
    receipt: Option<String>,
}

/// A turn that is settled and on its way to the database.
struct Settled {
    turn: TurnId,
    agent: AgentId,
    started_at: Timestamp,
    charge: Amount,
}

impl Settled {
    fn of(record: &Record) -> Self {
        Self { turn: record.turn_id, agent: record.agent_id.clone(), started_at: record.started_at, charge: record.charge() }
    }
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
    saving: RefCell<Vec<Settled>>,
    undelivered: RefCell<BTreeMap<TurnId, Record>>,
    done: RefCell<Vec<TurnId>>,
    told: RefCell<Told>,
    failures: Cell<u32>,
    latest: Cell<Timestamp>,
    /// When the limits are read again for those that run.
    look_at: Cell<Timestamp>,
    /// How many grants were withdrawn: what was read before may still show one.
    withdrawals: Cell<u64>,
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
            told: RefCell::default(),
            failures: Cell::new(0),
            latest: Cell::new(Timestamp(0)),
            look_at: Cell::new(Timestamp(0)),
            withdrawals: Cell::new(0),
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
            Ask::Recall(recall) => self.tenant().recall_for_turn(&recall).await.map_or_else(refuse, Answer::Recalled),
            Ask::Index { lost } => self.tenant().open_words(Opening::for_turn(lost)).await.map_or_else(refuse, |_| Answer::Indexing),
            Ask::Extend(extend) => self.extend(&extend, now).await.unwrap_or_else(refuse),
            Ask::Finish(record) => self.finish(*record, now).await,
            Ask::Stop(stop) if self.counter.borrow_mut().stop(stop.turn_id, stop.subject.as_deref(), stop.guest.as_ref()) => {
                Answer::Stopping
            }
            Ask::Stop(_) => Answer::NotRunning,
            Ask::Withdraw(agent) => self.withdraw(&agent).unwrap_or_else(refuse),
            Ask::Status => self.status(now).await.unwrap_or_else(refuse),
            Ask::Reconcile => self.reconcile().await.unwrap_or_else(refuse),
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
        let (withdrawals, changes) = (self.withdrawals.get(), self.counter.borrow().changes());
        let text = self.tenant().begin_turn(&begin.argument(self.tick(now)).map_err(|_| StoreError::Shape("turn_begin"))?).await?;
        let outcome: Outcome = parse(&text)?;
        if let Some(denial) = outcome.denial() {
            return Ok(Some(Answer::Denied(denial)));
        }
        if outcome.outcome != "ok" {
            return RawValue::from_string(text).map(|denial| Some(Answer::Denied(denial))).map_err(|_| StoreError::Shape("turn_begin"));
        }
        let context: Context = parse(&text)?;
        if context.carry_due && self.carry(context.spans.month, now).await? {
            // With what was carried over, its limits are others.
            return Ok(None);
        }
        self.load(&plan::windows(&context.request(begin))).await?;
        // Nothing is awaited from here on: what is decided is still true when it is written down.
        if let Some(known) = self.known(begin, self.tick(now), Asked::AfterDatabase) {
            return Ok(Some(known));
        }
        let request = context.request(begin);
        let of_agent = [(&request.agent, request.allowance)];
        if self.withdrawals.get() != withdrawals || self.counter.borrow().may_be_old(request.spans, request.limits, of_agent, changes) {
            return Ok(None);
        }
        let admitted = self.counter.borrow_mut().admit(request).cloned();
        let hold = match admitted {
            Ok(hold) => hold,
            Err(AdmitError::Refused(refusal)) => {
                self.tell(self.used_up(&context.request(begin)), now).await;
                return Ok(Some(Answer::Refused(refusal)));
            }
            Err(AdmitError::NotLoaded) => return Ok(None),
            Err(AdmitError::Money(_)) => return Err(StoreError::Shape("turn_begin: price")),
        };
        let quota = self.counter.borrow().view(&hold.caps, hold.max_turns_per_minute, None, now).unwrap_or_default();
        let answer = Begun::new(RawValue::from_string(text).map_err(|_| StoreError::Shape("turn_begin"))?, &hold, quota);
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

    /// An agent's grant was revoked: its turns stop at their next sign of life, and what was read of it before is read again.
    fn withdraw(&self, agent: &AgentId) -> Result<Answer, StoreError> {
        self.withdrawals.set(self.withdrawals.get() + 1);
        let turns = self.counter.borrow_mut().withdraw(agent);
        turns.into_iter().try_for_each(|turn| self.keep(turn))?;
        Ok(Answer::Withdrawn)
    }

    fn used_up(&self, request: &Request<'_>) -> Vec<Alert> {
        let stands = self.counter.borrow().stands(&plan::caps(request));
        stands.map(|stands| plan::used_up(request, &stands)).unwrap_or_default()
    }

    /// Writes down that limits are used up. If that fails the next refusal does it.
    async fn tell(&self, used_up: Vec<Alert>, now: Timestamp) {
        let Some(marks) = self.told.borrow_mut().news(&self.workspace, used_up, now) else { return };
        let Ok(argument) = serde_json::to_string(&marks) else { return };
        if self.tenant().quota_mark(&argument).await.is_err() {
            self.told.borrow_mut().forget();
        }
    }

    /// Has what is left of the month before carried over, once nothing of it is under way. True when that was done.
    async fn carry(&self, month: Span, now: Timestamp) -> Result<bool, StoreError> {
        let _alone = self.ledger.alone().await;
        self.deliver().await;
        let is_open = self.counter.borrow().has_begun_before(month.starts_at)
            || self.saving.borrow().iter().any(|settled| settled.started_at < month.starts_at)
            || self.undelivered.borrow().values().any(|record| record.started_at < month.starts_at);
        if is_open {
            return Ok(false);
        }
        let Outcome { outcome, .. } = parse(&self.tenant().quota_carry(now).await?)?;
        Ok(outcome == "carried")
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

    fn is_saving(&self, turn: TurnId) -> bool {
        self.saving.borrow().iter().any(|settled| settled.turn == turn)
    }

    fn is_unsaved(&self, turn: TurnId) -> bool {
        self.is_saving(turn) || self.undelivered.borrow().contains_key(&turn)
    }

    /// Reads from the ledger what was spent in those of these windows of which it is not known.
    async fn load(&self, windows: &[Span]) -> Result<(), StoreError> {
        if self.counter.borrow().missing(windows).is_empty() {
            return Ok(());
        }
        let _alone = self.ledger.alone().await;
        // Another turn may have loaded them while this one waited.
        let missing = self.counter.borrow().missing(windows);
        if missing.is_empty() {
            return Ok(());
        }
        for (window, spent) in self.read(missing).await? {
            self.counter.borrow_mut().load(window, spent);
        }
        Ok(())
    }

    /// What was spent in some windows. The caller is alone with the ledger.
    async fn read(&self, windows: Vec<Span>) -> Result<Vec<(Span, Spent)>, StoreError> {
        #[derive(Serialize)]
        struct Argument<'a> {
            windows: &'a [Span],
        }
        self.deliver().await;
        let argument = serde_json::to_string(&Argument { windows: &windows }).map_err(|_| StoreError::Shape("quota_spent"))?;
        let SpentIn { data } = parse(&self.tenant().quota_spent(&argument).await?)?;
        if data.len() != windows.len() {
            return Err(StoreError::Shape("quota_spent"));
        }
        // Settled, and not in the ledger: those that the database did not take, and those that wait until the ledger has been read.
        let (saving, undelivered) = (self.saving.borrow(), self.undelivered.borrow());
        let kept: Vec<_> = undelivered.values().filter(|record| !self.is_saving(record.turn_id)).map(Settled::of).collect();
        let add = |(window, mut spent): (Span, Spent)| {
            for settled in saving.iter().chain(&kept).filter(|settled| window.contains(settled.started_at)) {
                spent.add(&settled.agent, settled.charge).map_err(|_| StoreError::Shape("quota_spent: too much"))?;
            }
            Ok((window, spent))
        };
        windows.into_iter().zip(data).map(add).collect()
    }

    async fn extend(&self, extend: &Extend, now: Timestamp) -> Result<Answer, StoreError> {
        for _ in 0..LOADS {
            let heard = self.counter.borrow_mut().extend(now, extend);
            let extended = match heard {
                Heard::NotRunning => return Ok(Answer::NotRunning),
                Heard::Taken(extended) => extended,
                Heard::NotLoaded => {
                    // The sign of life was taken, whether or not the hold can grow.
                    self.keep(extend.turn_id)?;
                    let windows = self.counter.borrow().windows_now(extend.turn_id);
                    self.load(&windows).await?;
                    continue;
                }
            };
            self.keep(extend.turn_id)?;
            return Ok(Answer::Extended(extended));
        }
        Err(StoreError::Unreachable)
    }

    /// Writes down what a running turn has reported and what it holds: both must survive the object.
    fn keep(&self, turn: TurnId) -> Result<(), StoreError> {
        let counter = self.counter.borrow();
        let (Some(hold), Some(Row::Running { hold: _, draft })) = (counter.hold(turn), self.rows.get(turn)) else { return Ok(()) };
        if self.rows.put(turn, &Row::Running { hold: Box::new(hold.clone()), draft }) { Ok(()) } else { Err(StoreError::Unreachable) }
    }

    async fn finish(&self, record: Record, now: Timestamp) -> Answer {
        self.know(record.turn_id).await;
        self.end(record, now).await
    }

    /// Loads what was spent in a turn's windows: which marks it passes, and what is left, is known only beside that. Without it the turn is settled all the
    /// same; a database that has just not taken a record is not asked.
    async fn know(&self, turn: TurnId) {
        if self.undelivered.borrow().is_empty() {
            let windows = self.counter.borrow().hold(turn).map(|hold| plan::windows_now(hold, &hold.caps)).unwrap_or_default();
            let _ = self.load(&windows).await;
        }
    }

    /// Settles a turn and saves it. Nothing is awaited before it is settled.
    async fn end(&self, mut record: Record, now: Timestamp) -> Answer {
        let turn = record.turn_id;
        if self.is_saving(turn) {
            // The same record is on its way already.
            return Answer::Unavailable;
        }
        self.saving.borrow_mut().push(Settled::of(&record));
        let settled = self.settle(&mut record, now);
        if self.undelivered.borrow().contains_key(&turn) {
            // It was settled before, and is kept.
            self.counter.borrow_mut().doubt();
        }
        let quota = settled.clone().unwrap_or_default();
        // What is left of this workspace's limits is not another's to read.
        if let Some(answer) = record.answer.as_mut().filter(|_| record.guest.is_none()) {
            *answer = with_quota(answer, &quota).unwrap_or_else(|| answer.clone());
        }
        let saved = self.save(&record).await;
        self.saving.borrow_mut().retain(|settled| settled.turn != turn);
        match saved {
            Ok(Saved { outcome, receipt }) if record.answer.is_some() && (settled.is_none() || outcome != SaveOutcome::Saved) => {
                Answer::Finished(Finished { saved: true, quota: self.figures(&record.agent_id, now).await, receipt })
            }
            Ok(Saved { outcome: _, receipt }) => Answer::Finished(Finished { saved: true, quota, receipt }),
            Err(_) if self.rows.put(turn, &Row::Ended(Box::new(record.clone()))) => {
                self.undelivered.borrow_mut().insert(turn, record);
                Answer::Finished(Finished { saved: false, quota, receipt: None })
            }
            Err(_) => {
                self.undo(turn, now);
                Answer::Unavailable
            }
        }
    }

    /// A turn was settled, and its record is nowhere: it will be sent again, and must not be counted twice then. Until then the turn holds what it held.
    fn undo(&self, turn: TurnId, now: Timestamp) {
        let mut counter = self.counter.borrow_mut();
        counter.doubt();
        if let Some(Row::Running { hold, draft: _ }) = self.rows.get(turn).filter(|_| counter.hold(turn).is_none())
            && hold.expires_at > now
        {
            counter.resume(turn, *hold);
        }
    }

    /// What is used and left, for the answer of a turn that is saved, when that came into doubt in its course. Empty when it cannot be had: the
    /// turn has ended all the same. The caller does not hold the ledger.
    async fn figures(&self, agent: &AgentId, now: Timestamp) -> QuotaView {
        let read = self.read_status(now).await.ok().flatten();
        read.map(|status| self.view(&status.of(agent), None, now)).unwrap_or_default()
    }

    /// Charges a turn in memory, and notes which marks that has passed. None when it is not known what is left: its limits went with its hold, or what was
    /// spent is in doubt.
    fn settle(&self, record: &mut Record, now: Timestamp) -> Option<QuotaView> {
        let mut counter = self.counter.borrow_mut();
        let hold = counter.hold(record.turn_id).cloned();
        let caps = hold.as_ref().map_or(&[][..], |hold| &hold.caps);
        let before = counter.stands(caps);
        // An amount that does not fit makes the counter load again.
        let _ = counter.finish(now, record.turn_id, &record.agent_id, record.started_at, record.charge(), SaveOutcome::Saved);
        let after = counter.stands(caps);
        record.alerts = before.zip(after.as_ref()).map(|(before, after)| alert::passed(caps, &before, after)).unwrap_or_default();
        let hold = hold?;
        if record.finish_reason.as_deref() == Some("quota") {
            let used_up = after.map(|after| alert::used_up(&hold.caps, &after, hold.input_bound, &hold.price)).unwrap_or_default();
            let passed = std::mem::take(&mut record.alerts);
            record.alerts = passed.iter().cloned().chain(used_up.into_iter().filter(|alert| !passed.contains(alert))).collect();
        }
        counter.view(&hold.caps, hold.max_turns_per_minute, None, now)
    }

    /// Sends a record that was settled to the database.
    async fn save(&self, record: &Record) -> Result<Saved, StoreError> {
        let _shared = self.ledger.together().await;
        self.send(record).await
    }

    async fn send(&self, record: &Record) -> Result<Saved, StoreError> {
        let arg = serde_json::to_string(record).map_err(|_| StoreError::Shape("turn_finish"))?;
        let saved: Saved = parse(&self.tenant().finish_turn(&arg).await?)?;
        if saved.outcome != SaveOutcome::Saved {
            // It was charged before: the ledger knows how much.
            self.counter.borrow_mut().doubt();
        }
        self.done.borrow_mut().push(record.turn_id);
        Ok(saved)
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
        Ok(Answer::Status(self.read_status(now).await?.map(|status| self.view(&status, Some(status.agent_count), now))))
    }

    fn view(&self, status: &Status, agent_count: Option<i64>, now: Timestamp) -> QuotaView {
        let agents = status.limits.max_agents.zip(agent_count);
        self.counter.borrow().view(&status.caps(), status.limits.max_turns_per_minute, agents, now).unwrap_or_default()
    }

    /// Reads the limits, and what was spent when that is not known: it is when this returns. None when there is no such workspace.
    async fn read_status(&self, now: Timestamp) -> Result<Option<Status>, StoreError> {
        // What was spent may come into doubt meanwhile.
        for _ in 0..LOADS {
            let Some(status) = self.read_limits(now).await? else { return Ok(None) };
            let windows = status.windows();
            self.load(&windows).await?;
            if self.counter.borrow().missing(&windows).is_empty() {
                return Ok(Some(status));
            }
        }
        Err(StoreError::Unreachable)
    }

    /// Reads the limits: who runs keeps to them from then on. None when there is no such workspace.
    async fn read_limits(&self, now: Timestamp) -> Result<Option<Status>, StoreError> {
        for _ in 0..LOADS {
            let changes = self.counter.borrow().changes();
            let text = self.tenant().quota_status(self.tick(now)).await?;
            let Outcome { outcome, .. } = parse(&text)?;
            if outcome != "ok" {
                return Ok(None);
            }
            let status: Status = parse(&text)?;
            if !self.counter.borrow().may_be_old(&status.spans, &status.limits, status.allowances(), changes) {
                self.set_limits(&status);
                return Ok(Some(status));
            }
        }
        Err(StoreError::Unreachable)
    }

    /// Whether it is time for [`Desk::look`]. If so, it is not again for a while.
    pub fn wants_look(&self, now: Timestamp) -> bool {
        let is_time = self.look_at.get() <= now;
        if is_time {
            self.look_at.set(now.plus_millis(LOOK_MILLIS));
        }
        is_time
    }

    /// Reads the limits of now for those that run: nobody tells a counter of a plan's template that was changed, and what was told is lost with the object. What comes between is found
    /// by the next look.
    pub async fn look(&self, now: Timestamp) {
        let _ = self.read_limits(now).await;
    }

    /// Takes the limits as they are now.
    fn set_limits(&self, status: &Status) {
        let mut counter = self.counter.borrow_mut();
        counter.set_limits(status.spans, status.limits);
        counter.set_allowances(status.spans.month, status.allowances().map(|(agent, allowance)| (agent.clone(), *allowance)));
    }

    /// Compares what is known of each window with what the ledger says, which is gone by from then on.
    async fn reconcile(&self) -> Result<Answer, StoreError> {
        let _alone = self.ledger.alone().await;
        let windows = self.counter.borrow().windows();
        let read = self.read(windows).await?;
        // Nothing is awaited from here on: turns that were settled while the ledger was read are in both.
        let mut counter = self.counter.borrow_mut();
        let mut compared = Vec::new();
        for (window, ledger) in read {
            let Some(known) = counter.spent(&window) else { continue };
            let mut scopes: Vec<_> = known.scopes().collect();
            let new: Vec<_> = ledger.scopes().filter(|scope| !scopes.contains(scope)).collect();
            scopes.extend(new);
            compared.extend(scopes.into_iter().map(|scope| Compared {
                window: window.id(),
                counter: known.of(&scope),
                ledger: ledger.of(&scope),
                scope,
            }));
            counter.load(window, ledger);
        }
        Ok(Answer::Reconciled(compared))
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
            self.know(turn).await;
            // It may have given a sign of life meanwhile, or ended.
            if self.counter.borrow().hold(turn).is_none_or(|hold| hold.expires_at > now) {
                continue;
            }
            let Some(Row::Running { hold, draft }) = self.rows.get(turn) else {
                self.counter.borrow_mut().release(turn);
                continue;
            };
            let Ok(record) = draft.expired(&hold, now) else { continue };
            self.end(record, now).await;
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
