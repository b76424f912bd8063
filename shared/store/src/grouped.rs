//! Calls for one workspace that would wait for each other go to the database together, as one statement: one round trip, one lock, one commit for all of them.
//!
//! Nothing waits for company: a call goes at once, by itself, unless as many of its kind are under way as may be. Those that come meanwhile go together when one of
//! these is back, so groups are as large as the load makes them.
//!
//! The traps: 1. A caller that goes must not take the others' answers along: what was sent is waited for by a task of its own. 2. A group is done whole or not at
//! all, so a call that fails would fail its neighbours: then each is sent by itself.

use crate::{Database, StoreError};
use astra_kernel::WorkspaceId;
use futures_channel::oneshot;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most calls in a group: their locks are held, and their callers wait, until the last of them is done.
const MOST: usize = 64;

/// Calls that may go together.
#[derive(Debug)]
pub struct Kind {
    /// The statement that takes [[name, argument]] and gives [answer].
    pub many: &'static str,
    /// The calls' own statements, and their names in a group.
    pub calls: &'static [(&'static str, &'static str)],
    /// How many statements of this kind may be under way for one workspace. Those that wait for one lock: one.
    pub under_way: usize,
}

/// A task that serves a line.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A call that waits for its answer.
#[derive(Debug)]
struct Call {
    statement: &'static str,
    name: &'static str,
    arg: String,
    answer: oneshot::Sender<Result<String, StoreError>>,
}

impl Call {
    fn tell(self, answer: Result<String, StoreError>) {
        // Nobody listens any more: what was done is done, and is found when it is asked for again.
        let _ = self.answer.send(answer);
    }
}

/// One workspace's calls of one kind.
#[derive(Debug, Default)]
struct Line {
    under_way: usize,
    waiting: Vec<Call>,
}

/// Whose line: a workspace, by its proof (which is the same for a minute), and which of the kinds.
type Key = (String, usize);

struct Groups<D> {
    database: D,
    kinds: &'static [Kind],
    spawn: fn(Task),
    /// Lines that have something under way.
    lines: Mutex<BTreeMap<Key, Line>>,
}

/// A database that groups some calls. Clones share their groups.
pub struct Grouped<D>(Arc<Groups<D>>);

impl<D> Clone for Grouped<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D> std::fmt::Debug for Grouped<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grouped")
    }
}

impl<D: Database + 'static> Grouped<D> {
    /// Groups calls of some kinds. `spawn` has a task polled to its end, whoever has called.
    pub fn new(database: D, kinds: &'static [Kind], spawn: fn(Task)) -> Self {
        Self(Arc::new(Groups { database, kinds, spawn, lines: Mutex::default() }))
    }
}

impl<D> Groups<D> {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<Key, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which kind a statement is of, and its name there.
    fn find(&self, statement: &str) -> Option<(usize, &'static str)> {
        let name = |kind: &Kind| kind.calls.iter().find(|(call, _)| *call == statement).map(|(_, name)| *name);
        self.kinds.iter().enumerate().find_map(|(kind, calls)| name(calls).map(|name| (kind, name)))
    }

    /// Joins its line. Gives the call back when it may go at once.
    fn join(&self, key: &Key, call: Call) -> Option<Call> {
        let mut lines = self.lines();
        let line = lines.entry(key.clone()).or_default();
        if line.under_way < self.kinds.get(key.1).map_or(1, |kind| kind.under_way) {
            line.under_way += 1;
            return Some(call);
        }
        line.waiting.push(call);
        None
    }

    /// Who has come meanwhile. Nobody: one statement less is under way, in the same step, so that whoever comes next goes at once.
    fn next(&self, key: &Key) -> Vec<Call> {
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(key) else { return Vec::new() };
        let calls: Vec<_> = line.waiting.drain(..line.waiting.len().min(MOST)).collect();
        if calls.is_empty() {
            Self::leave(&mut lines, key);
        }
        calls
    }

    /// The last to leave takes the line along, and whoever waits in it: they are told that there is no answer.
    fn leave(lines: &mut BTreeMap<Key, Line>, key: &Key) {
        let Some(line) = lines.get_mut(key) else { return };
        line.under_way -= 1;
        if line.under_way == 0 {
            lines.remove(key);
        }
    }
}

/// Serves a line. When its task is ended in the middle, the line goes on without it.
struct Server<D> {
    groups: Arc<Groups<D>>,
    key: Key,
    has_left: bool,
}

impl<D> Drop for Server<D> {
    fn drop(&mut self) {
        if !self.has_left {
            Groups::<D>::leave(&mut self.groups.lines(), &self.key);
        }
    }
}

impl<D: Database> Server<D> {
    async fn serve(mut self, first: Call) {
        let mut calls = vec![first];
        while !calls.is_empty() {
            self.send(calls).await;
            calls = self.groups.next(&self.key);
        }
        self.has_left = true;
    }

    async fn send(&self, calls: Vec<Call>) {
        let (proof, kind) = (self.key.0.as_str(), self.groups.kinds.get(self.key.1));
        if let (Some(kind), [_, _, ..]) = (kind, calls.as_slice()) {
            match self.groups.database.query(kind.many, &[proof, &argument(&calls)]).await {
                Ok(text) => {
                    let answers: Vec<Box<RawValue>> = serde_json::from_str(&text).unwrap_or_default();
                    let mut answers = answers.into_iter().map(|answer| Ok(answer.get().to_owned()));
                    for call in calls {
                        call.tell(answers.next().unwrap_or(Err(StoreError::Shape(kind.many))));
                    }
                    return;
                }
                Err(error) if error.is_passing() => {
                    for call in calls {
                        call.tell(Err(error.clone()));
                    }
                    return;
                }
                Err(_) => {}
            }
        }
        for call in calls {
            let answer = self.groups.database.query(call.statement, &[proof, &call.arg]).await;
            call.tell(answer);
        }
    }
}

fn argument(calls: &[Call]) -> String {
    let all: Vec<_> = calls.iter().map(|call| format!("[\"{}\",{}]", call.name, call.arg)).collect();
    format!("[{}]", all.join(","))
}

impl<D: Database + 'static> Database for Grouped<D> {
    fn proof(&self, workspace: &WorkspaceId, actor: &str) -> Result<String, StoreError> {
        self.0.database.proof(workspace, actor)
    }

    async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        let groups = &self.0;
        let (Some((kind, name)), [proof, arg]) = (groups.find(statement), params) else {
            return groups.database.query(statement, params).await;
        };
        let key = ((*proof).to_owned(), kind);
        let (answer, answered) = oneshot::channel();
        if let Some(first) = groups.join(&key, Call { statement, name, arg: (*arg).to_owned(), answer }) {
            let server = Server { groups: Arc::clone(groups), key, has_left: false };
            (groups.spawn)(Box::pin(server.serve(first)));
        }
        answered.await.unwrap_or(Err(StoreError::Unreachable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant_statement;
    use futures_util::future::join_all;
    use std::time::Duration;

    const TAKE: &str = tenant_statement!("hold_take");
    const BEGIN: &str = tenant_statement!("hold_begin");
    const MANY: &str = tenant_statement!("counter_many");
    const KINDS: &[Kind] = &[
        Kind { many: MANY, calls: &[(TAKE, "hold_take")], under_way: 1 },
        Kind { many: tenant_statement!("turns_many"), calls: &[(BEGIN, "hold_begin")], under_way: 2 },
    ];

    fn grouped(fake: &Fake) -> Grouped<Fake> {
        Grouped::new(fake.clone(), KINDS, |task| drop(tokio::spawn(task)))
    }

    /// Answers after a moment: a group with the arguments that it was sent, a call with its own; or as it is told.
    #[derive(Clone, Default)]
    struct Fake {
        sent: Arc<Mutex<Vec<(String, String, String)>>>,
        fails: Option<StoreError>,
        panics: bool,
    }

    impl Database for Fake {
        fn proof(&self, workspace: &WorkspaceId, _: &str) -> Result<String, StoreError> {
            Ok(workspace.to_string())
        }

        async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
            self.sent.lock().unwrap().push((statement.to_owned(), params[0].to_owned(), params[1].to_owned()));
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(!self.panics, "as told");
            match &self.fails {
                Some(error) if statement == MANY || error.is_passing() => Err(error.clone()),
                _ if statement.contains("_many") => {
                    let calls: Vec<(String, Box<RawValue>)> = serde_json::from_str(params[1]).unwrap();
                    Ok(format!("[{}]", calls.iter().map(|(_, arg)| arg.get()).collect::<Vec<_>>().join(",")))
                }
                _ => Ok(params[1].to_owned()),
            }
        }
    }

    async fn ask(groups: &Grouped<Fake>, workspace: &str, n: usize) -> Result<String, StoreError> {
        groups.query(TAKE, &[workspace, &format!("{{\"n\":{n}}}")]).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_one_is_under_way_goes_with_those_who_came_too() {
        let fake = Fake::default();
        let groups = grouped(&fake);
        let (one, two) = tokio::join!(join_all((0..70).map(|n| ask(&groups, "one", n))), ask(&groups, "two", 0));
        for (n, answer) in one.into_iter().enumerate() {
            assert_eq!(answer, Ok(format!("{{\"n\":{n}}}")), "each has its own answer");
        }
        assert_eq!(two, Ok("{\"n\":0}".into()));
        let sent = fake.sent.lock().unwrap();
        let of: Vec<_> = sent.iter().map(|(statement, workspace, _)| (statement.as_str(), workspace.as_str())).collect();
        assert_eq!(
            of,
            [(TAKE, "one"), (TAKE, "two"), (MANY, "one"), (MANY, "one")],
            "64 and 5 after the first; another workspace's by itself"
        );
        assert!(groups.0.lines().is_empty(), "nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_away_is_told_to_all_and_asked_anew_by_the_next() {
        let fake = Fake { fails: Some(StoreError::Unreachable), ..Fake::default() };
        let groups = grouped(&fake);
        for answer in join_all((0..9).map(|n| ask(&groups, "one", n))).await {
            assert_eq!(answer, Err(StoreError::Unreachable));
        }
        assert_eq!(fake.sent.lock().unwrap().len(), 2, "the first, and the eight that waited: they are not sent again here");
        assert_eq!(ask(&groups, "one", 0).await, Err(StoreError::Unreachable));
        assert_eq!(fake.sent.lock().unwrap().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_is_refused_is_sent_call_by_call() {
        let fake = Fake { fails: Some(StoreError::Fault("22P02".into())), ..Fake::default() };
        let groups = grouped(&fake);
        for answer in join_all((0..4).map(|n| ask(&groups, "one", n))).await {
            answer.unwrap();
        }
        assert_eq!(fake.sent.lock().unwrap().len(), 1 + 1 + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_whose_task_panics_is_closed() {
        let groups = grouped(&Fake { panics: true, ..Fake::default() });
        for answer in join_all((0..3).map(|n| ask(&groups, "one", n))).await {
            assert_eq!(answer, Err(StoreError::Unreachable));
        }
        assert!(groups.0.lines().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_under_way_as_may_be() {
        let fake = Fake::default();
        let groups = grouped(&fake);
        let begin = async |n: usize| groups.query(BEGIN, &["one", &format!("{{\"n\":{n}}}")]).await;
        let answers = join_all((0..5).map(begin)).await;
        let told: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
        assert_eq!(told[..2], ["{\"n\":0}", "{\"n\":1}"]);
        let sent = fake.sent.lock().unwrap();
        assert_eq!(sent.iter().filter(|(statement, ..)| statement == BEGIN).count(), 2, "two at once, the other three together");
        assert_eq!(sent.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_of_no_kind_goes_by_itself() {
        let fake = Fake::default();
        let groups = grouped(&fake);
        let stop = async || groups.query(tenant_statement!("hold_stop"), &["one", "{}"]).await;
        join_all((0..3).map(|_| stop())).await;
        assert_eq!(fake.sent.lock().unwrap().len(), 3);
    }
}
