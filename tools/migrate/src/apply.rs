//! Applying files, recording them, and the roles' passwords.

use crate::files::Migration;
use crate::plan::{self, PlanError};
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Client, GenericClient, Transaction};

/// Whose advisory lock this is. Any number would do, as long as nobody else in the database uses it.
const LOCK: i64 = 0x6173_7472_615f_6d67; // "astra_mg"

/// The roles that log in, one per function (`migrations/0001`).
const LOGIN_ROLES: [&str; 4] = ["astra_provision", "astra_invoke", "astra_quota", "astra_billing"];

/// Nothing of the file at fault was kept; files before it are applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("{file}{place}: {told}. Nothing of this file was applied")]
    File { file: String, place: String, told: String },
    #[error("the record of applied migrations (public.astra_migrations): {0}")]
    Record(String),
    #[error(
        "the password of {role} cannot be set: {told}. The migrating user must be a superuser, or have CREATEROLE and have made the role"
    )]
    Password { role: &'static str, told: String },
}

/// Code, message and hint of a server's error, never its detail: that holds row values.
pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let hint = db.hint().map(|hint| format!(" ({})", hint.trim_end_matches('.'))).unwrap_or_default();
        return format!("{} {}{hint}", db.code().code(), db.message());
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// `:LINE` of the statement at fault, where the server said it.
fn place(error: &tokio_postgres::Error, sql: &str) -> String {
    match error.as_db_error().and_then(|db| db.position()) {
        Some(ErrorPosition::Original(position)) => {
            let before = sql.chars().take(usize::try_from(*position).unwrap_or(usize::MAX).saturating_sub(1));
            format!(":{}", before.filter(|c| *c == '\n').count() + 1)
        }
        _ => String::new(),
    }
}

fn record_error(error: &tokio_postgres::Error) -> ApplyError {
    ApplyError::Record(told(error))
}

async fn applied(client: &impl GenericClient) -> Result<Vec<(String, String)>, ApplyError> {
    let known = client.query_one("SELECT to_regclass('public.astra_migrations') IS NOT NULL", &[]).await.map_err(|e| record_error(&e))?;
    if !known.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT name, checksum FROM public.astra_migrations", &[]).await.map_err(|e| record_error(&e))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A transaction that holds the lock to its end. A lock of the transaction, not of the session: a pooler in between may be in
/// transaction mode.
async fn begin(client: &mut Client) -> Result<Transaction<'_>, ApplyError> {
    let transaction = client.transaction().await.map_err(|e| record_error(&e))?;
    transaction.batch_execute("SET LOCAL statement_timeout = 0").await.map_err(|e| record_error(&e))?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(|e| record_error(&e))?;
    Ok(transaction)
}

/// The files that [`all`] would apply.
///
/// # Errors
/// [`ApplyError`].
pub(crate) async fn pending<'a>(client: &Client, files: &'a [Migration]) -> Result<Vec<&'a Migration>, ApplyError> {
    Ok(plan::pending(files, &applied(client).await?)?)
}

/// Applies what is not applied yet, each file in a transaction of its own, and gives how many those were.
///
/// What is pending is asked anew under each lock: another process may have applied it in between.
///
/// # Errors
/// [`ApplyError`]; files before the one at fault stay applied.
pub(crate) async fn all(client: &mut Client, files: &[Migration], tell: impl Fn(&str)) -> Result<usize, ApplyError> {
    let mut count = 0;
    loop {
        let transaction = begin(client).await?;
        let Some(file) = plan::pending(files, &applied(&transaction).await?)?.first().copied() else {
            return Ok(count);
        };
        transaction
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS public.astra_migrations (
                   name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
            )
            .await
            .map_err(|e| record_error(&e))?;
        transaction.batch_execute(&file.sql).await.map_err(|e| ApplyError::File {
            file: file.name.clone(),
            place: place(&e, &file.sql),
            told: told(&e),
        })?;
        // A file may end under another role (SET LOCAL ROLE) or search path.
        transaction.batch_execute("RESET ROLE; RESET search_path").await.map_err(|e| record_error(&e))?;
        transaction
            .execute("INSERT INTO public.astra_migrations (name, checksum) VALUES ($1, $2)", &[&file.name, &file.checksum])
            .await
            .map_err(|e| record_error(&e))?;
        transaction.commit().await.map_err(|e| ApplyError::File { file: file.name.clone(), place: String::new(), told: told(&e) })?;
        tell(&file.name);
        count += 1;
    }
}

/// Gives the functions' roles their password. The server is sent the SCRAM verifier, so that the password stands in no log of its
/// statements, and nothing in it has to be escaped.
///
/// # Errors
/// [`ApplyError::Password`].
pub(crate) async fn set_passwords(client: &mut Client, password: &str) -> Result<(), ApplyError> {
    let transaction = begin(client).await?;
    for role in LOGIN_ROLES {
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let statement = format!("ALTER ROLE {role} PASSWORD '{verifier}'");
        transaction.batch_execute(&statement).await.map_err(|e| ApplyError::Password { role, told: told(&e) })?;
    }
    transaction.commit().await.map_err(|e| record_error(&e))
}
