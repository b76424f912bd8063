//! Members of a workspace and their roles.

use crate::{Database, Listed, Page, PageArg, StoreError, Tenant, tenant_statement};
use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The user's id, as in the tokens' `sub`.
    pub user_id: String,
    /// Their role.
    pub role: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// What a change of members did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberOutcome {
    /// Done; after a change the member as they are now.
    Ok {
        /// The member.
        member: Option<Member>,
    },
    /// No such member (or workspace).
    NotFound,
    /// Refused: a workspace keeps at least one owner.
    LastOwner,
    /// Refused: who is an owner is for owners to say.
    OwnersOnly,
}

#[derive(Deserialize)]
struct Answer {
    outcome: String,
    member: Option<Member>,
}

impl Answer {
    fn read(self, statement: &'static str) -> Result<MemberOutcome, StoreError> {
        match self.outcome.as_str() {
            "ok" => Ok(MemberOutcome::Ok { member: self.member }),
            "not_found" => Ok(MemberOutcome::NotFound),
            "last_owner" => Ok(MemberOutcome::LastOwner),
            "owners_only" => Ok(MemberOutcome::OwnersOnly),
            _ => Err(StoreError::Shape(statement)),
        }
    }
}

impl<D: Database> Tenant<'_, D> {
    /// Adds a member or changes a role. `by_owner`: whether the caller may change who is an owner.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_member(&self, user_id: &str, role: &str, by_owner: bool, now: Timestamp) -> Result<MemberOutcome, StoreError> {
        const STATEMENT: &str = tenant_statement!("member_put");
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Put<'a> {
            user_id: &'a str,
            role: &'a str,
            by_owner: bool,
            now: Timestamp,
        }
        self.call::<Answer>(STATEMENT, &Put { user_id, role, by_owner, now }).await?.read(STATEMENT)
    }

    /// Makes somebody a member unless they are one; who they are then. `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_member(&self, user_id: &str, role: &str, now: Timestamp) -> Result<Option<Member>, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Add<'a> {
            user_id: &'a str,
            role: &'a str,
            now: Timestamp,
        }
        self.call(tenant_statement!("member_add"), &Add { user_id, role, now }).await.map(|answer: Answer| answer.member)
    }

    /// The members, by user id; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_members(&self, after: Option<&str>, limit: u32) -> Result<Option<Page<Member>>, StoreError> {
        self.call(tenant_statement!("members_list"), &PageArg { after, limit }).await.map(Listed::found)
    }

    /// Removes a member. `by_owner` as in [`Tenant::put_member`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_member(&self, user_id: &str, by_owner: bool) -> Result<MemberOutcome, StoreError> {
        const STATEMENT: &str = tenant_statement!("member_delete");
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Delete<'a> {
            user_id: &'a str,
            by_owner: bool,
        }
        self.call::<Answer>(STATEMENT, &Delete { user_id, by_owner }).await?.read(STATEMENT)
    }
}
