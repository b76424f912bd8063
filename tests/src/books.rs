//! Ledgers that no turn has made: entries at any moment, in any order, as the administrator writes them. Their hashes are nobody's: what checks the chain does not look here.

use crate::Db;
use serde_json::{Value, json};

/// Numbers that look random and are the same each time (xorshift64*).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    /// One of these.
    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        let place = self.below(all.len() as u64);
        all[usize::try_from(place).expect("a place")].clone()
    }
}

/// An entry; what is not said is that of a turn that cost nothing. `at` is any time that Postgres reads.
pub fn entry(kind: &str, at: &str, more: &Value) -> Value {
    let id = uuid::Uuid::new_v4().to_string();
    let mut entry = json!({
        "id": id, "kind": kind, "turn_id": uuid::Uuid::new_v4().to_string(), "corrects": (kind == "correction").then_some(&id), "nth": i32::from(kind == "correction"),
        "agent_id": "assistant", "user_id": "member@test", "user_hash": "\\x00", "prev_hash": "\\x00", "hash": "\\x00", "markup_basis_points": 0,
        "session_id": (kind != "credit").then(|| uuid::Uuid::new_v4().to_string()), "provider": "local", "model": "echo-1", "price_version": 1,
        "input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0, "embedding_tokens": 0, "cost_usd": 0, "charge_usd": 0, "source": "provider",
        "turn_started_at": at, "reason": (kind == "credit").then_some("goodwill"), "made_by": (kind == "credit").then_some("operator"),
    });
    entry.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    entry
}

/// Writes entries into a workspace's ledger as one transaction; those that are uses into its turns, too, as a turn's end does. Not those of times to come: the guide's query would count
/// them in this month.
pub async fn enter(db: &Db, workspace: &str, entries: &[Value]) {
    let statements = entries.iter().map(|entry| {
        let entry = entry.to_string().replace('\'', "''");
        format!(
            "INSERT INTO ledger_heads (workspace_id, seq) VALUES ('{workspace}', 0) ON CONFLICT DO NOTHING;
             UPDATE ledger_heads SET seq = seq + 1 WHERE workspace_id = '{workspace}';
             INSERT INTO ledger SELECT l.* FROM ledger_heads h CROSS JOIN LATERAL jsonb_populate_record(NULL::ledger,
               '{entry}'::jsonb || jsonb_build_object('workspace_id', h.workspace_id, 'seq', h.seq, 'created_at', clock_timestamp())) l WHERE h.workspace_id = '{workspace}';
             INSERT INTO turns (workspace_id, id, kind, session_id, agent_id, user_id, status, provider, model, price_version, input_tokens, cached_input_tokens, output_tokens,
               reasoning_tokens, cost_usd, usage_source, idempotency_month, request_hash, created_at, ended_at)
             SELECT l.workspace_id, l.turn_id, l.kind, l.session_id, l.agent_id, l.user_id, 'completed', l.provider, l.model, l.price_version, l.input_tokens, l.cached_input_tokens,
               l.output_tokens, l.reasoning_tokens, l.cost_usd, l.source, '2020-01-01', 'h', l.turn_started_at, l.turn_started_at
             FROM ledger l JOIN ledger_heads h USING (workspace_id, seq)
             WHERE l.workspace_id = '{workspace}' AND l.kind NOT IN ('correction', 'credit') AND l.turn_started_at <= now()
               AND EXISTS (SELECT 1 FROM workspaces w WHERE w.id = l.workspace_id);
             UPDATE turns t SET input_tokens = t.input_tokens + l.input_tokens, output_tokens = t.output_tokens + l.output_tokens, cost_usd = t.cost_usd + l.cost_usd
             FROM ledger l JOIN ledger_heads h USING (workspace_id, seq)
             WHERE l.workspace_id = '{workspace}' AND l.kind = 'correction' AND t.workspace_id = l.workspace_id AND t.id = l.turn_id;"
        )
    });
    db.run(&format!("BEGIN; {} COMMIT;", statements.collect::<String>())).await;
}

/// Calls an operator's SQL function as the administrator.
pub async fn call(db: &Db, function: &str, argument: &Value) -> Value {
    let rows = db.rows(&format!("SELECT astra.{function}($1)::jsonb AS answer"), &[&argument.to_string()]).await;
    rows[0]["answer"].clone()
}
