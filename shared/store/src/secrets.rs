//! Secrets of a workspace, encrypted before they come here. What is listed are names and times.

use crate::{Database, Listed, Page, PageArg, StoreError, Tenant, tenant_statement};
use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};

/// A secret as it may be shown.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretInfo {
    /// Its name, such as `OPENAI_API_KEY`.
    pub name: String,
    /// When it was first set.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last set.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// A value under the host's key. Both texts are standard base64.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedSecret {
    /// Its name.
    pub name: String,
    /// Which key of `SECRETS_KEY` sealed it.
    pub key_id: String,
    /// The nonce, 12 bytes.
    pub nonce: String,
    /// Ciphertext and tag.
    pub ciphertext: String,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    outcome: String,
    secret: Option<SecretInfo>,
}

impl<D: Database> Tenant<'_, D> {
    /// Sets a secret. False when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_secret(&self, sealed: &SealedSecret, now: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        struct Arg<'a> {
            #[serde(flatten)]
            sealed: &'a SealedSecret,
            now: Timestamp,
        }
        let answer: Answer = self.call(tenant_statement!("secret_put"), &Arg { sealed, now }).await?;
        Ok(answer.outcome == "ok")
    }

    /// A secret's name and times, if it is set.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_secret_info(&self, name: &str) -> Result<Option<SecretInfo>, StoreError> {
        let answer: Answer = self.call(tenant_statement!("secret_get"), &Named { name }).await?;
        Ok(answer.secret)
    }

    /// Names and times, by name; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_secrets(&self, after: Option<&str>, limit: u32) -> Result<Option<Page<SecretInfo>>, StoreError> {
        self.call(tenant_statement!("secrets_list"), &PageArg { after, limit }).await.map(Listed::found)
    }

    /// Removes a secret. False when it was not set.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_secret(&self, name: &str) -> Result<bool, StoreError> {
        let answer: Answer = self.call(tenant_statement!("secret_delete"), &Named { name }).await?;
        Ok(answer.outcome == "ok")
    }
}
