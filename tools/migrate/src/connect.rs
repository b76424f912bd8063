//! One connection, with TLS where the address asks for it.

use rustls::{ClientConfig, RootCertStore};
use std::str::FromStr as _;
use std::sync::Arc;
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
    #[error("PGSSLROOTCERT: {0}: {1}")]
    Roots(String, String),
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
    #[error("the database of DATABASE_URL cannot be reached: {0}")]
    Unreachable(String),
}

/// The system's certificate roots, and those in the file of `PGSSLROOTCERT`.
fn roots(extra: Option<&str>) -> Result<RootCertStore, ConnectError> {
    let mut store = RootCertStore::empty();
    // A system without a store is fine as long as no TLS is asked for; a certificate that does not parse is skipped as others do.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra {
        let error = |e: &dyn std::fmt::Display| ConnectError::Roots(path.to_owned(), e.to_string());
        let found = rustls_native_certs::load_certs_from_paths(Some(path.as_ref()), None);
        if let Some(first) = found.errors.first() {
            return Err(error(first));
        }
        if found.certs.is_empty() {
            return Err(error(&"it holds no certificate (PEM)"));
        }
        store.add_parsable_certificates(found.certs);
    }
    Ok(store)
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
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ConnectError::Tls)?
        .with_root_certificates(roots(extra.as_deref())?)
        .with_no_client_auth();
    let (client, connection) =
        config.connect(MakeRustlsConnect::new(tls)).await.map_err(|e| ConnectError::Unreachable(crate::apply::told(&e)))?;
    // What breaks the connection is told by the statement that was waiting on it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}
