//! Plans and their agent templates: one definition for all workspaces of a plan.

use crate::{Database, Operator, StoreError, operator_statement};
use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A plan's template as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanTemplate {
    /// The plan.
    pub plan: String,
    /// Counts up with each change.
    pub version: i32,
    /// The parsed template: `{"agents": [..]}`.
    pub template: Value,
    /// The YAML as it was uploaded.
    pub source_yaml: String,
}

impl<D: Database> Operator<'_, D> {
    /// Sets a plan's template; the same YAML again keeps the version. Returns the version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_plan(&self, plan: &str, template: &Value, source_yaml: &str, now: Timestamp) -> Result<i32, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            version: i32,
        }
        let arg = json!({ "plan": plan, "template": template, "sourceYaml": source_yaml, "now": now });
        self.call(operator_statement!("op_plan_put"), &arg).await.map(|Answer { version }| version)
    }

    /// A plan's template, if it has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_plan(&self, plan: &str) -> Result<Option<PlanTemplate>, StoreError> {
        let answer: Value = self.call(operator_statement!("op_plan_get"), &json!({ "plan": plan })).await?;
        if answer["outcome"] == "ok" {
            serde_json::from_value(answer).map(Some).map_err(|_| StoreError::Shape("op_plan_get"))
        } else {
            Ok(None)
        }
    }
}
