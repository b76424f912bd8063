//! Calls of one workspace's counter that would wait for each other go to the database together, as one statement: one lock and one commit for all of them.
//!
//! Nothing waits for company: a call that finds none of its workspace under way goes at once, by itself. Those that come while it is on its way go together when it
//! is back, so groups are as large as the load makes them. Reads make groups of their own, because they need no lock.
//!
//! The traps: 1. A caller that goes must not take the others' answers along: what was sent is waited for by a task of its own. 2. A group is done whole or not at
//! all, so a call that fails would fail its neighbours: then each is sent by itself.

use astra_store::{Database, StoreError, tenant_statement};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The most calls in a group: their locks are held, and their callers wait, until the last of them is done.
const MOST: usize = 64;

/// How some calls go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// `hold_begin_many`: [argument].
    Reads,
    /// `counter_many`: [[name, argument]].
    Writes,
}

impl Kind {
    fn statement(self) -> &'static str {
        match self {
            Self::Reads => tenant_statement!("hold_begin_many"),
            Self::Writes => tenant_statement!("counter_many"),
        }
    }
}

macro_rules! writes {
    ($($name:literal),*) => {
        /// Its kind, and its name in a group; none for what always goes by itself.
        fn grouped(statement: &str) -> Option<(Kind, &'static str)> {
            const READ: &str = tenant_statement!("hold_begin");
            match statement {
                READ => Some((Kind::Reads, "hold_begin")),
                $(s if s == tenant_statement!($name) => Some((Kind::Writes, $name)),)*
                _ => None,
            }
        }
    };
}
writes!("hold_take", "hold_extend", "hold_grow", "hold_wait", "hold_finish");

/// A call that waits for its answer.
#[derive(Debug)]
struct Call {
    name: &'static str,
    statement: &'static str,
    arg: String,
    answer: oneshot::Sender<Result<String, StoreError>>,
}

/// One workspace's calls of one kind.
type Line = (String, Kind);

/// A database that groups the counter's calls. Clones share their groups.
#[derive(Debug, Clone)]
pub struct Grouped<D> {
    database: D,
    /// Lines that have a group under way, with those who came since.
    lines: Arc<Mutex<HashMap<Line, Vec<Call>>>>,
}

impl<D: Database + Clone + 'static> Grouped<D> {
    /// Groups what is asked of a database.
    pub fn new(database: D) -> Self {
        Self { database, lines: Arc::default() }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Line, Vec<Call>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins its line. Gives the call back when it is the first.
    fn join(&self, line: &Line, call: Call) -> Option<Call> {
        let mut lines = self.lines();
        if let Some(waiting) = lines.get_mut(line) {
            waiting.push(call);
            return None;
        }
        lines.insert(line.clone(), Vec::new());
        Some(call)
    }

    /// Who has come meanwhile. Nobody: the line is closed.
    fn next(&self, line: &Line) -> Vec<Call> {
        let mut lines = self.lines();
        let Some(waiting) = lines.get_mut(line) else { return Vec::new() };
        let calls: Vec<_> = waiting.drain(..waiting.len().min(MOST)).collect();
        if calls.is_empty() {
            lines.remove(line);
        }
        calls
    }

    /// Sends a line's calls until there are none.
    async fn serve(self, line: Line, first: Call) {
        let open = Open { groups: &self, line: &line };
        let mut calls = vec![first];
        while !calls.is_empty() {
            self.send(&line, calls).await;
            calls = self.next(&line);
        }
        // It is closed already, and may be open again.
        std::mem::forget(open);
    }

    async fn send(&self, (workspace, kind): &Line, calls: Vec<Call>) {
        if calls.len() > 1 {
            match self.database.query(kind.statement(), &[workspace, &argument(*kind, &calls)]).await {
                Ok(text) => {
                    let answers: Vec<Box<RawValue>> = serde_json::from_str(&text).unwrap_or_default();
                    let mut answers = answers.into_iter().map(|answer| Ok(answer.get().to_owned()));
                    for call in calls {
                        call.tell(answers.next().unwrap_or(Err(StoreError::Shape("counter_many"))));
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
            let answer = self.database.query(call.statement, &[workspace, &call.arg]).await;
            call.tell(answer);
        }
    }
}

impl Call {
    fn tell(self, answer: Result<String, StoreError>) {
        // Nobody listens any more: what was done is done, and is found when it is asked for again.
        let _ = self.answer.send(answer);
    }
}

fn argument(kind: Kind, calls: &[Call]) -> String {
    let call = |call: &Call| match kind {
        Kind::Reads => call.arg.clone(),
        Kind::Writes => format!("[\"{}\",{}]", call.name, call.arg),
    };
    format!("[{}]", calls.iter().map(call).collect::<Vec<_>>().join(","))
}

/// A line that is closed whatever happens to its task: who waits in it is told that there is no answer, and who comes next opens it anew.
struct Open<'a, D: Database + Clone + 'static> {
    groups: &'a Grouped<D>,
    line: &'a Line,
}

impl<D: Database + Clone + 'static> Drop for Open<'_, D> {
    fn drop(&mut self) {
        self.groups.lines().remove(self.line);
    }
}

impl<D: Database + Clone + 'static> Database for Grouped<D> {
    async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        let (Some((kind, name)), [workspace, arg]) = (grouped(statement), params) else {
            return self.database.query(statement, params).await;
        };
        let line = ((*workspace).to_owned(), kind);
        let (answer, answered) = oneshot::channel();
        if let Some(first) = self.join(&line, Call { name, statement, arg: (*arg).to_owned(), answer }) {
            tokio::spawn(self.clone().serve(line, first));
        }
        answered.await.unwrap_or(Err(StoreError::Unreachable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::time::Duration;

    const TAKE: &str = tenant_statement!("hold_take");
    const MANY: &str = tenant_statement!("counter_many");

    /// Answers after a moment: a group with the arguments that it was sent, a call with its own; or as it is told.
    #[derive(Clone, Default)]
    struct Fake {
        sent: Arc<Mutex<Vec<(String, String, String)>>>,
        fails: Option<StoreError>,
        panics: bool,
    }

    impl Database for Fake {
        async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
            self.sent.lock().unwrap().push((statement.to_owned(), params[0].to_owned(), params[1].to_owned()));
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(!self.panics, "as told");
            match &self.fails {
                Some(error) if statement == MANY || error.is_passing() => Err(error.clone()),
                _ if statement == MANY => {
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
        let groups = Grouped::new(fake.clone());
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
        assert!(groups.lines().is_empty(), "nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_away_is_told_to_all_and_asked_anew_by_the_next() {
        let fake = Fake { fails: Some(StoreError::Unreachable), ..Fake::default() };
        let groups = Grouped::new(fake.clone());
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
        let groups = Grouped::new(fake.clone());
        for answer in join_all((0..4).map(|n| ask(&groups, "one", n))).await {
            answer.unwrap();
        }
        assert_eq!(fake.sent.lock().unwrap().len(), 1 + 1 + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_whose_task_panics_is_closed() {
        let groups = Grouped::new(Fake { panics: true, ..Fake::default() });
        for answer in join_all((0..3).map(|n| ask(&groups, "one", n))).await {
            assert_eq!(answer, Err(StoreError::Unreachable));
        }
        assert!(groups.lines().is_empty());
    }

    #[test]
    fn only_the_counters_own_calls_are_grouped() {
        assert_eq!(grouped(tenant_statement!("hold_begin")), Some((Kind::Reads, "hold_begin")));
        assert_eq!(grouped(tenant_statement!("hold_finish")), Some((Kind::Writes, "hold_finish")));
        for other in [tenant_statement!("hold_stop"), tenant_statement!("hold_status"), tenant_statement!("turn_begin"), MANY] {
            assert_eq!(grouped(other), None);
        }
    }
}
