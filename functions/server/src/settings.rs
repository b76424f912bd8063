//! What must be set for the server to run, read once at its start: what is missing or malformed is named before the first request.

use astra_host::Shared;
use astra_host::native::{Addresses, Pool, SetupError};
use astra_turn::TurnSettings;
use gateway::rules::Function;
use std::collections::HashMap;

/// Configuration of the server.
///
/// `TOKEN_KEYS`, `TOKEN_ISSUERS`, `TENANT_KEYS`, `SECRETS_KEY`, `RECEIPT_KEYS` and what concerns turns are read by those who use them, and are checked here.
#[derive(Debug)]
pub struct ServerSettings {
    /// `ALLOWED_ORIGINS`: origins of browsers that may call, exact, with commas between them; none unless set.
    pub allowed_origins: String,
    /// The counters' way into the database.
    pub quota: Pool,
    pools: HashMap<Function, Pool>,
}

impl ServerSettings {
    /// Reads them and opens the pools, which connect when they are first needed.
    ///
    /// - `DATABASE_URL_PROVISION`, `DATABASE_URL_INVOKE_TURN`, `DATABASE_URL_BILLING`, `DATABASE_URL_GRANTS`, `DATABASE_URL_MEMORY`,
    ///   `DATABASE_URL_QUOTA`: an address for each role
    ///   (`astra_provision`, `astra_invoke`, `astra_billing`, `astra_grants`, `astra_memory`, `astra_quota`);
    ///   `DATABASE_URL` is for those that have none: its role needs the rights of all of them.
    /// - `DATABASE_POOL_SIZE`: connections per address at most, 1 to 1000; 10 unless set.
    /// - `PGSSLROOTCERT`: a file (PEM) of roots beside the system's that the database's certificate may come from.
    ///
    /// # Errors
    /// Names the variable.
    pub fn read(shared: &Shared) -> Result<Self, SetupError> {
        shared.token_keys()?;
        shared.tenant_keys()?;
        shared.issuers()?;
        shared.secrets_key()?;
        shared.receipt_keys()?;
        TurnSettings::read(shared)?;
        memory::words::check(shared)?;
        let mut addresses = Addresses::new(shared, 10)?;
        let mut pools = HashMap::new();
        for function in Function::ALL {
            pools.insert(function, addresses.pool(function.own_address())?);
        }
        let quota = addresses.pool("DATABASE_URL_QUOTA")?;
        Ok(Self { allowed_origins: shared.setting("ALLOWED_ORIGINS").unwrap_or_default(), quota, pools })
    }

    /// All ways into the database; several may be the same.
    pub fn pools(&self) -> Vec<Pool> {
        Function::ALL.map(|function| self.pool(function)).into_iter().chain([self.quota.clone()]).collect()
    }

    /// A function's way into the database.
    pub fn pool(&self, function: Function) -> Pool {
        self.pools[&function].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use astra_kernel::Settings;

    const GOOD: [(&str, &str); 5] = [
        ("TOKEN_KEYS", "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
        ("TENANT_KEYS", "t1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
        ("SECRETS_KEY", "s1:HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4"),
        ("RECEIPT_KEYS", "r1:HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4"),
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
            ("TENANT_KEYS", ""),
            ("TENANT_KEYS", "t1:AAAA"),
            ("TOKEN_ISSUERS", "https://id.example.com/hidden"),
            ("TOKEN_ISSUERS", r#"[{"issuer":"hidden"}]"#),
            ("SECRETS_KEY", ""),
            ("RECEIPT_KEYS", ""),
            ("RECEIPT_KEYS", "r1:AAAA"),
            ("DATABASE_URL", ""),
            ("DATABASE_URL", "mysql://app:hidden@127.0.0.1/x"),
            ("DATABASE_URL", "postgres:///x"),
            ("DATABASE_URL_BILLING", "hidden"),
            ("DATABASE_POOL_SIZE", "0"),
            ("DATABASE_POOL_SIZE", "ten"),
            ("PGSSLROOTCERT", "/nowhere/root.pem"),
            ("DEFAULT_MODEL", "echo"),
            ("MODEL_TIMEOUT_SECONDS", "1s"),
            ("TYPESENSE_URL", "hidden"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name), "{name}={value}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn functions_with_addresses_of_their_own_need_no_common_one() {
        let own = "postgres://own:hidden@127.0.0.1:1/astra";
        let owns = [
            "DATABASE_URL_PROVISION",
            "DATABASE_URL_INVOKE_TURN",
            "DATABASE_URL_BILLING",
            "DATABASE_URL_GRANTS",
            "DATABASE_URL_MEMORY",
            "DATABASE_URL_QUOTA",
        ]
        .map(|name| (name, own));
        assert!(read(&[&owns[..], &[("DATABASE_URL", "")]].concat()).is_ok());
        let error = read(&[&owns[..5], &[("DATABASE_URL", "")]].concat()).unwrap_err();
        assert!(error.starts_with("DATABASE_URL is not set"), "{error}");
    }
}
