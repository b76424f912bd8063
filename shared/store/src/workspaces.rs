//! Workspaces: the tenants themselves.

use crate::{Database, Nothing, Operator, Outcome, Page, PageArg, StoreError, Tenant, operator_statement, tenant_statement};
use astra_kernel::{Limits, NanoUsd, Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};

/// A workspace as stored.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// For people.
    pub display_name: String,
    /// The plan, which names its agent template.
    pub plan: String,
    /// The user who owns it.
    pub owner_id: String,
    /// Its limits.
    #[serde(default)]
    pub limits: Limits,
    /// Which models it may use.
    #[serde(default)]
    pub restrictions: Restrictions,
    /// Its time zone, an IANA name.
    pub time_zone: String,
    /// `active`, `provisioning` or `deleting`.
    pub status: String,
    /// What it is charged more than what it costs, in hundredths of a percent. None: as its plan says.
    pub markup_basis_points: Option<i64>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What went with a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Erased {
    /// How many of each were removed.
    pub removed: Removed,
    /// What stays.
    pub kept: Kept,
}

/// How many of each were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = RemovedCounts)]
pub struct Removed {
    /// Members.
    pub members: i64,
    /// Roles that it had defined.
    pub roles: i64,
    /// Agents of its own.
    pub agents: i64,
    /// Secrets.
    pub secrets: i64,
    /// Conversations.
    pub sessions: i64,
    /// Their messages.
    pub messages: i64,
    /// Turns.
    pub turns: i64,
    /// Memories.
    pub memories: i64,
    /// Grants that it had given.
    pub grants: i64,
}

/// What stays of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KeptCounts)]
pub struct Kept {
    /// Entries of the ledger, without who asked.
    pub ledger_entries: i64,
}

/// One page of an export.
#[derive(Debug, Clone, Deserialize)]
pub struct ExportPage {
    /// JSON lines.
    pub lines: String,
    /// What `after` is for the next page.
    pub next: Option<String>,
}

/// Which models a workspace may use: all that these do not exclude.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restrictions {
    /// Only these providers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_providers: Option<Vec<String>>,
    /// Only these models, `provider/model`; with `*` at the end all that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_models: Option<Vec<String>>,
}

/// A workspace to make.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewWorkspace<'a> {
    /// For people.
    pub display_name: &'a str,
    /// The plan.
    pub plan: &'a str,
    /// The user who owns it.
    pub owner_id: &'a str,
    /// Its limits.
    pub limits: Limits,
    /// Its time zone, an IANA name; UTC unless told.
    pub time_zone: Option<&'a str>,
    /// The request's canonical form: the same again is the same workspace.
    pub body: &'a str,
    /// The host's clock.
    pub now: Timestamp,
}

/// What creating did.
#[derive(Debug, Clone)]
pub enum Created {
    /// It is new.
    New(Workspace),
    /// It was there, made by the same request.
    Same(Workspace),
    /// It was there, made by another request.
    Conflict,
    /// There is no such time zone.
    TimeZoneUnknown,
}

/// What became of a patch.
#[derive(Debug)]
pub enum Patched {
    /// The workspace as it is now.
    Ok(Box<Workspace>),
    /// There is no such workspace.
    NotFound,
    /// There is no such time zone.
    TimeZoneUnknown,
}

/// What a patch changes. Absent fields stay.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspacePatch {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The time zone, an IANA name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Limits to merge: a null removes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsPatch>,
    /// What takes the place of its restrictions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restrictions: Option<Restrictions>,
    /// Its own mark-up; null: its plan's again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub markup_basis_points: Option<Option<i64>>,
}

/// What to change about a workspace's limits ([`Limits`]): what is absent stays, null is removed.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsPatch {
    /// How many agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_agents: Option<Option<i64>>,
    /// Tokens in a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_month: Option<Option<i64>>,
    /// Cost in a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_month: Option<Option<NanoUsd>>,
    /// Turns begun within a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_turns_per_minute: Option<Option<i64>>,
    /// Tokens in an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_hour: Option<Option<i64>>,
    /// Tokens in a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_day: Option<Option<i64>>,
    /// Cost in an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_hour: Option<Option<NanoUsd>>,
    /// Cost in a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_day: Option<Option<NanoUsd>>,
}

#[derive(Deserialize)]
struct Found {
    outcome: String,
    workspace: Option<Workspace>,
}

impl<D: Database> Tenant<'_, D> {
    /// Makes the workspace with all that belongs to it: memory schema, owner as member, quota row. One transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_workspace(&self, new: &NewWorkspace<'_>) -> Result<Created, StoreError> {
        const STATEMENT: &str = tenant_statement!("workspace_create");
        let found: Found = self.call(STATEMENT, new).await?;
        match (found.outcome.as_str(), found.workspace) {
            ("created", Some(workspace)) => Ok(Created::New(workspace)),
            ("same", Some(workspace)) => Ok(Created::Same(workspace)),
            ("conflict", _) => Ok(Created::Conflict),
            ("time_zone_unknown", _) => Ok(Created::TimeZoneUnknown),
            _ => Err(StoreError::Shape(STATEMENT)),
        }
    }

    /// The workspace, if it exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_workspace(&self) -> Result<Option<Workspace>, StoreError> {
        let found: Found = self.call(tenant_statement!("workspace_get"), &Nothing {}).await?;
        Ok(found.workspace)
    }

    /// Changes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn patch_workspace(&self, patch: &WorkspacePatch, now: Timestamp) -> Result<Patched, StoreError> {
        const STATEMENT: &str = tenant_statement!("workspace_patch");
        #[derive(Serialize)]
        struct Arg<'a> {
            #[serde(flatten)]
            patch: &'a WorkspacePatch,
            now: Timestamp,
        }
        let found: Found = self.call(STATEMENT, &Arg { patch, now }).await?;
        match (found.outcome.as_str(), found.workspace) {
            ("ok", Some(workspace)) => Ok(Patched::Ok(Box::new(workspace))),
            ("not_found", _) => Ok(Patched::NotFound),
            ("time_zone_unknown", _) => Ok(Patched::TimeZoneUnknown),
            _ => Err(StoreError::Shape(STATEMENT)),
        }
    }

    /// Deletes it with everything it owns; its ledger entries stay, as the bill's record, without who asked. `None` when it does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_workspace(&self) -> Result<Option<Erased>, StoreError> {
        const STATEMENT: &str = tenant_statement!("workspace_delete");
        let answer = self.call_text(STATEMENT, "{}").await?;
        let Outcome { outcome } = crate::parse(STATEMENT, &answer)?;
        if outcome == "ok" { crate::parse(STATEMENT, &answer).map(Some) } else { Ok(None) }
    }

    /// One page of all that the workspace has, as JSON lines; `None` when it does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn export(&self, after: Option<&str>, limit: u32) -> Result<Option<ExportPage>, StoreError> {
        const STATEMENT: &str = tenant_statement!("workspace_export");
        let arg = serde_json::to_string(&crate::PageArg { after, limit }).map_err(|_| StoreError::Shape(STATEMENT))?;
        let answer = self.call_text(STATEMENT, &arg).await?;
        let Outcome { outcome } = crate::parse(STATEMENT, &answer)?;
        if outcome == "ok" { crate::parse(STATEMENT, &answer).map(Some) } else { Ok(None) }
    }
}

impl<D: Database> Operator<'_, D> {
    /// Every workspace, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_workspaces(&self, after: Option<&str>, limit: u32) -> Result<Page<Workspace>, StoreError> {
        self.call(operator_statement!("op_workspaces_list"), &PageArg { after, limit }).await
    }
}
