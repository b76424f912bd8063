//! The addresses of the database: one for each function's role, or one for several.

use super::{Pool, SetupError, tls};
use crate::Shared;
use astra_kernel::ConfigError;
use rustls::ClientConfig;
use std::collections::HashMap;
use std::sync::Arc;

/// Opens pools; variables with the same address get the same one.
pub struct Addresses<'a> {
    shared: &'a Shared,
    size: usize,
    tls: ClientConfig,
    open: HashMap<String, Pool>,
}

impl std::fmt::Debug for Addresses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Addresses")
    }
}

impl<'a> Addresses<'a> {
    /// Reads what concerns all of them.
    ///
    /// - `DATABASE_POOL_SIZE`: connections per address at most, 1 to 1000; `size` unless set.
    /// - `PGSSLROOTCERT`: a file (PEM) of roots beside the system's that the database's certificate may come from.
    ///
    /// # Errors
    /// Names the variable.
    pub fn new(shared: &'a Shared, size: usize) -> Result<Self, SetupError> {
        let root = shared.setting("PGSSLROOTCERT");
        let tls = tls::client(root.as_deref().map(|path| ("PGSSLROOTCERT", path)))?;
        Ok(Self { shared, size: pool_size(shared, size)?, tls, open: HashMap::new() })
    }

    /// The pool of the address in the variable `own`, or else in `DATABASE_URL`. It connects when it is first needed.
    ///
    /// # Errors
    /// Names the variable.
    pub fn pool(&mut self, own: &'static str) -> Result<Pool, SetupError> {
        const ALL: &str = "DATABASE_URL";
        const PURPOSE: &str =
            "the pooled database, postgres://user:password@host:port/database (or one such variable for each function's role)";
        let (name, address) = match (self.shared.setting(own), self.shared.setting(ALL)) {
            (Some(address), _) => (own, address),
            (None, Some(address)) => (ALL, address),
            (None, None) => return Err(ConfigError::Missing(ALL, PURPOSE).into()),
        };
        if let Some(pool) = self.open.get(&address) {
            return Ok(pool.clone());
        }
        let pool = Pool::open(name, &address, self.size, self.tls.clone(), Arc::clone(self.shared.tenant_keys()?))?;
        self.open.insert(address, pool.clone());
        Ok(pool)
    }
}

fn pool_size(shared: &Shared, default: usize) -> Result<usize, ConfigError> {
    const NAME: &str = "DATABASE_POOL_SIZE";
    let Some(text) = shared.setting(NAME) else { return Ok(default) };
    let size = text.parse().ok().filter(|size| (1..=1000).contains(size));
    size.ok_or_else(|| ConfigError::Malformed(NAME, "it is a whole number of connections from 1 to 1000".to_owned()))
}
