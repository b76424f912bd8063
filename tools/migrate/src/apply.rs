//! Applying files, recording them, and the roles' passwords.

use crate::files::Migration;
use crate::plan::{self, PlanError};
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Client, GenericClient, Transaction};

/// Whose advisory lock this is. Any number would do, as long as nobody else in the database uses it.
const LOCK: i64 = 0x6173_7472_615f_6d67; // "astra_mg"

/// The roles that log in, one per function (`migrations/0001`, `0021`, `0030`).
const LOGIN_ROLES: [&str; 6] = ["astra_provision", "astra_invoke", "astra_quota", "astra_billing", "astra_grants", "astra_memory"];

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
    #[error("the keys of TENANT_KEYS cannot be written: {0}")]
    TenantKeys(String),
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

/// Has the database know these keys for proofs ([`astra_kernel::proof`]) and no others: the two blocks that HMAC-SHA256 makes of each (RFC 2104).
///
/// # Errors
/// [`ApplyError::Record`].
pub(crate) async fn set_tenant_keys(client: &mut Client, keys: &[(String, Vec<u8>)]) -> Result<(), ApplyError> {
    let padded = |key: &[u8], with: u8| (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect::<Vec<u8>>();
    let transaction = begin(client).await?;
    let kids: Vec<&str> = keys.iter().map(|(kid, _)| kid.as_str()).collect();
    let statements = async {
        transaction.batch_execute("SET LOCAL ROLE astra_owner").await?;
        transaction.execute("DELETE FROM astra.tenant_keys WHERE NOT kid = ANY ($1)", &[&kids]).await?;
        for (kid, key) in keys {
            let insert = "INSERT INTO astra.tenant_keys AS k (kid, inner_pad, outer_pad) VALUES ($1, $2, $3)
                          ON CONFLICT (kid) DO UPDATE SET inner_pad = excluded.inner_pad, outer_pad = excluded.outer_pad";
            transaction.execute(insert, &[kid, &padded(key, 0x36), &padded(key, 0x5c)]).await?;
        }
        // Sessions keep the keys as constants of this function's plan: `migrations/0020`.
        transaction.batch_execute("ALTER FUNCTION astra.tenant() COST 100").await
    };
    statements.await.map_err(|e| ApplyError::TenantKeys(told(&e)))?;
    transaction.commit().await.map_err(|e| record_error(&e))
}

/// Whether the database knows any.
///
/// # Errors
/// [`ApplyError::Record`].
pub(crate) async fn has_tenant_keys(client: &mut Client) -> Result<bool, ApplyError> {
    let transaction = begin(client).await?;
    transaction.batch_execute("SET LOCAL ROLE astra_owner").await.map_err(|e| record_error(&e))?;
    let row = transaction.query_one("SELECT EXISTS (SELECT 1 FROM astra.tenant_keys)", &[]).await.map_err(|e| record_error(&e))?;
    Ok(row.get(0))
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
