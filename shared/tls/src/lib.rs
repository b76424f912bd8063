//! Who is trusted as the other end of a connection: rustls with the system's certificate roots.
//!
//! Where those are not in a place of their own, `SSL_CERT_FILE` or `SSL_CERT_DIR` name them. A system without any is fine as long as no TLS is asked for.

use astra_kernel::ConfigError;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of further roots is of no use. Names the variable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The library cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The system's roots, and those in a file (PEM) that a variable names.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
fn roots(extra: Option<(&'static str, &str)>) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    // A certificate that does not parse is skipped, as others do.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some((name, path)) = extra {
        let found = rustls_native_certs::load_certs_from_paths(Some(path.as_ref()), None);
        if let Some(error) = found.errors.first() {
            return Err(ConfigError::Malformed(name, error.to_string()));
        }
        if found.certs.is_empty() {
            return Err(ConfigError::Malformed(name, "the file holds no certificate (PEM)".to_owned()));
        }
        store.add_parsable_certificates(found.certs);
    }
    Ok(store)
}

/// TLS of a client. `extra`: a variable's name and the file of further roots that it names.
///
/// # Errors
/// When that file is of no use.
pub fn client(extra: Option<(&'static str, &str)>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots(extra)?).with_no_client_auth())
}
