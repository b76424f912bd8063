//! The database as its administrator sees it: rows past every wall. For looking, and for what only time could make otherwise.

use crate::{environment, wait};
use serde_json::Value;
use std::time::Duration;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// An administrator's connection.
#[derive(Debug)]
pub struct Db {
    client: Client,
}

impl Db {
    /// Connects.
    pub async fn connect() -> Self {
        Self::try_connect().await.unwrap_or_else(|error| panic!("ASTRA_ADMIN_DATABASE_URL: {error:?}"))
    }

    /// Connects where the database may be away.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn try_connect() -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&environment::admin_database(), NoTls).await?;
        tokio::spawn(async {
            // The client's calls say when the connection is gone.
            let _ = connection.await;
        });
        // The guide's query speaks of the session's month.
        client.batch_execute("SET timezone = 'UTC'").await?;
        Ok(Self { client })
    }

    /// The rows of a query as JSON objects. Its parameters are text.
    pub async fn rows(&self, sql: &str, params: &[&str]) -> Vec<Value> {
        let wrapped = format!("SELECT COALESCE(json_agg(to_jsonb(q)), '[]')::text FROM ({sql}) q");
        let params: Vec<_> =
            params.iter().map(|p| (p as &(dyn tokio_postgres::types::ToSql + Sync), tokio_postgres::types::Type::TEXT)).collect();
        let row = self.client.query_typed_one(&wrapped, &params).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        match serde_json::from_str(row.get::<_, &str>(0)) {
            Ok(Value::Array(rows)) => rows,
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// The same where it may fail; nobody needs to know how.
    ///
    /// # Errors
    /// The database's.
    pub async fn try_rows(&self, sql: &str, params: &[&str]) -> Result<(), tokio_postgres::Error> {
        let params: Vec<_> =
            params.iter().map(|p| (p as &(dyn tokio_postgres::types::ToSql + Sync), tokio_postgres::types::Type::TEXT)).collect();
        self.client.query_typed(sql, &params).await.map(drop)
    }

    /// One number.
    pub async fn number(&self, sql: &str, params: &[&str]) -> i64 {
        let rows = self.rows(&format!("SELECT ({sql})::bigint AS n"), params).await;
        rows[0]["n"].as_i64().unwrap_or_else(|| panic!("{sql}: no number"))
    }

    /// Runs statements that give nothing back.
    pub async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Runs a text as `psql` would; the rows of its last statement as text, columns by name.
    pub async fn as_printed(&self, sql: &str) -> Vec<Vec<(String, Option<String>)>> {
        let messages = self.client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                let names = row.columns().iter().map(|c| c.name().to_owned());
                rows.push(names.enumerate().map(|(i, name)| (name, row.get(i).map(str::to_owned))).collect());
            }
        }
        rows
    }

    /// The ledger of a workspace, oldest first, with cost in nano-dollars as `nano`.
    pub async fn ledger(&self, workspace: &str) -> Vec<Value> {
        let sql = "SELECT l.*, (l.cost_usd * 1000000000)::bigint AS nano FROM ledger l WHERE l.workspace_id = $1 ORDER BY l.seq";
        self.rows(sql, &[workspace]).await
    }

    /// The turns of a workspace, oldest first, with cost in nano-dollars as `nano`.
    pub async fn turns(&self, workspace: &str) -> Vec<Value> {
        let sql =
            "SELECT t.*, (t.cost_usd * 1000000000)::bigint AS nano FROM turns t WHERE t.workspace_id = $1 ORDER BY t.created_at, t.id";
        self.rows(sql, &[workspace]).await
    }

    /// The messages of a workspace in order.
    pub async fn messages(&self, workspace: &str) -> Vec<Value> {
        self.rows("SELECT m.* FROM messages m WHERE m.workspace_id = $1 ORDER BY m.session_id, m.seq", &[workspace]).await
    }

    /// Waits until the workspace's ledger has this many entries, and that no more come in the moment after.
    pub async fn settled(&self, workspace: &str, entries: usize, at_most: Duration) -> Vec<Value> {
        let what = format!("{entries} ledger entries of {workspace}");
        wait::until(&what, at_most, async || {
            let ledger = self.ledger(workspace).await;
            if ledger.len() >= entries { Ok(()) } else { Err(ledger) }
        })
        .await;
        wait::millis(300).await;
        let ledger = self.ledger(workspace).await;
        assert_eq!(ledger.len(), entries, "{ledger:#?}");
        ledger
    }
}

/// The sum of a ledger in nano-dollars.
pub fn nano(ledger: &[Value]) -> i64 {
    ledger.iter().map(|row| row["nano"].as_i64().expect("nano")).sum()
}

/// The sum of a ledger in tokens, input and output.
pub fn tokens(ledger: &[Value]) -> i64 {
    ledger.iter().map(|row| row["input_tokens"].as_i64().expect("input") + row["output_tokens"].as_i64().expect("output")).sum()
}
