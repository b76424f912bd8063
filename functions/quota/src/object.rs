//! The Durable Object: its `SQLite` rows, its kept connections to Postgres, its alarm. What it says is [`Desk`]'s.

use crate::desk::{Desk, KINDS, Row, Rows};
use astra_host::Shared;
use astra_host::workers::{self, database};
use astra_kernel::{Timestamp, TurnId, WorkspaceId};
use astra_quota::words::Envelope;
use astra_quota::{Answer, Ask};
use astra_store::{Database, Grouped, StoreError};
use futures_util::future::{Either, select};
use send_wrapper::SendWrapper;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Client;
use worker::{DurableObject, Env, Error, Request, Response, SqlStorage, State, durable_object};

/// Statements that may be under way at once, each on a connection of its own: one that is slow must not hold up all others.
const CONNECTIONS: usize = 4;

/// After this long a statement counts as lost and its connection as broken. The roles' own `statement_timeout` is as long.
const STATEMENT_SECONDS: u64 = 15;

/// How long after a turn has ended its row is deleted, in milliseconds: later than its answer, together with others. An object that dies in between
/// holds what the turn held until its lease is over.
const SWEEP_MILLIS: u64 = 20;

/// What answers here.
type Its = Desk<Grouped<Kept>, Sqlite>;

/// One workspace's object.
#[durable_object(alarm)]
pub struct Quota {
    state: State,
    env: Env,
    desk: RefCell<Option<Rc<Its>>>,
    alarm_at: Cell<Option<Timestamp>>,
    sweeping: Rc<Cell<bool>>,
}

impl DurableObject for Quota {
    fn new(state: State, env: Env) -> Self {
        Self { state, env, desk: RefCell::default(), alarm_at: Cell::default(), sweeping: Rc::default() }
    }

    async fn fetch(&self, mut request: Request) -> worker::Result<Response> {
        let Envelope { workspace, ask }: Envelope<WorkspaceId, Ask> = astra_kernel::json::from_str(&request.text().await?)?;
        let desk = self.desk(Some(workspace.clone()))?.ok_or("no workspace")?;
        if *desk.workspace() != workspace {
            return Response::error("another workspace's counter", 409);
        }
        let answer = desk.answer(ask, workers::now()).await;
        match &answer {
            Answer::Begun(_) | Answer::Extended(_) | Answer::Finished(_) => self.set_alarm(&desk).await?,
            Answer::Forgotten => self.state.storage().delete_alarm().await?,
            _ => {}
        }
        if matches!(answer, Answer::Extended(_)) && desk.wants_look(workers::now()) {
            let desk = Rc::clone(&desk);
            wasm_bindgen_futures::spawn_local(async move { desk.look(workers::now()).await });
        }
        self.sweep_soon(&desk);
        Response::ok(serde_json::to_string(&answer)?)
    }

    async fn alarm(&self) -> worker::Result<Response> {
        self.alarm_at.set(None);
        if let Some(desk) = self.desk(None)? {
            desk.wake(workers::now()).await;
            self.set_alarm(&desk).await?;
        }
        Response::empty()
    }
}

impl Quota {
    /// The desk, opened when it is first needed. An alarm does not know whose object it is: the rows do.
    fn desk(&self, workspace: Option<WorkspaceId>) -> worker::Result<Option<Rc<Its>>> {
        if let Some(desk) = &*self.desk.borrow() {
            return Ok(Some(Rc::clone(desk)));
        }
        let rows = Sqlite(self.state.storage().sql());
        let Some(workspace) = rows.open(workspace)? else { return Ok(None) };
        let database = Kept { shared: workers::shared(&self.env), clients: SendWrapper::new(RefCell::default()) };
        let database = Grouped::new(database, KINDS, wasm_bindgen_futures::spawn_local);
        let desk = Rc::new(Desk::open(workspace, database, rows));
        *self.desk.borrow_mut() = Some(Rc::clone(&desk));
        Ok(Some(desk))
    }

    /// Sees to it that the object wakes when a hold expires or a record is to be delivered. An alarm that comes too early only sets the next.
    async fn set_alarm(&self, desk: &Its) -> worker::Result<()> {
        let now = workers::now();
        let Some(at) = desk.wake_at(now) else { return Ok(()) };
        if self.alarm_at.get().is_some_and(|set| set <= at && set > now) {
            return Ok(());
        }
        self.alarm_at.set(Some(at));
        self.state.storage().set_alarm((at.0 - now.0).max(1)).await
    }

    fn sweep_soon(&self, desk: &Rc<Its>) {
        if !desk.wants_sweep() || self.sweeping.replace(true) {
            return;
        }
        let (desk, sweeping) = (Rc::clone(desk), Rc::clone(&self.sweeping));
        wasm_bindgen_futures::spawn_local(async move {
            worker::Delay::from(Duration::from_millis(SWEEP_MILLIS)).await;
            sweeping.set(false);
            desk.sweep();
        });
    }
}

/// Rows in the object's own `SQLite`.
struct Sqlite(SqlStorage);

impl Sqlite {
    /// Makes the tables; remembers whose object this is.
    fn open(&self, workspace: Option<WorkspaceId>) -> worker::Result<Option<WorkspaceId>> {
        self.0.exec("CREATE TABLE IF NOT EXISTS turns (id TEXT PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID", None)?;
        self.0.exec("CREATE TABLE IF NOT EXISTS self (one INTEGER PRIMARY KEY CHECK (one = 1), workspace TEXT NOT NULL)", None)?;
        let known = self.texts("SELECT workspace FROM self", vec![])?.into_iter().next();
        if let Some(known) = known {
            return Ok(known.first().cloned().and_then(|id| WorkspaceId::try_from(id).ok()));
        }
        if let Some(workspace) = &workspace {
            self.0.exec("INSERT INTO self VALUES (1, ?)", vec![workspace.as_str().into()])?;
        }
        Ok(workspace)
    }

    fn texts(&self, query: &str, bindings: Vec<worker::SqlStorageValue>) -> worker::Result<Vec<Vec<String>>> {
        let rows = self.0.exec(query, bindings)?.raw();
        rows.map(|row| {
            row?.into_iter()
                .map(|value| match value {
                    worker::SqlStorageValue::String(text) => Ok(text),
                    _ => Err(Error::RustError("not a text".into())),
                })
                .collect()
        })
        .collect()
    }

    fn failed(error: &Error) {
        worker::console_error!("{}", serde_json::json!({ "event": "rows", "error": error.to_string() }));
    }
}

fn parse_row(row: &[String]) -> Option<(TurnId, Row)> {
    let [id, json] = row else { return None };
    Some((id.parse().ok()?, astra_kernel::json::from_str(json).ok()?))
}

impl Rows for Sqlite {
    fn all(&self) -> Vec<(TurnId, Row)> {
        let rows = self.texts("SELECT id, row FROM turns", vec![]).inspect_err(Self::failed).unwrap_or_default();
        rows.iter().filter_map(|row| parse_row(row)).collect()
    }

    fn get(&self, turn: TurnId) -> Option<Row> {
        let rows = self.texts("SELECT id, row FROM turns WHERE id = ?", vec![turn.to_string().into()]).inspect_err(Self::failed).ok()?;
        rows.first().and_then(|row| parse_row(row)).map(|(_, row)| row)
    }

    fn put(&self, turn: TurnId, row: &Row) -> bool {
        let Ok(json) = serde_json::to_string(row) else { return false };
        let bindings = vec![turn.to_string().into(), json.into()];
        self.0.exec("INSERT OR REPLACE INTO turns (id, row) VALUES (?, ?)", bindings).inspect_err(Self::failed).is_ok()
    }

    fn delete(&self, turns: &[TurnId]) {
        for turn in turns {
            // Left behind it is saved once more, which changes nothing.
            let _ = self.0.exec("DELETE FROM turns WHERE id = ?", vec![turn.to_string().into()]).inspect_err(Self::failed);
        }
    }
}

/// Connections that are kept for as long as the object lives. Each statement is whole in itself, so requests may share them.
struct Kept {
    shared: &'static Shared,
    clients: SendWrapper<RefCell<Vec<Slot>>>,
}

#[derive(Clone)]
struct Slot {
    client: Arc<Client>,
    busy: Rc<Cell<usize>>,
}

/// Counts a statement for as long as it is under way, however it ends.
struct Busy(Rc<Cell<usize>>);

impl Busy {
    fn on(slot: &Slot) -> Self {
        slot.busy.set(slot.busy.get() + 1);
        Self(Rc::clone(&slot.busy))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Kept {
    /// The least busy connection; a new one while there are few and all are busy. True when it was kept from before.
    async fn slot(&self) -> Result<(Slot, bool), StoreError> {
        let (least, count) = {
            let mut clients = self.clients.borrow_mut();
            clients.retain(|slot| !slot.client.is_closed());
            (clients.iter().min_by_key(|slot| slot.busy.get()).cloned(), clients.len())
        };
        match least {
            Some(slot) if slot.busy.get() == 0 || count >= CONNECTIONS => Ok((slot, true)),
            _ => {
                let client = database::connect(self.shared, wasm_bindgen_futures::spawn_local).await?;
                let slot = Slot { client: Arc::new(client), busy: Rc::default() };
                self.clients.borrow_mut().push(slot.clone());
                Ok((slot, false))
            }
        }
    }

    fn discard(&self, slot: &Slot) {
        self.clients.borrow_mut().retain(|known| !Arc::ptr_eq(&known.client, &slot.client));
    }

    async fn run(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        loop {
            let (slot, kept) = self.slot().await?;
            let _busy = Busy::on(&slot);
            let statement_run = std::pin::pin!(database::run(&slot.client, statement, params));
            let limit = std::pin::pin!(worker::Delay::from(Duration::from_secs(STATEMENT_SECONDS)));
            match select(statement_run, limit).await {
                // A kept connection may have died unnoticed. All statements may be sent again.
                Either::Left((Err(StoreError::Unreachable), _)) if kept => self.discard(&slot),
                Either::Left((Err(StoreError::Unreachable), _)) | Either::Right(_) => {
                    self.discard(&slot);
                    return Err(StoreError::Unreachable);
                }
                Either::Left((result, _)) => return result,
            }
        }
    }
}

impl Database for Kept {
    fn proof(&self, workspace: &WorkspaceId, actor: &str) -> Result<String, StoreError> {
        Ok(self.shared.tenant_keys().map_err(StoreError::NoKeys)?.prove(workspace, actor, workers::now()))
    }

    fn query(&self, statement: &'static str, params: &[&str]) -> impl Future<Output = Result<String, StoreError>> + Send {
        SendWrapper::new(self.run(statement, params))
    }
}
