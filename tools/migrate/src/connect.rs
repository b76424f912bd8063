//! One connection, with TLS where the address asks for it.

use std::str::FromStr as _;
use std::time::Duration;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// No connection. The address holds a password and is never shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("DATABASE_URL is not set: postgres://user:password@host:port/database of a user that may create roles")]
    Missing,
    #[error("DATABASE_URL is malformed: postgres://user:password@host:port/database, special characters in the password as %XX")]
    Malformed,
    #[error(transparent)]
    Tls(#[from] astra_tls::TlsError),
    #[error("the database of DATABASE_URL cannot be reached: {0}")]
    Unreachable(String),
}

/// Connects to the address of `DATABASE_URL`.
///
/// # Errors
/// [`ConnectError`], without the address.
pub(crate) async fn connect(url: Option<&str>) -> Result<Client, ConnectError> {
    let url = url.filter(|url| !url.is_empty()).ok_or(ConnectError::Missing)?;
    let mut config = Config::from_str(url).map_err(|_| ConnectError::Malformed)?;
    config.connect_timeout(Duration::from_secs(10)).application_name("astra-migrate");
    let extra = std::env::var("PGSSLROOTCERT").ok().filter(|path| !path.is_empty());
    let tls = astra_tls::client(extra.as_deref().map(|path| ("PGSSLROOTCERT", path)))?;
    let (client, connection) =
        config.connect(MakeRustlsConnect::new(tls)).await.map_err(|e| ConnectError::Unreachable(crate::apply::told(&e)))?;
    // What breaks the connection is told by the statement that was waiting on it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}
