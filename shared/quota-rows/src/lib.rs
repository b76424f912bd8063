//! The counter of hosts without Durable Objects: the rules of `astra_quota` on rows in Postgres, for any number of processes that share nothing else.
//!
//! It answers the same words as the quota object does. A decision is made here by [`plan`] from what one statement read, and written down by a second,
//! which compares it with the limits once more under the workspace's lock and does all of it or nothing. When others were quicker, the second statement says
//! what is true now, and the decision is made again from that.
//!
//! The traps: 1. Whatever is read here may be untrue when it is used; only what a statement decides under the lock holds. 2. Every statement may be sent
//! again, and is ([`SENDS`]): an answer that is lost leaves a hold or a record that the same call then finds. 3. A turn that dies is ended by whoever
//! comes next to its workspace, or by [`sweep`]; nobody waits for it.
//!
//! When the database is away: no turn begins, and a turn that ends is not acknowledged ([`Answer::Unavailable`]). Its hold stays until it expires, and is
//! then charged what was last reported; if its record comes later after all, that corrects it, once.

mod rows;

use astra_kernel::{AgentId, Month, Timestamp, WorkspaceId};
use astra_quota::context::{Context, Outcome};
use astra_quota::words::{Begin, Begun, Extend, Extended, Finished, Record, Stop};
use astra_quota::{AdmitError, Answer, Ask, Hold, plan};
use astra_store::{Database, Operator, StoreError, Tenant};
use rows::{Alive, At, Dead, Expired, Finish, Grow, Growing, Of, Read, Saved, Standings, Status, Take, TakeOutcome};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// How often a statement is sent that the database has rolled back for others' sake.
pub const SENDS: usize = 3;

/// How often a decision is made anew because others were quicker. Each time somebody else got something, so it ends soon: near a limit a decision
/// takes all that is left, and after that there is nothing to be quicker for.
const DECISIONS: usize = 16;

/// How often a turn that begins reads its context anew.
const READS: usize = 5;

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
            Ask::Extend(extend) => self.extend(extend, now).await,
            Ask::Finish(record) => self.finish(record, now, false).await.map(|quota| quota.unwrap_or(Answer::NotRunning)),
            Ask::Stop(stop) => self.stop(stop).await,
            Ask::Status => self.status(now).await,
            Ask::Forget => self.tenant().holds_forget().await.map(|_| Answer::Forgotten),
            // Whether the rows can be reached is what is asked.
            Ask::Ping => self.status(now).await.map(|_| Answer::Pong),
        };
        answer.unwrap_or_else(|error| if error.is_passing() { Answer::Unavailable } else { Answer::Fault(error.to_string()) })
    }

    async fn begin(&self, begin: &Begin, now: Timestamp) -> Result<Answer, StoreError> {
        let argument = begin.argument(now, false).map_err(|_| StoreError::Shape("hold_begin"))?;
        for _ in 0..READS {
            let read: Read = parse("hold_begin", &self.tenant().hold_begin(&argument).await?)?;
            match (read.outcome.as_str(), read.turn_id, read.context) {
                ("read", None, Some(context)) => {
                    if let Some(answer) = self.decide(begin, context, read.standings, now).await? {
                        return Ok(answer);
                    }
                }
                ("running", Some(turn), None) => return Ok(if read.same { Answer::Running(turn) } else { Answer::KeyReused }),
                ("expired", None, None) => drop(self.expire(now).await?),
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
        read: Option<Standings>,
        now: Timestamp,
    ) -> Result<Option<Answer>, StoreError> {
        let outcome: Outcome = parse("turn_begin", text.get())?;
        if outcome.outcome != "ok" {
            return Ok(Some(Answer::Denied(text)));
        }
        let context: Context = parse("turn_begin", text.get())?;
        let month = now.month();
        let mut standings = match read {
            Some(standings) => standings,
            None => self.standings(&begin.agent_id, month, now).await?,
        };
        for _ in 0..DECISIONS {
            let (standing, recent) = (standings.standing, standings.recent);
            let hold = match plan::admit(now, month, context.request(begin), recent, &standing) {
                Ok(hold) => hold,
                Err(AdmitError::Refused(refusal)) => return Ok(Some(Answer::Refused(refusal))),
                Err(AdmitError::NotLoaded | AdmitError::Money(_)) => return Err(StoreError::Shape("turn_begin: price")),
            };
            let draft = context.draft(begin.clone(), hold.started_at);
            let take = json(&Take { turn_id: begin.turn_id, tokens: hold.tokens(), hold: &hold, draft: &draft, now })?;
            let hold = match parse("hold_take", &self.tenant().hold_take(&take).await?)? {
                TakeOutcome::Taken => hold,
                TakeOutcome::Held { hold } => *hold,
                TakeOutcome::Again => return Ok(None),
                TakeOutcome::Full { standings: now } => {
                    standings = now;
                    continue;
                }
            };
            return Ok(Some(Answer::Begun(Box::new(Begun {
                context: text,
                started_at: hold.started_at,
                input_bound: hold.input_bound,
                max_output: hold.max_output,
                bounded_by_budget: hold.bounded_by_budget,
            }))));
        }
        Err(StoreError::Unreachable)
    }

    async fn standings(&self, agent_id: &AgentId, month: Month, now: Timestamp) -> Result<Standings, StoreError> {
        let argument = json(&Of { agent_id, month, now })?;
        parse("hold_standing", &self.tenant().hold_standing(&argument).await?)
    }

    async fn extend(&self, extend: &Extend, now: Timestamp) -> Result<Answer, StoreError> {
        let argument = json(&Alive { extend, now })?;
        let mut outcome: Growing = parse("hold_extend", &self.tenant().hold_extend(&argument).await?)?;
        for _ in 0..DECISIONS {
            let (hold, standings) = match outcome {
                Growing::NotRunning => return Ok(Answer::NotRunning),
                Growing::Ok { extended } => return Ok(Answer::Extended(extended)),
                Growing::Grow { hold, standings } => (hold, standings),
            };
            if extend.input_bound <= hold.input_bound {
                return Ok(extended(&hold, true));
            }
            // A turn of a month that has ended cannot be decided anew.
            let month = hold.started_at.month();
            if now.month() != month {
                return Ok(extended(&hold, false));
            }
            let standing = match standings {
                Some(standings) => standings.standing,
                None => self.standings(&hold.agent, month, now).await?.standing,
            };
            let Ok(grown) = plan::grow(now, &hold, extend.input_bound, &standing.without(&hold)) else {
                return Ok(extended(&hold, false));
            };
            let grow = json(&Grow { turn_id: extend.turn_id, was: &hold, tokens: grown.tokens(), hold: &grown, now })?;
            outcome = parse("hold_grow", &self.tenant().hold_grow(&grow).await?)?;
        }
        Err(StoreError::Unreachable)
    }

    /// None when the turn was to be ended as expired and is not.
    async fn finish(&self, record: &Record, now: Timestamp, only_expired: bool) -> Result<Option<Answer>, StoreError> {
        let argument = json(&Finish { record, now, only_expired })?;
        Ok(match parse("hold_finish", &self.tenant().hold_finish(&argument).await?)? {
            Saved::Alive => None,
            Saved::Finished { quota } => Some(Answer::Finished(Finished { saved: true, quota })),
        })
    }

    async fn stop(&self, stop: &Stop) -> Result<Answer, StoreError> {
        let argument = json(stop)?;
        let outcome: Outcome = parse("hold_stop", &self.tenant().hold_stop(&argument).await?)?;
        Ok(if outcome.outcome == "stopping" { Answer::Stopping } else { Answer::NotRunning })
    }

    async fn status(&self, now: Timestamp) -> Result<Answer, StoreError> {
        let argument = json(&At { now })?;
        for _ in 0..READS {
            match parse("hold_status", &self.tenant().hold_status(&argument).await?)? {
                Status::NotFound => return Ok(Answer::Status(None)),
                Status::Ok { quota } => return Ok(Answer::Status(Some(quota))),
                Status::Expired => drop(self.expire(now).await?),
            }
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
                ended += usize::from(self.finish(&record, now, true).await?.is_some());
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

fn extended(hold: &Hold, covered: bool) -> Answer {
    Answer::Extended(Extended { stop: hold.stop, covered, max_output: hold.max_output })
}

fn json(argument: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(argument).map_err(|_| StoreError::Shape("the counter's argument"))
}

fn parse<T: DeserializeOwned>(statement: &'static str, text: &str) -> Result<T, StoreError> {
    astra_kernel::json::from_str(text).map_err(|_| StoreError::Shape(statement))
}
