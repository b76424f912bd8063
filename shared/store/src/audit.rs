//! The audit log: what is added to it by hand, and how it is read. Everything else in it is written by triggers (`migrations/0026`).

use crate::{Database, Listed, Nothing, Outcome, Page, StoreError, Tenant, tenant_statement};
use astra_kernel::audit::Entry;
use astra_kernel::{Permission, Timestamp};
use serde::{Deserialize, Serialize};

/// A token that was issued.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedToken<'a> {
    /// The role that it names.
    pub role: &'a str,
    /// Its id.
    pub jti: &'a str,
    /// What it is narrowed to, with blanks between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// Their role does not allow it.
    Role,
    /// Their token is narrowed to less.
    Scope,
    /// They are no member, or none any more.
    NoMember,
    /// Their token is revoked.
    Revoked,
}

/// Which entries.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AuditFilter<'a> {
    /// Only before this one.
    pub after: Option<u64>,
    /// How many at most.
    pub limit: u32,
    /// Only this action, or all that begin so (`member.*`).
    pub action: Option<&'a str>,
    /// Only what this user did.
    pub actor: Option<&'a str>,
    /// Only what was done to this.
    pub target: Option<&'a str>,
    /// Only `allowed`, or only `denied`.
    pub outcome: Option<&'a str>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Only before.
    pub until: Option<Timestamp>,
}

/// Whether a log is as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many entries there are.
    pub entries: u64,
    /// The first that is not as it was written, or is missing.
    pub broken_at: Option<u64>,
}

/// The same as the database says it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifiedAnswer {
    outcome: String,
    entries: u64,
    broken_at: Option<u64>,
}

impl Verified {
    /// None when there is nothing to verify.
    pub(crate) fn found(answer: VerifiedAnswer) -> Option<Self> {
        let VerifiedAnswer { outcome, entries, broken_at } = answer;
        (outcome == "ok").then_some(Self { entries, broken_at })
    }
}

#[derive(Serialize)]
struct Add<'a, T> {
    action: &'static str,
    target: &'a str,
    outcome: &'static str,
    detail: T,
}

impl<D: Database> Tenant<'_, D> {
    /// Writes down that a token was issued. False when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`]: then it is not to be given to anybody.
    pub async fn audit_token(&self, subject: &str, token: IssuedToken<'_>) -> Result<bool, StoreError> {
        self.audit(&Add { action: "token.issue", target: subject, outcome: "allowed", detail: token }).await
    }

    /// Writes down that somebody was refused what they may not. `target` is what they asked for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_denial(&self, target: &str, permission: Permission, because: Because) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        struct Denial {
            permission: &'static str,
            because: Because,
        }
        let detail = Denial { permission: permission.as_str(), because };
        self.audit(&Add { action: "access.denied", target, outcome: "denied", detail }).await
    }

    async fn audit<T: Serialize>(&self, entry: &Add<'_, T>) -> Result<bool, StoreError> {
        self.call(tenant_statement!("audit_add"), entry).await.map(|Outcome { outcome }| outcome == "ok")
    }

    /// Entries, newest first; `None` when there is neither a workspace nor a log of one that was deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_audit(&self, filter: &AuditFilter<'_>) -> Result<Option<Page<Entry>>, StoreError> {
        self.call(tenant_statement!("audit_list"), filter).await.map(Listed::found)
    }

    /// Makes every hash anew and compares; `None` as above.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn verify_audit(&self) -> Result<Option<Verified>, StoreError> {
        self.call(tenant_statement!("audit_verify"), &Nothing {}).await.map(Verified::found)
    }
}
