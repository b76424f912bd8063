//! Two workspaces, A and B, with a row in every table: by use where that makes one, else by the administrator.

use astra_tests::{Db, Workspace, template, wait, workspace};
use serde_json::{Value, json};
use std::time::Duration;

/// A table, or a workspace's own copy of one, with the row of each of the two.
pub(super) struct Table {
    /// Its name by which of the two it is asked for: the same, but for the memory, which each has its own of.
    names: [String; 2],
    /// The column that names the workspace; none where the table is a workspace's own.
    column: Option<&'static str>,
    rows: [Value; 2],
    /// Its columns that can be written.
    columns: Vec<String>,
    /// Whether it can only be added to, whatever the right: a trigger sees to that.
    pub(super) is_append_only: bool,
}

/// Nobody rolls up for ten minutes: that takes rows away which are there to be reached for.
async fn no_roll_ups(db: &Db) {
    let later = "INSERT INTO billing_jobs AS j (name, next_run) VALUES ('roll-up', now() + interval '10 minutes')
                 ON CONFLICT (name) DO UPDATE SET next_run = excluded.next_run WHERE j.lease IS NULL OR j.leased_until < now()";
    wait::until("the roll-up that runs to end", Duration::from_mins(1), async || {
        db.run(later).await;
        let is_later =
            db.number("SELECT count(*) FROM billing_jobs WHERE name = $1 AND next_run > now() + interval '9 minutes'", &["roll-up"]);
        if is_later.await == 1 { Ok(()) } else { Err("it runs") }
    })
    .await;
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    A,
    B,
}

/// The two, and all tables.
pub(super) struct Filled {
    pub(super) a: Workspace,
    pub(super) b: Workspace,
    pub(super) tables: Vec<Table>,
}

impl Table {
    pub(super) fn name(&self, whose: Whose) -> &str {
        &self.names[whose as usize]
    }

    pub(super) fn row(&self, whose: Whose) -> &Value {
        &self.rows[whose as usize]
    }

    pub(super) fn column(&self) -> Option<&'static str> {
        self.column
    }

    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows of one of the two.
    pub(super) fn rows_of(&self, whose: Whose) -> String {
        self.column.map_or("true".to_owned(), |column| format!("{column} = '{}'", self.row(whose)[column].as_str().unwrap()))
    }

    /// That very row once more. Where the right is there and the wall is passed it is the key that refuses it, or nothing.
    pub(super) fn insert(&self, whose: Whose) -> String {
        let (name, columns) = (self.name(whose), self.columns.join(", "));
        let row = self.row(whose).to_string().replace('\'', "''");
        format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{name}, '{row}')")
    }
}

/// A row where use makes none on some host: the counter's are in its object's memory on Workers. The workspace is {ws}.
fn by_hand(table: &str) -> Option<&'static str> {
    Some(match table {
        "holds" => {
            "INSERT INTO holds (workspace_id, turn_id, started_at, agent_id, subject, request_hash, cost, tokens, hold, draft, sequence, progress, stop, expires_at)
             VALUES ('{ws}', gen_random_uuid(), '2020-01-01', 'assistant', 'member@test', '', 0, 0, '{}', '{}', 0, '{}', false, '2100-01-01')"
        }
        "quota_begins" => "INSERT INTO quota_begins VALUES ('{ws}', now(), gen_random_uuid())",
        "quota_carries" => "INSERT INTO quota_carries VALUES ('{ws}', '2020-01-01', 0, 0)",
        "quota_events" => {
            "INSERT INTO quota_events (workspace_id, starts_at, limit_name, scope, mark, max, used, at) VALUES ('{ws}', '2020-01-01', 'x', 'workspace', 50, 2, 1, now())"
        }
        "quota_windows" => "INSERT INTO quota_windows (workspace_id, span, scope, starts_at, ends_at, ledger_seq, cost_used, cost_held, tokens_used, tokens_held)
                            VALUES ('{ws}', 'month-of-nothing', 'workspace', '2019-12-01', '2020-01-01', 0, 0, 0, 0, 0)",
        "usage_months" => "INSERT INTO usage_months VALUES ('{ws}', '2019-12-01', 'assistant', 'local', 'echo-1', 0, 0, 0, 0, 0, 0, 0, 0, 0)",
        "usage_days" => "INSERT INTO usage_days VALUES ('{ws}', '2019-12-01', 'assistant', 'local', 'echo-1', 'turn', 0, 0, 0, 0, 0, 0, 0, 0)",
        "usage_user_days" => "INSERT INTO usage_user_days VALUES ('{ws}', '2019-12-01', 'member@test', 0, 0, 0, 0, 0, 0, 0, 0)",
        "usage_sessions" => "INSERT INTO usage_sessions VALUES ('{ws}', '2019-12-01', gen_random_uuid(), 'assistant')",
        "usage_month_sessions" => "INSERT INTO usage_month_sessions VALUES ('{ws}', '2019-12-01', 'assistant', 0)",
        "usage_guests" => "INSERT INTO usage_guests VALUES ('{ws}', gen_random_uuid(), gen_random_uuid(), 'assistant', 'local', 'echo-1', '2019-12-01')",
        "invoices" => {
            "INSERT INTO invoices (workspace_id, number, place, since_seq, month, display_name, time_zone, ends_at, previous_last_seq, first_seq, last_seq, entries, cost, charge, issued_at)
             VALUES ('{ws}', 'none', 0, 0, '2019-12-01', 'plum', 'UTC', '2020-01-01', 0, 1, 1, 1, 0, 0, now())"
        }
        "invoice_lines" => "INSERT INTO invoice_lines VALUES ('{ws}', 'none', 1, '2019-12-01', 'turn', 'assistant', 'local', 'echo-1', '', 1, 0, 0, 0, 0, 0, 0, 0)",
        "jobs" => {
            "INSERT INTO jobs (workspace_id, id, kind, ordering, arg, run_at, created_at) VALUES ('{ws}', gen_random_uuid(), 'ingest', 'document plum', '{}', '2100-01-01', now())"
        }
        "webhooks" => {
            "INSERT INTO webhooks (workspace_id, name, url, events, key_id, nonce, ciphertext, created_at, updated_at)
             VALUES ('{ws}', 'plum', 'https://plum.example.org/', '{}', '', '', '', now(), now())"
        }
        "webhook_deliveries" => {
            "INSERT INTO webhooks (workspace_id, name, url, events, key_id, nonce, ciphertext, created_at, updated_at)
             VALUES ('{ws}', 'plum', 'https://plum.example.org/', '{}', '', '', '', now(), now()) ON CONFLICT DO NOTHING;
             INSERT INTO webhook_deliveries (workspace_id, id, webhook, type, body, created_at) VALUES ('{ws}', gen_random_uuid(), 'plum', 'x', '{}', now())"
        }
        "stripe_customers" => "INSERT INTO stripe_customers (workspace_id, pushed_seq, created_at, updated_at) VALUES ('{ws}', 0, now(), now())",
        "stripe_events" => {
            "INSERT INTO stripe_events (workspace_id, first_seq, last_seq, customer_id, event_name, value, at, state, next_at, created_at)
             VALUES ('{ws}', 1, 1, 'cus_plum', 'plum', 1, now(), 'sent', now(), now())"
        }
        "memory_settings" => "INSERT INTO memory_settings (workspace_id, updated_at) VALUES ('{ws}', now())",
        "documents" => {
            "INSERT INTO \"mem_{ws}\".documents (id, slug, version, title, media_type, tags, hash, bytes, status, created_by, created_at)
             VALUES (gen_random_uuid(), 'plum', 1, 'plum', 'text/plain', '{}', '', 4, 'pending', 'member@test', now())"
        }
        "bodies" => "INSERT INTO \"mem_{ws}\".bodies (id, part, body) VALUES (gen_random_uuid(), 0, 'plum')",
        "chunks" => {
            "WITH d AS (INSERT INTO \"mem_{ws}\".documents (id, slug, version, title, media_type, tags, hash, bytes, status, created_by, created_at)
                        VALUES (gen_random_uuid(), 'plum-2', 1, 'plum', 'text/plain', '{}', '', 4, 'ready', 'member@test', now()) RETURNING id)
             INSERT INTO \"mem_{ws}\".chunks (id, document_id, position, heading, content, embedding)
             SELECT gen_random_uuid(), d.id, 0, '', 'plum', array_fill(0.1, ARRAY[384])::vector FROM d"
        }
        "memories" => {
            "INSERT INTO \"mem_{ws}\".memories (id, kind, content, created_at, updated_at) VALUES (gen_random_uuid(), 'fact', 'plum', now(), now())"
        }
        "superseded" => {
            "WITH m AS (INSERT INTO \"mem_{ws}\".memories (id, kind, content, created_at, updated_at) VALUES (gen_random_uuid(), 'fact', 'plum now', now(), now()) RETURNING id)
             INSERT INTO \"mem_{ws}\".superseded (id, kind, content, created_at, updated_at, superseded_by, superseded_at)
             SELECT gen_random_uuid(), 'fact', 'plum', now(), now(), m.id, now() FROM m"
        }
        "word_changes" => {
            "WITH i AS (INSERT INTO word_indexes (workspace_id, created_at) VALUES ('{ws}', now()) ON CONFLICT DO NOTHING)
             INSERT INTO word_changes (workspace_id, kind, id, run_at, created_at) VALUES ('{ws}', 'memory', gen_random_uuid(), '2100-01-01', now())"
        }
        "word_leftovers" => "INSERT INTO word_leftovers (workspace_id, collection, run_at, created_at) VALUES ('{ws}', 'plum', '2100-01-01', now())",
        _ => return None,
    })
}

async fn used() -> Workspace {
    let ws = Workspace::with(&workspace::roomy(), &[template::local("assistant")]).await;
    ws.put_secret("PLUM_KEY", &astra_tests::canary::key()).await;
    let mut agent = template::local("plum");
    agent.as_object_mut().unwrap().remove("id");
    let _ = ws.owner.put(&ws.path("/agents/plum"), &agent).await.expect(200);
    ws.owner.put(&ws.path("/roles/plum-role"), &json!({ "allow": ["agent:read"] })).await.ok(200);
    let _ = ws.owner.delete(&ws.path("/tokens/a-token-of-somebody")).await.expect(204);
    // No job changes anything meanwhile.
    ws.no_extraction().await;
    // Without the canary: what is tried here stands in the database's log of statements that fail.
    ws.member.post(&ws.path("/turns"), &json!({ "agentId": "assistant", "message": "plum" })).await.ok(200);
    ws
}

impl Filled {
    pub(super) async fn new() -> Self {
        // Grants are between each of the two and a third, so that they have nothing in common.
        let (a, b, c) = (used().await, used().await, used().await);
        for (from, to) in [(&a, &c), (&c, &a), (&b, &c), (&c, &b)] {
            from.owner.post(&from.path("/grants"), &json!({ "receivingWorkspaceId": to.id, "agentId": "plum" })).await.ok(201);
        }
        let db = Db::connect().await;
        no_roll_ups(&db).await;
        let names = "SELECT c.relname AS name,
                       EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgname LIKE '%append_only') AS append_only
                     FROM pg_class c WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p')
                       AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') ORDER BY c.relname";
        let memory = |ws: &Workspace| format!("\"mem_{}\"", ws.id);
        let mut tables = Vec::new();
        for (schema, workspaces_own) in [("public".to_owned(), false), (memory(&a), true)] {
            for row in db.rows(names, &[&schema]).await {
                let table = row["name"].as_str().unwrap();
                if super::GLOBAL.iter().any(|(global, _)| *global == format!("public.{table}")) {
                    continue;
                }
                let column = if workspaces_own { None } else { Some(if table == "workspaces" { "id" } else { "workspace_id" }) };
                let names = [&a, &b].map(|ws| format!("{}.{table}", if workspaces_own { memory(ws) } else { schema.clone() }));
                let rows = [row_of(&db, &names[0], column, &a, table).await, row_of(&db, &names[1], column, &b, table).await];
                let columns = "SELECT quote_ident(attname) AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
                let columns = db.rows(columns, &[&names[0]]).await.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
                tables.push(Table { names, column, rows, columns, is_append_only: row["append_only"] == true });
            }
        }
        Self { a, b, tables }
    }
}

/// A row of a workspace in a table; made if there is none.
async fn row_of(db: &Db, name: &str, column: Option<&str>, ws: &Workspace, table: &str) -> Value {
    let sql = format!("SELECT t.* FROM {name} t WHERE {} LIMIT 1", column.map_or("$1 <> ''".to_owned(), |column| format!("{column} = $1")));
    let found = db.rows(&sql, &[&ws.id]).await;
    if let Some(row) = found.into_iter().next() {
        return row;
    }
    let insert = by_hand(table).unwrap_or_else(|| panic!("{name} is empty for a workspace that was used: give this table a row here"));
    db.run(&insert.replace("{ws}", &ws.id)).await;
    db.rows(&sql, &[&ws.id]).await.into_iter().next().expect("it is there now")
}
