//! A turn's answer on the wire, and as it is stored for who asks again with the same key.

use astra_kernel::money::usd_number;
use astra_kernel::{AgentId, NanoUsd, SessionId, TurnId, Usage, WorkspaceId};
use astra_memory::Citation;
use astra_quota::QuotaView;
use serde::{Deserialize, Serialize};

/// What `POST /workspaces/{id}/turns` answers; the event `turn.completed` carries it without its text.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnAnswer {
    /// The turn.
    #[schema(value_type = String, format = "uuid")]
    pub turn_id: TurnId,
    /// Its conversation.
    #[schema(value_type = String, format = "uuid")]
    pub session_id: SessionId,
    /// The agent.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// The answer's text; absent in `turn.completed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Why it ended: `stop`, `length`, `quota`, `tool_limit`, `stopped` or `error`.
    pub finish_reason: String,
    /// What was used.
    pub usage: Usage,
    /// What it cost this workspace, exact.
    #[schema(value_type = i64)]
    pub cost_nano_usd: NanoUsd,
    /// What it cost this workspace in dollars, for people.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    pub cost_usd: NanoUsd,
    /// The workspace that pays, when it is another: its agent is granted so. What it cost and what is left there is its own to know, so the cost here is 0 and `quota` is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub paid_by: Option<WorkspaceId>,
    /// What is used and left.
    pub quota: QuotaView,
    /// The documents that the model was shown.
    pub citations: Vec<Citation>,
    /// What it is charged and its place in the ledger, signed: a compact JWS by a key of `/.well-known/jwks.json`. Absent where another workspace pays, and while the database is away:
    /// `GET /workspaces/{workspaceId}/receipts` has it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// The searches of the memory that did not do as they should: `vector`, where the message could not be embedded as the memory is, so that only its words were looked for; `keyword`,
    /// where the deployment's index of words gave no answer, so that Postgres looked for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// The same as it is stored, without what follows from the rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredAnswer {
    /// The turn.
    pub turn_id: TurnId,
    /// Its conversation.
    pub session_id: SessionId,
    /// The agent.
    pub agent_id: AgentId,
    /// The answer's text: stored as a message, joined in when it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Why it ended.
    pub finish_reason: String,
    /// What was used.
    pub usage: Usage,
    /// What it cost the workspace.
    pub cost_nano_usd: NanoUsd,
    /// The workspace that pays, when it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_by: Option<WorkspaceId>,
    /// What was used and left when it ended: added by the counter, so not written here.
    #[serde(default, skip_serializing)]
    pub quota: QuotaView,
    /// The documents that the model was shown.
    #[serde(default)]
    pub citations: Vec<Citation>,
    /// The searches that were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

impl From<StoredAnswer> for TurnAnswer {
    fn from(stored: StoredAnswer) -> Self {
        let StoredAnswer {
            turn_id,
            session_id,
            agent_id,
            content,
            finish_reason,
            usage,
            cost_nano_usd,
            paid_by,
            quota,
            citations,
            left_out,
        } = stored;
        Self {
            turn_id,
            session_id,
            agent_id,
            content,
            finish_reason,
            usage,
            cost_nano_usd,
            cost_usd: cost_nano_usd,
            paid_by,
            quota,
            citations,
            receipt: None,
            left_out,
        }
    }
}
