//! The counter of hosts without Durable Objects: the rules of `astra_quota` on rows in Postgres, for any number of processes that share nothing else.
//!
//! It answers the same words as the quota object does. A decision is made here by [`plan`] from what one statement read, and written down by a second,
//! which compares it with the limits once more under the workspace's lock and does all of it or nothing. When others were quicker, or the limits are no longer those
//! that were read, the second statement says so, and the decision is made again from what is true now.
//!
//! The traps: 1. Whatever is read here may be untrue when it is used; only what a statement decides under the lock holds. 2. Every statement may be sent
//! again, and is ([`SENDS`]): an answer that is lost leaves a hold or a record that the same call then finds. 3. A turn that dies is ended by whoever
//! comes next to its workspace, or by [`sweep`]; nobody waits for it.
//!
//! When the database is away: no turn begins, and a turn that ends is not acknowledged ([`Answer::Unavailable`]). Its hold stays until it expires, and is
//! then charged what was last reported; if its record comes later after all, that corrects it, once.

mod rows;

use astra_kernel::{AgentId, Timestamp, WorkspaceId};
use astra_quota::alert::{Alert, Told};
use astra_quota::context::{Context, Outcome};
use astra_quota::plan::Short;
use astra_quota::view::{self, Counts};
use astra_quota::words::{Begin, Begun, Extend, Finished, Record, Stop};
use astra_quota::{AdmitError, Answer, Ask, Hold, QuotaView, Recent, Span, Stand, plan};
use astra_store::words::Opening;
use astra_store::{Database, Kind, Operator, StoreError, Tenant, tenant_statement};
use rows::{
    Alive, At, Dead, Expired, Finish, Grow, Growing, Of, Read, Reconciled, Saved, Standings, Status, StatusNow, Take, TakeOutcome, ToGrow,
    Waiting,
};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::sync::{Mutex, PoisonError};

/// How often a statement is sent that the database has rolled back for others' sake.
pub const SENDS: usize = 3;

/// How often a decision is made anew because others were quicker. Each time somebody else got something, so it ends soon: near a limit a decision
/// takes all that is left, and after that there is nothing to be quicker for.
const DECISIONS: usize = 16;

/// How often a turn that begins reads its context anew.
const READS: usize = 5;

/// Calls that one process sends together when they come together ([`astra_store::Grouped`]).
pub const KINDS: &[Kind] = &[
    // They read, and wait for nobody.
    Kind { many: tenant_statement!("turns_many"), calls: &[(tenant_statement!("hold_begin"), "hold_begin")], under_way: 4 },
    // They wait for the workspace's lock.
    Kind {
        many: tenant_statement!("counter_many"),
        calls: &[
            (tenant_statement!("hold_take"), "hold_take"),
            (tenant_statement!("hold_extend"), "hold_extend"),
            (tenant_statement!("hold_grow"), "hold_grow"),
            (tenant_statement!("hold_wait"), "hold_wait"),
            (tenant_statement!("hold_finish"), "hold_finish"),
        ],
        under_way: 1,
    },
];

/// What this process has told lately. That another has told it too changes nothing.
static TOLD: Mutex<Told> = Mutex::new(Told::nothing());

/// One workspace's counter.
#[derive(Debug)]
pub struct RowsCounter<'a, D> {
    database: Again<'a, D>,
    workspace: WorkspaceId,
}

/// Sends a statement again that was rolled back because of what others did at the same moment (SQLSTATE class 40), or that a pooler could not place (08): both are
/// told at once, and pass at once. What has taken its time, or nobody is there for, is the caller's to try again.
#[derive(Debug)]
struct Again<'a, D>(&'a D);

impl<D: Database> Database for Again<'_, D> {
    fn proof(&self, workspace: &WorkspaceId, actor: &str) -> Result<String, StoreError> {
        self.0.proof(workspace, actor)
    }

    async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        let mut sent = self.0.query(statement, params).await;
        for _ in 1..SENDS {
            match &sent {
                Err(StoreError::Fault(state)) if state.starts_with("40") || state.starts_with("08") => {
                    sent = self.0.query(statement, params).await;
                }
                _ => break,
            }
        }
        sent
    }
}

/// Ends the turns of all workspaces of which nothing was heard in time; how many. For a scheduled trigger. What one workspace does not let happen does not
/// keep the others from it: the first such error is told at the end.
///
/// # Errors
/// [`StoreError`].
pub async fn sweep<D: Database>(database: &D, now: Timestamp) -> Result<usize, StoreError> {
    let (mut ended, mut after, mut failed) = (0, None, Ok(()));
    loop {
        let page = Operator::open(database).holds_expired(now, after.as_ref()).await?;
        for workspace in page.data {
            match RowsCounter::open(database, workspace).expire(now).await {
                Ok(count) => ended += count,
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        after = page.next;
        if after.is_none() {
            return failed.map(|()| ended);
        }
    }
}

impl<'a, D: Database> RowsCounter<'a, D> {
    /// Opens it.
    pub fn open(database: &'a D, workspace: WorkspaceId) -> Self {
        Self { database: Again(database), workspace }
    }

    fn tenant(&self) -> Tenant<'_, Again<'a, D>> {
        Tenant::open(&self.database, self.workspace.clone())
    }

    /// Answers one ask.
    pub async fn ask(&self, ask: &Ask, now: Timestamp) -> Answer {
        let answer = match ask {
            Ask::Begin(begin) => self.begin(begin, now).await,
            Ask::Recall(recall) => self.tenant().recall_for_turn(recall).await.map(Answer::Recalled),
            Ask::Index { lost } => self.tenant().open_words(Opening::for_turn(*lost)).await.map(|_| Answer::Indexing),
            Ask::Extend(extend) => self.extend(extend, now).await,
            Ask::Finish(record) => self.finish(record, now).await,
            Ask::Stop(stop) => self.stop(stop).await,
            Ask::Withdraw(agent) => self.tenant().holds_withdraw(agent).await.map(|_| Answer::Withdrawn),
            Ask::Status => self.status(now).await,
            Ask::Reconcile => self.reconcile().await,
            Ask::Forget => self.tenant().holds_forget().await.map(|_| Answer::Forgotten),
            // Whether the rows can be reached is what is asked.
            Ask::Ping => self.status(now).await.map(|_| Answer::Pong),
        };
        answer.unwrap_or_else(|error| if error.is_passing() { Answer::Unavailable } else { Answer::Fault(error.to_string()) })
    }

    async fn begin(&self, begin: &Begin, now: Timestamp) -> Result<Answer, StoreError> {
        let argument = begin.argument(now).map_err(|_| StoreError::Shape("hold_begin"))?;
        for _ in 0..READS {
            let read: Read = parse("hold_begin", &self.tenant().hold_begin(&argument).await?)?;
            match (read.outcome.as_str(), read.turn_id, read.context, read.standings) {
                ("read", None, Some(context), Some(standings)) => {
                    if let Some(answer) = self.decide(begin, context, standings, now).await? {
                        return Ok(answer);
                    }
                }
                ("running", Some(turn), None, None) => return Ok(if read.same { Answer::Running(turn) } else { Answer::KeyReused }),
                ("expired", None, None, None) => drop(self.expire(now).await?),
                _ => return Err(StoreError::Shape("hold_begin")),
            }
        }
        Err(StoreError::Unreachable)
    }

    /// Decides and writes down. None when the context is no longer what the turn would find.
    async fn decide(
        &self,
        begin: &Begin,
        text: Box<RawValue>,
        mut standings: Standings,
        now: Timestamp,
    ) -> Result<Option<Answer>, StoreError> {
        let outcome: Outcome = parse("turn_begin", text.get())?;
        if let Some(denial) = outcome.denial() {
            return Ok(Some(Answer::Denied(denial)));
        }
        if outcome.outcome != "ok" {
            return Ok(Some(Answer::Denied(text)));
        }
        let context: Context = parse("turn_begin", text.get())?;
        if context.carry_due {
            let Outcome { outcome, .. } = parse("quota_carry", &self.tenant().quota_carry(now).await?)?;
            if outcome == "carried" {
                // With what was carried over, its limits are others.
                return Ok(None);
            }
        }
        let of = standings.of.clone();
        for _ in 0..DECISIONS {
            let request = context.request(begin);
            let windows = plan::windows(&request);
            if !standings.has(&windows) {
                standings = self.standings(&windows, Some(&begin.agent_id), now).await?;
            }
            let caps = plan::caps(&request);
            let stands = standings.stands(&caps);
            let hold = match plan::admit(request, caps, &stands, standings.recent, &standings.waits) {
                Ok(hold) => hold,
                Err(AdmitError::Refused(refusal)) => {
                    self.tell(plan::used_up(&context.request(begin), &stands), now).await;
                    return Ok(Some(Answer::Refused(refusal)));
                }
                Err(AdmitError::NotLoaded | AdmitError::Money(_)) => return Err(StoreError::Shape("turn_begin: price")),
            };
            let draft = context.draft(begin.clone(), hold.started_at);
            let tokens = hold.amount().tokens;
            let take = json(&Take { turn_id: begin.turn_id, tokens, hold: &hold, draft: &draft, of: of.as_deref(), now })?;
            let hold = match parse("hold_take", &self.tenant().hold_take(&take).await?)? {
                TakeOutcome::Taken => hold,
                TakeOutcome::Held { hold } => *hold,
                TakeOutcome::Again => return Ok(None),
                TakeOutcome::Full { standings: now } => {
                    standings = now;
                    continue;
                }
            };
            let quota = quota(&hold, &stands, standings.recent);
            return Ok(Some(Answer::Begun(Box::new(Begun::new(text, &hold, quota)))));
        }
        Err(StoreError::Unreachable)
    }

    /// Writes down that limits are used up. If that fails the next refusal does it.
    async fn tell(&self, used_up: Vec<Alert>, now: Timestamp) {
        let told = || TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(marks) = told().news(&self.workspace, used_up, now) else { return };
        let Ok(argument) = json(&marks) else { return };
        if self.tenant().quota_mark(&argument).await.is_err() {
            told().forget();
        }
    }

    async fn standings(&self, windows: &[Span], agent_id: Option<&AgentId>, now: Timestamp) -> Result<Standings, StoreError> {
        let argument = json(&Of { windows, agent_id, now })?;
        let standings: Standings = parse("hold_standing", &self.tenant().hold_standing(&argument).await?)?;
        if standings.has(windows) { Ok(standings) } else { Err(StoreError::Shape("hold_standing")) }
    }

    async fn extend(&self, extend: &Extend, now: Timestamp) -> Result<Answer, StoreError> {
        let alive = json(&Alive { extend, now })?;
        let mut outcome: Growing = parse("hold_extend", &self.tenant().hold_extend(&alive).await?)?;
        let mut may_wait = extend.is_urgent;
        let mut grown: Option<Hold> = None;
        for _ in 0..DECISIONS {
            let ToGrow { mut hold, limits, allowance, spans, mut standings } = match (outcome, grown.take()) {
                (Growing::NotRunning, _) => return Ok(Answer::NotRunning),
                (Growing::Ok { extended }, _) => return Ok(Answer::Extended(extended)),
                (Growing::Grown, Some(hold)) => return Ok(Answer::Extended(hold.extended(extend, false))),
                (Growing::Grow(to_grow), _) => *to_grow,
                (Growing::Grown | Growing::Wait { .. }, _) => return Err(StoreError::Shape("hold_grow")),
            };
            if hold.covers(extend) {
                return Ok(Answer::Extended(hold.extended(extend, false)));
            }
            if let Some(spans) = &spans {
                hold.tell(spans);
            }
            let of = standings.of.clone();
            let month = spans.map(|spans| spans.month);
            let caps = plan::caps_now(&hold, month.zip(limits.map(|limits| limits.allowance())), month.zip(allowance));
            let windows = plan::windows_now(&hold, &caps);
            if !standings.has(&windows) {
                standings = self.standings(&windows, Some(&hold.agent), now).await?;
            }
            let stands = standings.stands(&caps);
            // An amount that does not fit is as good as one that is not there.
            let Ok(growth) = plan::grow(&hold, caps, &stands, extend.input_bound, extend.output) else {
                return Ok(Answer::Extended(hold.extended(extend, false)));
            };
            if let Some((Short { scope, window: Some(window), .. }, waits)) =
                growth.short.as_ref().filter(|_| may_wait).and_then(|s| Some((s, s.waits()?)))
            {
                let argument = json(&Waiting { turn_id: extend.turn_id, scope, window, waits })?;
                match parse("hold_wait", &self.tenant().hold_wait(&argument).await?)? {
                    Growing::Wait { wait: true } => return Ok(Answer::Extended(hold.extended(extend, true))),
                    // What is true now: somebody may have given something back meanwhile.
                    Growing::Wait { wait: false } => {
                        may_wait = false;
                        outcome = parse("hold_extend", &self.tenant().hold_extend(&alive).await?)?;
                        continue;
                    }
                    Growing::NotRunning => return Ok(Answer::NotRunning),
                    _ => return Err(StoreError::Shape("hold_wait")),
                }
            }
            let larger = Hold { waits: None, ..growth.hold };
            if larger == hold {
                return Ok(Answer::Extended(hold.extended(extend, false)));
            }
            let tokens = larger.amount().tokens;
            let grow = json(&Grow { turn_id: extend.turn_id, was: &hold, tokens, hold: &larger, of: of.as_deref(), now })?;
            outcome = parse("hold_grow", &self.tenant().hold_grow(&grow).await?)?;
            grown = Some(larger);
        }
        Err(StoreError::Unreachable)
    }

    async fn finish(&self, record: &Record, now: Timestamp) -> Result<Answer, StoreError> {
        let (quota, receipt) = match self.settle(record, now, false).await? {
            Saved::Alive => return Ok(Answer::NotRunning),
            Saved::Finished { quota, receipt } => (quota, receipt),
            // Those of now, of the turn's agent. That it is saved does not depend on them.
            Saved::Late { receipt } => {
                let read = self.read_status(now).await.ok().flatten();
                let own = read.map(|StatusNow { status, standings }| view(&status.of(&record.agent_id), &standings, None));
                (own.unwrap_or_default(), receipt)
            }
        };
        Ok(Answer::Finished(Finished { saved: true, quota, receipt }))
    }

    async fn settle(&self, record: &Record, now: Timestamp, only_expired: bool) -> Result<Saved, StoreError> {
        let argument = json(&Finish { record, now, only_expired })?;
        parse("hold_finish", &self.tenant().hold_finish(&argument).await?)
    }

    async fn stop(&self, stop: &Stop) -> Result<Answer, StoreError> {
        let argument = json(stop)?;
        let outcome: Outcome = parse("hold_stop", &self.tenant().hold_stop(&argument).await?)?;
        Ok(if outcome.outcome == "stopping" { Answer::Stopping } else { Answer::NotRunning })
    }

    async fn status(&self, now: Timestamp) -> Result<Answer, StoreError> {
        let read = self.read_status(now).await?;
        Ok(Answer::Status(read.map(|StatusNow { status, standings }| view(&status, &standings, Some(status.agent_count)))))
    }

    async fn reconcile(&self) -> Result<Answer, StoreError> {
        let read: Reconciled = parse("hold_reconcile", &self.tenant().hold_reconcile().await?)?;
        Ok(Answer::Reconciled(read.data))
    }

    /// None when there is no such workspace.
    async fn read_status(&self, now: Timestamp) -> Result<Option<StatusNow>, StoreError> {
        let argument = json(&At { now })?;
        for _ in 0..READS {
            let mut status = match parse("hold_status", &self.tenant().hold_status(&argument).await?)? {
                Status::NotFound => return Ok(None),
                Status::Ok(status) => *status,
                Status::Expired => {
                    self.expire(now).await?;
                    continue;
                }
            };
            let windows = status.status.windows();
            if !status.standings.has(&windows) {
                status.standings = self.standings(&windows, None, now).await?;
            }
            return Ok(Some(status));
        }
        Err(StoreError::Unreachable)
    }

    /// Ends the workspace's turns of which nothing was heard in time; how many. Each is charged what it last reported.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire(&self, now: Timestamp) -> Result<usize, StoreError> {
        let argument = json(&At { now })?;
        let mut ended = 0;
        loop {
            let page: Expired = parse("holds_expired", &self.tenant().holds_expired(&argument).await?)?;
            let before = ended;
            for Dead { hold, draft } in page.data {
                let record = end(draft, &hold, now)?;
                // Somebody else may have been quicker, or the turn lives after all.
                ended += usize::from(!matches!(self.settle(&record, now, true).await?, Saved::Alive));
            }
            if ended == before {
                return Ok(ended);
            }
        }
    }
}

fn end(draft: astra_quota::words::Draft, hold: &Hold, now: Timestamp) -> Result<Record, StoreError> {
    draft.expired(hold, now).map_err(|_| StoreError::Shape("holds_expired: price"))
}

/// What is used and left when a hold is taken; `stands` are its caps' from before it.
fn quota(hold: &Hold, stands: &[Stand], recent: Recent) -> QuotaView {
    let own = hold.amount();
    let stands: Vec<_> = stands.iter().map(|stand| Stand { held: stand.held.and(own), ..*stand }).collect();
    let recent = Recent { count: recent.count.saturating_add(1), first: recent.first.or(Some(hold.started_at)) };
    view::view(&hold.caps, &stands, Counts { max_turns_per_minute: hold.max_turns_per_minute, recent, agents: None })
}

fn view(status: &astra_quota::Status, standings: &Standings, agent_count: Option<i64>) -> QuotaView {
    let caps = status.caps();
    let agents = status.limits.max_agents.zip(agent_count);
    let counts = Counts { max_turns_per_minute: status.limits.max_turns_per_minute, recent: standings.recent, agents };
    view::view(&caps, &standings.stands(&caps), counts)
}

fn json(argument: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(argument).map_err(|_| StoreError::Shape("the counter's argument"))
}

fn parse<T: DeserializeOwned>(statement: &'static str, text: &str) -> Result<T, StoreError> {
    astra_kernel::json::from_str(text).map_err(|_| StoreError::Shape(statement))
}
