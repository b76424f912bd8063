//! Webhooks: where a workspace's events go, their outbox, and the log of deliveries. Secrets are sealed before they come here.

use crate::secrets::SealedSecret;
use crate::{Database, Listed, Nothing, Operator, Outcome, Page, StoreError, Tenant, operator_statement, tenant_statement};
use astra_kernel::{Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A webhook, without its secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookRow {
    /// Its name.
    pub name: String,
    /// Where events are sent.
    pub url: String,
    /// Which.
    pub events: Vec<String>,
    /// Since when nothing but failures came of it.
    pub failing_since: Option<Timestamp>,
    /// Since when nothing is sent.
    pub disabled_at: Option<Timestamp>,
    /// Why.
    pub disabled_why: Option<String>,
    /// Until when the secret before this one signs too.
    pub old_secret_until: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is wanted of a webhook.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NewWebhook<'a> {
    /// Where events are sent.
    pub url: &'a str,
    /// Which.
    pub events: &'a [String],
    /// How many webhooks a workspace has at most.
    pub most: u32,
}

/// What became of it.
#[derive(Debug, Clone)]
pub enum PutWebhook {
    /// It is new, and has the secret that came with it.
    Created(WebhookRow),
    /// It was there; its secret is what it was.
    Changed(WebhookRow),
    /// There are as many as there may be.
    TooMany,
    /// The workspace does not exist.
    NotFound,
}

/// A delivery and its log.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryRow {
    /// Its id; `webhook-id` is made of it.
    pub id: Uuid,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// When.
    pub created_at: Timestamp,
    /// How often it was tried since it was last begun.
    pub attempts: u32,
    /// When it is tried next.
    pub next_at: Option<Timestamp>,
    /// When it was taken.
    pub delivered_at: Option<Timestamp>,
    /// Since when it is tried no more.
    pub dead_at: Option<Timestamp>,
    /// Each try, oldest first.
    pub log: Vec<Attempt>,
}

/// A try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = WebhookAttempt)]
pub struct Attempt {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The answer's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub status: Option<u16>,
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub millis: i64,
}

/// A sealed secret of a webhook. Both texts are standard base64.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSealed {
    /// Which key of `SECRETS_KEY` sealed it.
    pub key_id: String,
    /// The nonce.
    pub nonce: String,
    /// Ciphertext and tag.
    pub ciphertext: String,
}

/// What is to be delivered.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Due {
    /// Its id.
    pub id: Uuid,
    /// The how manieth try this is.
    pub attempt: u32,
    /// To which webhook.
    pub webhook: String,
    /// Where that is.
    pub url: String,
    /// What is sent.
    pub body: String,
    /// What signs it.
    pub secret: WebhookSealed,
    /// What signs it too.
    pub old_secret: Option<WebhookSealed>,
}

/// What became of a try.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    /// The delivery.
    pub id: Uuid,
    /// The how manieth try.
    pub attempt: u32,
    /// For the log.
    pub entry: Attempt,
    /// It was taken.
    pub is_delivered: bool,
    /// There is no such webhook any more (410).
    pub is_gone: bool,
    /// When it is tried next; never without.
    pub next_at: Option<Timestamp>,
    /// A webhook that has failed only since before then is disabled.
    pub give_up_before: Timestamp,
    /// The host's clock.
    pub now: Timestamp,
}

/// What became of a wish to send something again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// It is sent again.
    Yes,
    /// Its webhook is disabled.
    Disabled,
    /// There is no such delivery.
    NotFound,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

impl<D: Database> Operator<'_, D> {
    /// Workspaces with something to deliver, the one that waits longest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn webhooks_due(&self, now: Timestamp, limit: u32) -> Result<Vec<WorkspaceId>, StoreError> {
        #[derive(Serialize)]
        struct Which {
            now: Timestamp,
            limit: u32,
        }
        #[derive(Deserialize)]
        struct Answer {
            workspaces: Vec<WorkspaceId>,
        }
        self.call(operator_statement!("op_webhooks_due"), &Which { now, limit }).await.map(|Answer { workspaces }| workspaces)
    }
}

impl<D: Database> Tenant<'_, D> {
    /// All webhooks, by name; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_webhooks(&self) -> Result<Option<Vec<WebhookRow>>, StoreError> {
        let listed: Listed<WebhookRow> = self.call(tenant_statement!("webhooks_list"), &Nothing {}).await?;
        Ok(listed.found().map(|page| page.data))
    }

    /// Makes a webhook with this secret (whose name is the webhook's), or changes one that is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_webhook(&self, webhook: NewWebhook<'_>, secret: &SealedSecret, now: Timestamp) -> Result<PutWebhook, StoreError> {
        const STATEMENT: &str = tenant_statement!("webhook_put");
        #[derive(Serialize)]
        struct Arg<'a> {
            #[serde(flatten)]
            webhook: NewWebhook<'a>,
            #[serde(flatten)]
            secret: &'a SealedSecret,
            now: Timestamp,
        }
        #[derive(Deserialize)]
        struct Answer {
            outcome: String,
            webhook: Option<WebhookRow>,
        }
        let Answer { outcome, webhook } = self.call(STATEMENT, &Arg { webhook, secret, now }).await?;
        match (outcome.as_str(), webhook) {
            ("created", Some(row)) => Ok(PutWebhook::Created(row)),
            ("changed", Some(row)) => Ok(PutWebhook::Changed(row)),
            ("too_many", _) => Ok(PutWebhook::TooMany),
            ("not_found", _) => Ok(PutWebhook::NotFound),
            _ => Err(StoreError::Shape(STATEMENT)),
        }
    }

    /// Gives a webhook a new secret; the one before signs beside it until then. `None` when there is no such webhook.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rotate_webhook(
        &self,
        secret: &SealedSecret,
        old_until: Timestamp,
        now: Timestamp,
    ) -> Result<Option<WebhookRow>, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Arg<'a> {
            #[serde(flatten)]
            secret: &'a SealedSecret,
            old_until: Timestamp,
            now: Timestamp,
        }
        #[derive(Deserialize)]
        struct Answer {
            webhook: Option<WebhookRow>,
        }
        self.call(tenant_statement!("webhook_rotate"), &Arg { secret, old_until, now }).await.map(|Answer { webhook }| webhook)
    }

    /// Removes a webhook and what it was still to be told. False when there is no such.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_webhook(&self, name: &str) -> Result<bool, StoreError> {
        let Outcome { outcome } = self.call(tenant_statement!("webhook_delete"), &Named { name }).await?;
        Ok(outcome == "ok")
    }

    /// A webhook's deliveries, newest first; `None` when there is no such webhook.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_deliveries(&self, name: &str, after: Option<Uuid>, limit: u32) -> Result<Option<Page<DeliveryRow>>, StoreError> {
        #[derive(Serialize)]
        struct Arg<'a> {
            name: &'a str,
            after: Option<Uuid>,
            limit: u32,
        }
        self.call(tenant_statement!("webhook_deliveries_list"), &Arg { name, after, limit }).await.map(Listed::found)
    }

    /// Has something sent again, under its id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replay_delivery(&self, name: &str, id: Uuid, now: Timestamp) -> Result<Replayed, StoreError> {
        #[derive(Serialize)]
        struct Arg<'a> {
            name: &'a str,
            id: Uuid,
            now: Timestamp,
        }
        let Outcome { outcome } = self.call(tenant_statement!("webhook_replay"), &Arg { name, id, now }).await?;
        Ok(match outcome.as_str() {
            "ok" => Replayed::Yes,
            "disabled" => Replayed::Disabled,
            _ => Replayed::NotFound,
        })
    }

    /// Takes what is due; nobody else gets it for so many seconds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_deliveries(&self, limit: u32, hide: u32, now: Timestamp) -> Result<Vec<Due>, StoreError> {
        #[derive(Serialize)]
        struct Arg {
            limit: u32,
            hide: u32,
            now: Timestamp,
        }
        #[derive(Deserialize)]
        struct Answer {
            deliveries: Vec<Due>,
        }
        self.call(tenant_statement!("webhook_take"), &Arg { limit, hide, now }).await.map(|Answer { deliveries }| deliveries)
    }

    /// Says what became of a try. False when somebody else has taken it meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delivered(&self, delivered: &Delivered) -> Result<bool, StoreError> {
        let Outcome { outcome } = self.call(tenant_statement!("webhook_done"), delivered).await?;
        Ok(outcome == "ok")
    }
}
