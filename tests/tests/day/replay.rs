//! The day is done again, against the stack that is up. What the callers are told is kept by the number of the line.

use crate::model;
use crate::recording::{Action, Script, Then, Turn};
use crate::{AFTER, SOON};
use astra_tests::{Api, Db, Scripted, Stream, Workspace, canary, environment, stack, template, wait};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// After so many milliseconds what a turn has delivered was reported to the counter, which charges it to a turn that dies. (One second after its
/// beginning, then every two.)
const REPORTED: u64 = 3_000;

/// After so many milliseconds a counter has tidied up behind the turns that have ended. Where it is a Durable Object that dies within the moment before
/// that, it holds what they held for as long as their leases last: nothing that is charged, but near a limit others are refused meanwhile.
const TIDY: u64 = 500;

/// A day under way.
pub(crate) struct Day {
    /// What makes this run's names its own.
    pub(crate) run: String,
    pub(crate) database: Db,
    model: Scripted,
}

/// One workspace's part of it.
#[derive(Default)]
pub(crate) struct Lane {
    workspace: Option<Workspace>,
    sessions: HashMap<String, Value>,
    /// Streams of turns that are to be lost. Dropping one would be hanging up.
    lost: Vec<Stream>,
    /// How many entries the ledger will have when the lost turns are charged.
    owed: usize,
    /// What was answered, by line.
    pub(crate) told: Vec<(usize, Value)>,
}

impl Day {
    pub(crate) async fn begin(run: String, recording: &[Action]) -> Self {
        Self { run, database: Db::connect().await, model: model::start(recording).await }
    }

    /// Does all of it. Gives the workspaces' parts by their names.
    pub(crate) async fn replay(&self, recording: &[Action]) -> BTreeMap<String, Lane> {
        let mut lanes: BTreeMap<String, Lane> = BTreeMap::new();
        let numbered: Vec<_> = recording.iter().enumerate().collect();
        for stretch in numbered.chunk_by(|(_, action), _| !matches!(action, Action::Restart {})) {
            let mut parts: BTreeMap<&str, Vec<(usize, &Action)>> = BTreeMap::new();
            for (line, action) in stretch {
                if let Some(workspace) = action.workspace() {
                    parts.entry(workspace).or_default().push((line + 1, action));
                    lanes.entry(workspace.to_owned()).or_default();
                }
            }
            let busy = lanes.iter_mut().filter_map(|(name, lane)| Some(self.go_on(name, lane, parts.remove(name.as_str())?)));
            futures_util::future::join_all(busy).await;
            if let Some((_, Action::Restart {})) = stretch.last() {
                self.restart(&mut lanes).await;
            }
        }
        lanes
    }

    async fn restart(&self, lanes: &mut BTreeMap<String, Lane>) {
        wait::millis(if lanes.values().all(|lane| lane.lost.is_empty()) { TIDY } else { REPORTED }).await;
        stack::restart_functions().await;
        for lane in lanes.values_mut() {
            lane.lost.clear();
        }
    }

    async fn go_on(&self, name: &str, lane: &mut Lane, actions: Vec<(usize, &Action)>) {
        for (line, action) in actions {
            let told = match action {
                Action::Open { limits, .. } => self.open(name, lane, limits).await,
                Action::Turn(turn) => self.turn(lane, turn).await,
                Action::Settle { .. } => self.settle(lane).await,
                Action::Limits { limits, .. } => lane.workspace().patch_limits(limits).await["limits"].clone(),
                Action::Quota { .. } => lane.workspace().quota().await.into(),
                Action::Delete { .. } => lane.workspace().operator.delete(&lane.workspace().path("")).await.status.into(),
                Action::Price { input, cached, output, .. } => {
                    let price = json!({ "provider": "openai", "model": self.priced(), "inputUsdPerMtok": input, "cachedInputUsdPerMtok": cached, "outputUsdPerMtok": output });
                    Api::operator().put("/billing/prices", &price).await.ok(200)["version"].clone()
                }
                Action::Restart {} => Value::Null,
            };
            lane.told.push((line, told));
        }
    }

    fn priced(&self) -> String {
        format!("priced-{}", self.run)
    }

    async fn open(&self, name: &str, lane: &mut Lane, limits: &Value) -> Value {
        let workspace = Workspace::named(&self.id(name), limits).await;
        workspace.put_template(&self.agents()).await;
        for key in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY"] {
            workspace.put_secret(key, &canary::key()).await;
        }
        lane.workspace = Some(workspace);
        lane.sessions.clear();
        Value::Null
    }

    /// A workspace's id, of the same length in each run: a prompt's length is part of a bill.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{name}-{}", self.run)
    }

    fn agents(&self) -> [Value; 9] {
        let openai = |id: &str, model: &str| {
            let mut agent = template::openai(id, &self.model.openai());
            agent["model"]["modelId"] = model.into();
            agent
        };
        let with = |mut agent: Value, key: &str, value: Value| {
            agent[key] = value;
            agent
        };
        [
            openai("assistant", "gpt-4o-mini"),
            openai("reasoner", "o4-mini"),
            template::anthropic("claude", self.model.openai().trim_end_matches("/v1")),
            template::local("echo"),
            with(openai("thrifty", "gpt-4o-mini"), "budget", json!({ "maxCostUsdPerMonth": 0.000_4 })),
            with(openai("brief", "gpt-4o-mini"), "budget", json!({ "maxTokensPerTurn": 500 })),
            openai("priced", &self.priced()),
            openai("unpriced", &format!("unpriced-{}", self.run)),
            // Renders only where the limit is set.
            with(template::local("counter"), "systemPromptTemplate", "One of {{workspace.limits.maxAgents}}.".into()),
        ]
    }

    async fn turn(&self, lane: &mut Lane, turn: &Turn) -> Value {
        let Turn { say, agent, role, session, key, stream, direct, leave, .. } = turn;
        let workspace = lane.workspace().clone();
        let before = self.database.ledger(&workspace.id).await.len();
        let base = if *direct { environment::invoke_turn() } else { environment::gateway() };
        let subject = format!("{role}@test");
        // The workspace may be deleted by now.
        let _ = workspace.operator.put(&workspace.path(&format!("/members/{subject}")), &json!({ "role": role })).await;
        let caller = workspace.bearer(&subject, role).via(base);
        let mut body = json!({ "agentId": agent, "message": canary::message(say) });
        if let Some(known) = session.as_ref().and_then(|name| lane.sessions.get(name)) {
            body["sessionId"] = known.clone();
        }
        let mut request = caller.request(Method::POST, &workspace.path("/turns")).json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let told = match (stream, leave) {
            (true, _) => self.by_events(lane, turn, &caller, &body).await,
            (false, None) => {
                let reply = request.send().await;
                json!({ "status": reply.status, "body": reply.json() })
            }
            (false, Some(_)) => tokio::select! {
                // Hardly ever: the model takes its time. The bill is the same.
                _ = request.try_send() => "gone".into(),
                () = self.asked(turn, 1) => "gone".into(),
            },
        };
        for told in [&told["body"], &told["started"]] {
            if let (Some(name), Some(id)) = (session, told.get("sessionId")) {
                lane.sessions.insert(name.clone(), id.clone());
            }
        }
        if turn.then == Some(Then::Die) {
            lane.owed = before + 1;
        } else if leave.is_some() {
            self.entries(&workspace, before + 1).await;
        }
        told
    }

    async fn by_events(&self, lane: &mut Lane, turn: &Turn, caller: &Api, body: &Value) -> Value {
        let workspace = lane.workspace();
        let headers: Vec<_> = turn.key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
        let mut stream = match Stream::try_open_with(caller, &workspace.path("/turns"), body, &headers).await {
            Ok(stream) => stream,
            Err((status, said)) => return json!({ "status": status, "body": serde_json::from_str::<Value>(&said).unwrap_or(said.into()) }),
        };
        let started = stream.next_named("turn.started").await.data;
        let mut text = String::new();
        let pieces = match turn.model.last() {
            Some(Script::Answer(answer)) => answer.pieces.as_slice(),
            _ => &[],
        };
        // Events are cut as the network likes: by their length, they tell how many pieces have come.
        let read_to = turn.leave.or_else(|| turn.then.map(|_| pieces.len()));
        if let Some(count) = read_to {
            let wanted = pieces[..count].concat().len();
            while text.len() < wanted {
                text.push_str(stream.next_named("content.delta").await.data["text"].as_str().unwrap());
            }
            self.asked(turn, turn.model.len()).await;
        }
        if turn.then == Some(Then::Die) {
            lane.lost.push(stream);
            return json!({ "started": started });
        }
        // Without a caller to read on, the stream is dropped here.
        let stays = turn.leave.is_none().then_some(stream);
        let mut told = json!({ "started": started });
        if turn.then == Some(Then::Stop) {
            let path = workspace.path(&format!("/turns/{}/stop", started["turnId"].as_str().unwrap()));
            told["stop"] = caller.request(Method::POST, &path).send().await.status.into();
        }
        if let Some(stream) = stays {
            let mut events = stream.rest().await;
            let last = events.pop().expect("the stream says how it ended");
            text.push_str(&astra_tests::sse::text(&events));
            told["text"] = text.into();
            told[last.name] = last.data;
        }
        told
    }

    /// Waits until the model has been asked so often.
    async fn asked(&self, turn: &Turn, times: usize) {
        wait::until(&format!("the model call of {:?}", turn.say), SOON, async || {
            let calls = model::calls(&self.model, &turn.say);
            if calls >= times { Ok(()) } else { Err(calls) }
        })
        .await;
    }

    /// Waits until the ledger has so many entries and nothing is held.
    async fn entries(&self, workspace: &Workspace, count: usize) {
        wait::until(&format!("entry {count} in the ledger of {}", workspace.id), AFTER, async || {
            let (ledger, held) = (self.database.ledger(&workspace.id).await.len(), workspace.held().await);
            if ledger >= count && held == 0 { Ok(()) } else { Err((ledger, held)) }
        })
        .await;
    }

    async fn settle(&self, lane: &Lane) -> Value {
        self.entries(lane.workspace(), lane.owed).await;
        Value::Null
    }
}

impl Lane {
    pub(crate) fn workspace(&self) -> &Workspace {
        self.workspace.as_ref().expect("day.jsonl opens a workspace before anything is done in it")
    }
}
