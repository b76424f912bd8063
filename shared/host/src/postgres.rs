//! One statement on a connection, however that was made: the same on every host.
//!
//! The statement is named on no connection (`query_typed`: one round trip), so that a transaction-mode pooler may give each to another server. What goes
//! into the log is a server's code and message, never its detail: that holds row values.

use astra_store::StoreError;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

/// Code and message of a server's error; else what broke, with its cause.
pub(crate) fn cause(error: &Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => format!("{}: {}", db.code().code(), db.message()),
        (None, Some(source)) if !error.to_string().contains(&source.to_string()) => format!("{error}: {source}"),
        (None, _) => error.to_string(),
    }
}

/// Logs why there is no connection (any more).
pub(crate) fn unreachable(cause: &str, log: impl Fn(&str)) -> StoreError {
    log(&serde_json::json!({ "event": "database", "error": cause }).to_string());
    StoreError::Unreachable
}

/// Runs one statement with text parameters that returns one row of one text column.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn run(client: &Client, statement: &'static str, params: &[&str], log: impl Fn(&str)) -> Result<String, StoreError> {
    let typed: Vec<(&(dyn ToSql + Sync), Type)> = params.iter().map(|p| (p as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let rows = client.query_typed(statement, &typed).await.map_err(|error| match error.code() {
        Some(state) => {
            log(&serde_json::json!({ "event": "database", "statement": statement, "error": cause(&error) }).to_string());
            StoreError::Fault(state.code().to_owned())
        }
        None => unreachable(&cause(&error), &log),
    })?;
    let row = rows.first().ok_or(StoreError::Shape(statement))?;
    row.try_get::<_, String>(0).map_err(|_| StoreError::Shape(statement))
}
