//! The second wall, at the database itself: every table, every role, every command, taken from the catalogue. A table that comes without its policies fails here the moment
//! it is there, and so does a function that everybody may execute.
//!
//! The functions' roles log in for themselves and through the pooler; the roles as whom nobody logs in are taken by the administrator. Each attempt is a transaction that is
//! rolled back. All are two-sided: where a role has a right, its own workspace's row must be there, else a wall that refuses everything would look like one that holds.

mod attempts;
mod calls;
mod catalogue;
mod filled;
mod guests;

/// The roles that the functions log in as.
const FUNCTIONS: [&str; 6] = ["astra_provision", "astra_invoke", "astra_quota", "astra_billing", "astra_grants", "astra_memory"];

/// The roles as whom nobody logs in.
const OWNERS: [&str; 7] =
    ["astra_owner", "astra_operator", "astra_quota_inside", "astra_crossing", "astra_eraser", "astra_recall", "astra_books"];

/// Tables without a workspace, and which of our roles may do what there. Nothing that is not said here.
const GLOBAL: [(&str, &[(&str, &str)]); 7] = [
    ("astra.tenant_keys", &[("astra_owner", "SELECT INSERT UPDATE DELETE")]),
    ("public.astra_migrations", &[]),
    ("public.billing_jobs", &[("astra_owner", "SELECT INSERT UPDATE DELETE"), ("astra_operator", "SELECT INSERT UPDATE")]),
    ("public.invoice_numbers", &[("astra_books", "SELECT UPDATE")]),
    (
        "public.plan_settings",
        &[
            ("astra_owner", "SELECT INSERT UPDATE DELETE"),
            ("astra_operator", "SELECT INSERT UPDATE"),
            ("astra_quota_inside", "SELECT"),
            ("astra_memory", "SELECT"),
        ],
    ),
    (
        "public.plans",
        &[
            ("astra_owner", "SELECT INSERT UPDATE DELETE"),
            ("astra_operator", "SELECT INSERT UPDATE"),
            ("astra_provision", "SELECT"),
            ("astra_invoke", "SELECT"),
            ("astra_billing", "SELECT"),
            ("astra_grants", "SELECT"),
            ("astra_memory", "SELECT"),
            ("astra_quota_inside", "SELECT"),
            ("astra_crossing", "SELECT"),
        ],
    ),
    (
        "public.prices",
        &[
            ("astra_owner", "SELECT INSERT UPDATE DELETE"),
            ("astra_operator", "SELECT INSERT"),
            ("astra_provision", "SELECT"),
            ("astra_invoke", "SELECT"),
            ("astra_billing", "SELECT"),
            ("astra_quota_inside", "SELECT"),
        ],
    ),
];

/// Tables that the owner may keep up without a proof, as a superuser's triggers do; with one only that workspace's rows.
const MAINTENANCE: [&str; 5] = ["audit_log", "audit_heads", "word_indexes", "word_changes", "word_leftovers"];

/// Policies of single roles beside those of every table: (table, policy, role, command, whether it sees all workspaces' rows and not only those of the proof's). The operator reads
/// who somebody is and what it cost, grants cross, what is deleted is forgotten, the books are kept.
const OTHERS: [(&str, &str, &str, &str, bool); 32] = [
    ("workspaces", "operator_reads", "astra_operator", "SELECT", true),
    ("turns", "operator_reads", "astra_operator", "SELECT", true),
    ("ledger", "operator_reads", "astra_operator", "SELECT", true),
    ("holds", "operator_reads", "astra_operator", "SELECT", true),
    ("jobs", "operator_reads", "astra_operator", "SELECT", true),
    ("webhook_deliveries", "operator_reads", "astra_operator", "SELECT", true),
    ("stripe_customers", "operator_reads", "astra_operator", "SELECT", true),
    ("stripe_events", "operator_reads", "astra_operator", "SELECT", true),
    ("word_leftovers", "operator_reads", "astra_operator", "SELECT", true),
    ("grants", "crossing", "astra_crossing", "ALL", true),
    ("received_grants", "crossing", "astra_crossing", "ALL", true),
    ("workspaces", "crossing", "astra_crossing", "SELECT", true),
    ("agents", "crossing", "astra_crossing", "SELECT", true),
    ("workspaces", "eraser", "astra_eraser", "SELECT", false),
    ("ledger", "eraser", "astra_eraser", "ALL", false),
    ("workspaces", "books", "astra_books", "SELECT", true),
    ("turns", "books", "astra_books", "SELECT", true),
    ("ledger", "books", "astra_books", "SELECT", true),
    ("ledger_heads", "books", "astra_books", "SELECT", true),
    ("holds", "books", "astra_books", "SELECT", true),
    ("usage_heads", "books", "astra_books", "ALL", true),
    ("usage_months", "books", "astra_books", "ALL", true),
    ("usage_days", "books", "astra_books", "ALL", true),
    ("usage_user_days", "books", "astra_books", "ALL", true),
    ("usage_sessions", "books", "astra_books", "ALL", true),
    ("usage_month_sessions", "books", "astra_books", "ALL", true),
    ("usage_guests", "books", "astra_books", "ALL", true),
    ("invoice_heads", "books", "astra_books", "ALL", true),
    ("invoices", "books", "astra_books", "ALL", true),
    ("invoice_lines", "books", "astra_books", "ALL", true),
    ("webhooks", "books", "astra_books", "SELECT", true),
    ("webhook_deliveries", "books", "astra_books", "ALL", true),
];
