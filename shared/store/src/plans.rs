//! Plans and their agent templates: one definition for all workspaces of a plan.

use crate::extract::Model;
use crate::{Database, Operator, Outcome, StoreError, operator_statement, parse};
use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A plan's template as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanTemplate {
    /// The plan.
    pub plan: String,
    /// Counts up with each change.
    pub version: i32,
    /// The parsed template: `{"agents": [..]}`.
    pub template: Box<RawValue>,
    /// The YAML as it was uploaded.
    pub source_yaml: String,
}

impl<D: Database> Operator<'_, D> {
    /// Sets a plan's template; the same YAML again keeps the version. Returns the version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_plan(&self, plan: &str, template: &impl Serialize, source_yaml: &str, now: Timestamp) -> Result<i32, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            version: i32,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Arg<'a, T> {
            plan: &'a str,
            template: &'a T,
            source_yaml: &'a str,
            now: Timestamp,
        }
        self.call(operator_statement!("op_plan_put"), &Arg { plan, template, source_yaml, now }).await.map(|Answer { version }| version)
    }

    /// A plan's template, if it has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_plan(&self, plan: &str) -> Result<Option<PlanTemplate>, StoreError> {
        const STATEMENT: &str = operator_statement!("op_plan_get");
        #[derive(Serialize)]
        struct Arg<'a> {
            plan: &'a str,
        }
        let answer = self.call_text(STATEMENT, &Arg { plan }).await?;
        let Outcome { outcome } = parse(STATEMENT, &answer)?;
        if outcome == "ok" { parse(STATEMENT, &answer).map(Some) } else { Ok(None) }
    }

    /// Sets a plan's settings. A mark-up that is not said stays as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_plan_settings(&self, plan: &str, settings: &NewPlanSettings<'_>, now: Timestamp) -> Result<(), StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Arg<'a> {
            plan: &'a str,
            #[serde(flatten)]
            settings: &'a NewPlanSettings<'a>,
            now: Timestamp,
        }
        self.call(operator_statement!("op_plan_settings_put"), &Arg { plan, settings, now }).await.map(|Outcome { .. }| ())
    }

    /// A plan's settings; none when nothing is known of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_plan_settings(&self, plan: &str) -> Result<Option<PlanSettings>, StoreError> {
        const STATEMENT: &str = operator_statement!("op_plan_settings_get");
        #[derive(Serialize)]
        struct Arg<'a> {
            plan: &'a str,
        }
        let answer = self.call_text(STATEMENT, &Arg { plan }).await?;
        let Outcome { outcome } = parse(STATEMENT, &answer)?;
        if outcome == "ok" { parse(STATEMENT, &answer).map(Some) } else { Ok(None) }
    }
}

/// Settings for a plan.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewPlanSettings<'a> {
    /// Whether a budget that is not used up is carried over into the next month.
    pub carry_over: bool,
    /// What its workspaces are charged more than what it costs, in hundredths of a percent; none: as it is.
    pub markup_basis_points: Option<i64>,
    /// How conversations become memories: `off`, `rules`, `model` or `batch`; none: as the deployment does.
    pub extraction: Option<&'a str>,
    /// By which model; none: the agent's.
    pub extraction_model: Option<&'a Model>,
}

/// A plan's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanSettings {
    /// Whether a budget that is not used up is carried over into the next month.
    pub carry_over: bool,
    /// What its workspaces are charged more than what it costs, in hundredths of a percent.
    pub markup_basis_points: i64,
    /// The template's version, when there is one.
    pub template_version: Option<i32>,
    /// How conversations become memories; none: as the deployment does.
    pub extraction: Option<String>,
    /// By which model; none: the agent's.
    pub extraction_model: Option<Model>,
}
