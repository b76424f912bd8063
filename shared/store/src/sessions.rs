//! Sessions and their messages. A session belongs to the user who began it.

use crate::{Database, Listed, Page, StoreError, Tenant, tenant_statement};
use astra_kernel::{AgentId, SessionId, Timestamp, TurnId};
use serde::{Deserialize, Serialize};

/// A conversation.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: SessionId,
    /// The agent it began with.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// Whose it is.
    pub user_id: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When its last turn ended.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// One message of a session.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredMessage {
    /// Its place in the session, from 1.
    pub seq: i64,
    /// The turn that it belongs to.
    #[schema(value_type = String, format = "uuid")]
    pub turn_id: TurnId,
    /// `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
    /// When it was said.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    session_id: SessionId,
    user_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct Found {
    outcome: String,
    session: Option<Session>,
}

impl<D: Database> Tenant<'_, D> {
    /// Sessions, newest first: one user's, or everybody's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_sessions(&self, user_id: Option<&str>, after: Option<&str>, limit: u32) -> Result<Page<Session>, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct List<'a> {
            user_id: Option<&'a str>,
            after: Option<&'a str>,
            limit: u32,
        }
        self.call(tenant_statement!("sessions_list"), &List { user_id, after, limit }).await
    }

    /// A session, if it exists: that user's only, or anybody's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_session(&self, id: SessionId, user_id: Option<&str>) -> Result<Option<Session>, StoreError> {
        let found: Found = self.call(tenant_statement!("session_get"), &One { session_id: id, user_id }).await?;
        Ok(found.session)
    }

    /// A session's messages, oldest first; `None` when it does not exist, or is not that user's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_messages(
        &self,
        id: SessionId,
        user_id: Option<&str>,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Option<Page<StoredMessage>>, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct List<'a> {
            session_id: SessionId,
            user_id: Option<&'a str>,
            after: Option<i64>,
            limit: u32,
        }
        let arg = List { session_id: id, user_id, after, limit };
        self.call(tenant_statement!("messages_list"), &arg).await.map(Listed::found)
    }

    /// Deletes a session with its messages; turns and ledger stay. False when it does not exist, or is not that user's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_session(&self, id: SessionId, user_id: Option<&str>) -> Result<bool, StoreError> {
        let found: Found = self.call(tenant_statement!("session_delete"), &One { session_id: id, user_id }).await?;
        Ok(found.outcome == "ok")
    }
}
