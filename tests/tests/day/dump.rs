//! What is left of a day as one text that is the same on every host: answers, ledgers, turns, messages, usage, quotas.
//!
//! Only what cannot be the same is replaced: ids, hashes and receipts by names in the order of their first appearance, this run's name by `run`. Times are left
//! out, but not their absence. Everything else stands as it is, column by column.

use crate::replay::{Day, Lane};
use astra_tests::{Db, Workspace};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// In the ledger's order; a turn without an entry comes last.
const TURNS: &str =
    "SELECT to_jsonb(t) - 'workspace_id' || jsonb_build_object('cost_usd', t.cost_usd::text) AS row FROM turns t WHERE t.workspace_id = $1
    ORDER BY (SELECT min(l.seq) FROM ledger l WHERE l.workspace_id = t.workspace_id AND l.turn_id = t.id), t.created_at, t.id";
const LEDGER: &str = "SELECT to_jsonb(l) - 'workspace_id' || jsonb_build_object('cost_usd', l.cost_usd::text, 'charge_usd', l.charge_usd::text) AS row FROM ledger l WHERE l.workspace_id = $1 ORDER BY l.seq";
const SESSIONS: &str =
    "SELECT to_jsonb(s) - 'workspace_id' - 'extracted_seq' AS row FROM sessions s WHERE s.workspace_id = $1 ORDER BY s.created_at, s.id";
const MESSAGES: &str =
    "SELECT to_jsonb(m) - 'workspace_id' AS row FROM messages m JOIN sessions s ON s.workspace_id = m.workspace_id AND s.id = m.session_id
    WHERE m.workspace_id = $1 ORDER BY s.created_at, s.id, m.seq";

/// The whole day.
pub(crate) async fn dump(day: &Day, lanes: &BTreeMap<String, Lane>) -> String {
    let mut names = Names { run: day.run.clone(), known: HashMap::new(), counts: HashMap::new() };
    let mut text = "# What the callers were told, by the line of day.jsonl\n".to_owned();
    let mut told: Vec<_> = lanes.values().flat_map(|lane| &lane.told).filter(|(_, told)| !told.is_null()).collect();
    told.sort_by_key(|(line, _)| *line);
    for (line, told) in told {
        let _ = writeln!(text, "{line}: {}", names.replace("", told));
    }
    for (name, lane) in lanes {
        for (title, rows) in tables(&day.database, lane.workspace()).await {
            let _ = writeln!(text, "\n# {name}: {title}");
            for row in rows {
                let _ = writeln!(text, "{}", names.replace("", &row));
            }
        }
    }
    text
}

async fn tables(database: &Db, workspace: &Workspace) -> [(&'static str, Vec<Value>); 6] {
    let rows = async |sql| database.rows(sql, &[&workspace.id]).await.into_iter().map(|mut row| row["row"].take()).collect();
    let told = async |path| {
        let reply = workspace.owner.get(&workspace.path(path)).await;
        vec![json!({ "status": reply.status, "body": reply.json() })]
    };
    [
        ("ledger", rows(LEDGER).await),
        ("turns", rows(TURNS).await),
        ("sessions", rows(SESSIONS).await),
        ("messages", rows(MESSAGES).await),
        ("usage", told("/usage").await),
        ("quota", told("/quota").await),
    ]
}

/// Texts of more bytes are told by their beginning, length and hash.
const LONG: usize = 200;

fn shorten(text: String) -> String {
    if text.len() <= LONG {
        return text;
    }
    let beginning: String = text.chars().take(20).collect();
    format!("{beginning}… ({} bytes, {})", text.len(), &crate::hash(&text)[..16])
}

struct Names {
    run: String,
    known: HashMap<String, String>,
    counts: HashMap<&'static str, usize>,
}

impl Names {
    fn replace(&mut self, key: &str, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(key, text).into(),
            Value::Array(values) => values.iter().map(|value| self.replace(key, value)).collect(),
            Value::Object(members) => {
                // By key, whatever the order in which they were sent.
                // (What is forecast of a month depends on how much of it is over; what is not rolled up, on when the job was there.)
                let is_left_out = |key: &str| ["requestId", "forecast", "notRolledUp"].contains(&key);
                let members: BTreeMap<_, _> = members.iter().filter(|(key, value)| !is_left_out(key) && !is_time(value)).collect();
                Value::Object(members.into_iter().map(|(key, value)| (key.clone(), self.replace(key, value))).collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    fn text(&mut self, key: &str, text: &str) -> String {
        if uuid::Uuid::try_parse(text).is_ok() || key.ends_with("hash") || key == "receipt" {
            self.name(kind(key), text)
        } else {
            shorten(text.replace(&self.run, "run"))
        }
    }

    fn name(&mut self, kind: &'static str, text: &str) -> String {
        let count = self.counts.entry(kind).or_default();
        let name = self.known.entry(text.to_owned()).or_insert_with(|| {
            *count += 1;
            format!("{kind} {count}")
        });
        name.clone()
    }
}

fn kind(key: &str) -> &'static str {
    match key {
        "turnId" | "turn_id" => "turn",
        "sessionId" | "session_id" => "session",
        "receipt" => "receipt",
        _ if key.ends_with("hash") => "hash",
        _ => "id",
    }
}

/// `2026-11`, `2026-11-25`, or one of these with more after a `T`.
fn is_time(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let date = text.split('T').next().unwrap_or_default();
    matches!(date.len(), 7 | 10) && date.bytes().enumerate().all(|(n, b)| if n == 4 || n == 7 { b == b'-' } else { b.is_ascii_digit() })
}
