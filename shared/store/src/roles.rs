//! Who may do what, now: members' roles, what roles allow, tokens that are good no longer.

use crate::{Database, Nothing, Outcome, StoreError, Tenant, tenant_statement};
use astra_kernel::permission::Rules;
use astra_kernel::{Access, Timestamp};
use serde::{Deserialize, Serialize};

/// What somebody is in a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A member.
    Member(Access),
    /// None, or none any more; or there is no such workspace.
    NoMember,
    /// The token that they show was revoked.
    TokenRevoked,
}

/// What removing a role did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleRemoved {
    /// It is gone; one that every workspace has is as it was made.
    Done,
    /// The workspace had not defined it.
    NotFound,
    /// Members have it, and nothing else says what it may do.
    InUse,
}

#[derive(Deserialize)]
struct Answer {
    outcome: String,
    access: Option<Access>,
}

#[derive(Serialize)]
struct OfRole<'a> {
    role: &'a str,
}

impl<D: Database> Tenant<'_, D> {
    /// What somebody may do here now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn standing(&self, subject: &str, token_id: &str) -> Result<Standing, StoreError> {
        const STATEMENT: &str = tenant_statement!("access");
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Who<'a> {
            subject: &'a str,
            token_id: &'a str,
        }
        let answer: Answer = self.call(STATEMENT, &Who { subject, token_id }).await?;
        match (answer.outcome.as_str(), answer.access) {
            ("ok", Some(access)) => Ok(Standing::Member(access)),
            ("no_member", _) => Ok(Standing::NoMember),
            ("token_revoked", _) => Ok(Standing::TokenRevoked),
            _ => Err(StoreError::Shape(STATEMENT)),
        }
    }

    /// What a role may do; `None` when there is no such role (or workspace).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_role(&self, role: &str) -> Result<Option<Access>, StoreError> {
        self.call(tenant_statement!("role_get"), &OfRole { role }).await.map(|answer: Answer| answer.access)
    }

    /// All roles of the workspace, by name; `None` when it does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_roles(&self) -> Result<Option<Vec<Access>>, StoreError> {
        #[derive(Deserialize)]
        struct Roles {
            outcome: String,
            data: Vec<Access>,
        }
        let Roles { outcome, data } = self.call(tenant_statement!("roles_list"), &Nothing {}).await?;
        Ok((outcome == "ok").then_some(data))
    }

    /// Says what a role may do. False when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_role(&self, role: &str, rules: &Rules, now: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        struct Put<'a> {
            role: &'a str,
            #[serde(flatten)]
            rules: &'a Rules,
            now: Timestamp,
        }
        self.call(tenant_statement!("role_put"), &Put { role, rules, now }).await.map(|Outcome { outcome }| outcome == "ok")
    }

    /// Removes what the workspace has said of a role.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_role(&self, role: &str) -> Result<RoleRemoved, StoreError> {
        const STATEMENT: &str = tenant_statement!("role_delete");
        let Outcome { outcome } = self.call(STATEMENT, &OfRole { role }).await?;
        match outcome.as_str() {
            "ok" => Ok(RoleRemoved::Done),
            "not_found" => Ok(RoleRemoved::NotFound),
            "in_use" => Ok(RoleRemoved::InUse),
            _ => Err(StoreError::Shape(STATEMENT)),
        }
    }

    /// From now on a token is refused.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_token(&self, jti: &str, now: Timestamp) -> Result<(), StoreError> {
        #[derive(Serialize)]
        struct Revoke<'a> {
            jti: &'a str,
            now: Timestamp,
        }
        self.call(tenant_statement!("token_revoke"), &Revoke { jti, now }).await.map(|Outcome { .. }| ())
    }
}
