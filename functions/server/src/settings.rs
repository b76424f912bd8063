//! What must be set for the server to run, read once at its start: what is missing or malformed is named before the first request.

use astra_host::Shared;
use astra_host::native::{Pool, SetupError, tls};
use astra_kernel::ConfigError;
use astra_turn::TurnSettings;
use gateway::rules::Function;
use std::collections::HashMap;

/// The variable with a function's own address of the database.
fn own_address(function: Function) -> &'static str {
    match function {
        Function::Provision => "DATABASE_URL_PROVISION",
        Function::InvokeTurn => "DATABASE_URL_INVOKE_TURN",
        Function::Billing => "DATABASE_URL_BILLING",
    }
}

/// Configuration of the server.
///
/// `TOKEN_KEYS`, `SECRETS_KEY` and what concerns turns are read by those who use them, and are checked here.
#[derive(Debug)]
pub struct ServerSettings {
    /// `ALLOWED_ORIGINS`: origins of browsers that may call, exact, with commas between them; none unless set.
    pub allowed_origins: String,
    pools: HashMap<Function, Pool>,
}

impl ServerSettings {
    /// Reads them and opens the pools, which connect when they are first needed.
    ///
    /// - `DATABASE_URL_PROVISION`, `DATABASE_URL_INVOKE_TURN`, `DATABASE_URL_BILLING`: each function's address, with its own role (`astra_provision`,
    ///   `astra_invoke`, `astra_billing`); `DATABASE_URL` is for those that have none: its role needs the rights of all of them.
    /// - `DATABASE_POOL_SIZE`: connections per address at most, 1 to 1000; 10 unless set.
    /// - `PGSSLROOTCERT`: a file (PEM) of roots beside the system's that the database's certificate may come from.
    ///
    /// # Errors
    /// Names the variable.
    pub fn read(shared: &Shared) -> Result<Self, SetupError> {
        shared.token_keys()?;
        shared.secrets_key()?;
        TurnSettings::read(shared)?;
        let root = shared.setting("PGSSLROOTCERT");
        let tls = tls::client(root.as_deref().map(|path| ("PGSSLROOTCERT", path)))?;
        let size = pool_size(shared)?;
        let mut by_address: HashMap<String, Pool> = HashMap::new();
        let mut pools = HashMap::new();
        for function in Function::ALL {
            let (name, address) = address(shared, own_address(function))?;
            let pool = match by_address.get(&address) {
                Some(pool) => pool.clone(),
                None => Pool::open(name, &address, size, tls.clone())?,
            };
            by_address.insert(address, pool.clone());
            pools.insert(function, pool);
        }
        Ok(Self { allowed_origins: shared.setting("ALLOWED_ORIGINS").unwrap_or_default(), pools })
    }

    /// A function's way into the database.
    pub fn pool(&self, function: Function) -> Pool {
        self.pools[&function].clone()
    }
}

fn address(shared: &Shared, own: &'static str) -> Result<(&'static str, String), ConfigError> {
    const ALL: &str = "DATABASE_URL";
    const PURPOSE: &str = "the pooled database, postgres://user:password@host:port/database (or DATABASE_URL_PROVISION, \
        DATABASE_URL_INVOKE_TURN and DATABASE_URL_BILLING, one for each function's role)";
    if let Some(address) = shared.setting(own) {
        return Ok((own, address));
    }
    shared.setting(ALL).map(|address| (ALL, address)).ok_or(ConfigError::Missing(ALL, PURPOSE))
}

fn pool_size(shared: &Shared) -> Result<usize, ConfigError> {
    const NAME: &str = "DATABASE_POOL_SIZE";
    let Some(text) = shared.setting(NAME) else { return Ok(10) };
    let size = text.parse().ok().filter(|size| (1..=1000).contains(size));
    size.ok_or_else(|| ConfigError::Malformed(NAME, "it is a whole number of connections from 1 to 1000".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use astra_kernel::Settings;

    const GOOD: [(&str, &str); 3] = [
        ("TOKEN_KEYS", "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
        ("SECRETS_KEY", "s1:HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4"),
        ("DATABASE_URL", "postgres://app:hidden@127.0.0.1:1/astra"),
    ];

    struct Fixed(HashMap<&'static str, &'static str>);

    impl Settings for Fixed {
        fn get(&self, name: &str) -> Option<String> {
            self.0.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned())
        }
    }

    fn read(changed: &[(&'static str, &'static str)]) -> Result<ServerSettings, String> {
        let settings = GOOD.into_iter().chain(changed.iter().copied()).collect();
        ServerSettings::read(&Shared::new(Box::new(Fixed(settings)))).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        assert!(read(&[]).is_ok());
        for (name, value) in [
            ("TOKEN_KEYS", ""),
            ("TOKEN_KEYS", "k1"),
            ("SECRETS_KEY", ""),
            ("DATABASE_URL", ""),
            ("DATABASE_URL", "mysql://app:hidden@127.0.0.1/x"),
            ("DATABASE_URL", "postgres:///x"),
            ("DATABASE_URL_BILLING", "hidden"),
            ("DATABASE_POOL_SIZE", "0"),
            ("DATABASE_POOL_SIZE", "ten"),
            ("PGSSLROOTCERT", "/nowhere/root.pem"),
            ("DEFAULT_MODEL", "echo"),
            ("MODEL_TIMEOUT_SECONDS", "1s"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name), "{name}={value}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn functions_with_addresses_of_their_own_need_no_common_one() {
        let own = "postgres://own:hidden@127.0.0.1:1/astra";
        let owns = [("DATABASE_URL_PROVISION", own), ("DATABASE_URL_INVOKE_TURN", own), ("DATABASE_URL_BILLING", own)];
        assert!(read(&[&owns[..], &[("DATABASE_URL", "")]].concat()).is_ok());
        let error = read(&[&owns[..2], &[("DATABASE_URL", "")]].concat()).unwrap_err();
        assert!(error.starts_with("DATABASE_URL is not set"), "{error}");
    }
}
