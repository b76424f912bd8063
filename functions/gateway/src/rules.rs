//! Which function serves a path, who may call from a browser, how large a body may be. Pure, so that a host with another kind of gateway agrees.

/// A function behind the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// Workspaces, members, tokens, secrets, plans, agents.
    Provision,
    /// Turns, sessions, smoke test.
    InvokeTurn,
    /// Costs, usage, quota, prices, the ledger and its receipts, webhooks, scheduled jobs.
    Billing,
    /// Roles and what they allow, grants, the audit log.
    Grants,
    /// Memories, documents, jobs.
    Memory,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Provision, Self::InvokeTurn, Self::Billing, Self::Grants, Self::Memory];

    /// The service binding's name.
    pub fn binding(self) -> &'static str {
        match self {
            Self::Provision => "PROVISION",
            Self::InvokeTurn => "INVOKE_TURN",
            Self::Billing => "BILLING",
            Self::Grants => "GRANTS",
            Self::Memory => "MEMORY",
        }
    }

    /// The variable with the function's own address of the database, where several are in one environment.
    pub fn own_address(self) -> &'static str {
        match self {
            Self::Provision => "DATABASE_URL_PROVISION",
            Self::InvokeTurn => "DATABASE_URL_INVOKE_TURN",
            Self::Billing => "DATABASE_URL_BILLING",
            Self::Grants => "DATABASE_URL_GRANTS",
            Self::Memory => "DATABASE_URL_MEMORY",
        }
    }

    /// The function's name, as in its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::InvokeTurn => "invoke-turn",
            Self::Billing => "billing",
            Self::Grants => "grants",
            Self::Memory => "memory",
        }
    }
}

/// The function that serves a path, by its segments as sent (still percent-encoded); the function itself knows methods and parameters.
pub fn function_for(path: &str) -> Option<Function> {
    let mut segments = path.strip_prefix('/')?.split('/');
    match (segments.next()?, segments.next(), segments.next()) {
        ("workspaces", Some(_), Some("turns" | "sessions" | "smoke-test")) => Some(Function::InvokeTurn),
        ("workspaces", Some(_), Some("usage" | "quota" | "ledger" | "receipts" | "webhooks" | "invoices"))
        | ("billing", Some(_), _)
        | (".well-known", Some("jwks.json"), None) => Some(Function::Billing),
        ("workspaces", Some(_), Some("roles" | "authorize" | "grants" | "audit")) => Some(Function::Grants),
        ("workspaces", Some(_), Some("memories" | "documents" | "memory" | "users")) => Some(Function::Memory),
        ("workspaces", None, None)
        | ("workspaces", Some(_), None | Some("export" | "members" | "tokens" | "secrets" | "agents"))
        | ("plans", Some(_), _) => Some(Function::Provision),
        _ => None,
    }
}

/// What a preflight of an allowed origin is told beside the origin. (With or without it: `vary: origin`.)
pub const PREFLIGHT: [(&str, &str); 3] = [
    ("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE"),
    ("access-control-allow-headers", "authorization, content-type, idempotency-key, x-request-id, accept"),
    ("access-control-max-age", "600"),
];

/// What of an answer's headers a browser's code may read: `access-control-expose-headers`.
pub const EXPOSED_HEADERS: &str = "x-request-id, retry-after, location, next-cursor, ratelimit, ratelimit-policy";

/// The largest request body in bytes: 1 MiB, but for documents, which have 20.
pub fn body_limit(path: &str) -> u64 {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.nth(1), segments.next(), segments.next()) {
        (Some("workspaces"), Some("documents"), Some(_), None) => 20 << 20,
        _ => 1 << 20,
    }
}

/// Whether a declared body length is acceptable. Without a declaration the function counts while it reads.
pub fn length_is_acceptable(content_length: Option<&str>, limit: u64) -> bool {
    content_length.is_none_or(|text| text.parse::<u64>().is_ok_and(|length| length <= limit))
}

/// Whether an origin may call from a browser: an exact match with an entry of `ALLOWED_ORIGINS` (comma separated), or `*` alone.
pub fn origin_is_allowed(origin: &str, allowed: &str) -> bool {
    allowed.trim() == "*" || allowed.split(',').map(str::trim).any(|entry| !entry.is_empty() && entry == origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_function() {
        for (path, function) in [
            ("/workspaces", Some(Function::Provision)),
            ("/workspaces/a", Some(Function::Provision)),
            ("/workspaces/a/tokens", Some(Function::Provision)),
            ("/workspaces/a/export", Some(Function::Provision)),
            ("/workspaces/a/secrets/X", Some(Function::Provision)),
            ("/workspaces/a/agents/b", Some(Function::Provision)),
            ("/plans/pro", Some(Function::Provision)),
            ("/plans/pro/template", Some(Function::Provision)),
            ("/workspaces/a/turns", Some(Function::InvokeTurn)),
            ("/workspaces/a/turns/t/stop", Some(Function::InvokeTurn)),
            ("/workspaces/a/sessions/s/messages", Some(Function::InvokeTurn)),
            ("/workspaces/a/smoke-test", Some(Function::InvokeTurn)),
            ("/workspaces/a/usage", Some(Function::Billing)),
            ("/workspaces/a/quota", Some(Function::Billing)),
            ("/billing/costs", Some(Function::Billing)),
            ("/workspaces/acme/quota/events", Some(Function::Billing)),
            ("/workspaces/acme/ledger/verify", Some(Function::Billing)),
            ("/workspaces/acme/receipts", Some(Function::Billing)),
            ("/.well-known/jwks.json", Some(Function::Billing)),
            ("/.well-known/jwks.json/x", None),
            ("/.well-known", None),
            ("/workspaces/acme/webhooks/w/deliveries/d/replay", Some(Function::Billing)),
            ("/billing/jobs/reconcile/run", Some(Function::Billing)),
            ("/workspaces/a/roles", Some(Function::Grants)),
            ("/workspaces/a/roles/member", Some(Function::Grants)),
            ("/workspaces/a/authorize", Some(Function::Grants)),
            ("/workspaces/a/grants/g", Some(Function::Grants)),
            ("/workspaces/a/audit", Some(Function::Grants)),
            ("/workspaces/a/memories/search", Some(Function::Memory)),
            ("/workspaces/a/documents/handbook", Some(Function::Memory)),
            ("/workspaces/a/memory/status", Some(Function::Memory)),
            ("/workspaces/a/users/u/memory", Some(Function::Memory)),
            ("/", None),
            ("", None),
            ("/workspaces/a/grantz", None),
            ("/plans", None),
            ("/Workspaces", None),
            ("//workspaces", None),
        ] {
            assert_eq!(function_for(path), function, "{path}");
        }
    }

    #[test]
    fn origins_match_exactly() {
        let allowed = "https://app.example.com, https://b.example";
        assert!(origin_is_allowed("https://app.example.com", allowed));
        assert!(origin_is_allowed("https://b.example", allowed));
        for origin in ["https://app.example.com.evil.org", "http://app.example.com", "https://example.com", "", "null", "*"] {
            assert!(!origin_is_allowed(origin, allowed), "{origin}");
        }
        assert!(!origin_is_allowed("", ""));
        assert!(origin_is_allowed("https://x", "*"));
        assert!(!origin_is_allowed("https://x", "*,https://y"));
    }

    #[test]
    fn lengths_are_checked() {
        let fits = |length| length_is_acceptable(length, body_limit("/workspaces/a/turns"));
        assert!(fits(None) && fits(Some("1048576")));
        for length in ["1048577", "-1", "99999999999999999999999"] {
            assert!(!fits(Some(length)));
        }
        assert!(length_is_acceptable(Some("20971520"), body_limit("/workspaces/a/documents/handbook")));
        assert!(!length_is_acceptable(Some("20971521"), body_limit("/workspaces/a/documents/handbook")));
        for path in ["/workspaces/a/documents", "/workspaces/a/documents/b/c", "/plans/documents/b", "/x/a/documents/b", "/"] {
            assert_eq!(body_limit(path), 1 << 20, "{path}");
        }
    }
}
