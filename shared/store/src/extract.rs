//! What a job needs that makes memories of a conversation, and what it leaves.

use crate::documents::Step;
use crate::jobs::Lease;
use crate::{Database, Outcome, StoreError, Tenant, parse, tenant_statement};
use astra_kernel::{Access, AgentId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A model by provider and id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// The provider.
    pub provider: String,
    /// Its id there.
    pub model_id: String,
}

/// What to read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading<'a> {
    /// For which job.
    #[serde(flatten)]
    pub lease: Lease,
    /// The host's clock.
    pub now: Timestamp,
    /// Providers for which the deployment has a key.
    pub host_providers: &'a [String],
    /// The model for agents whose provider has no key.
    pub default_model: Option<Model>,
    /// How many bytes of a conversation at most, if that is a turn at least.
    pub bytes: usize,
    /// How many messages from before, which were read already.
    pub before: u32,
}

/// What was said since a conversation was read last, and by whose leave it is remembered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conversation {
    /// Which.
    pub session_id: SessionId,
    /// With which agent.
    pub agent_id: AgentId,
    /// Whose.
    pub subject: String,
    /// How the plan wants it; none: as the deployment does.
    pub extraction: Option<String>,
    /// The model that the plan wants; none: the agent's.
    pub model: Option<Model>,
    /// The provider of the model that it will be; none: not known here.
    pub provider: Option<String>,
    /// What the person may; none: they are no member.
    pub access: Option<Access>,
    /// What was said, the oldest first.
    pub messages: Vec<Spoken>,
}

/// A message. Its `Debug` shows its size, never its text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spoken {
    /// `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
    /// Whether it was not read before.
    pub is_new: bool,
}

impl std::fmt::Debug for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({} bytes)", self.role, self.content.len())
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").field("session_id", &self.session_id).field("messages", &self.messages).finish_non_exhaustive()
    }
}

/// What became of a reading.
#[derive(Debug)]
pub enum Read {
    /// This is to be read.
    Conversation(Box<Conversation>),
    /// Another job of the same conversation is at work.
    Busy,
    /// Somebody else has the job, or the conversation is gone and the job with it.
    Lost,
}

/// A memory that may be near to known ones.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// Its embedding, in pgvector's text form.
    pub embedding: String,
    /// The embedding of what it says that it replaces.
    pub replaces: Option<String>,
    /// Whether it is the person's own.
    pub personal: bool,
}

/// A known memory of the same people.
#[derive(Deserialize)]
pub struct Near {
    /// Its id.
    pub id: Uuid,
    /// Its kind.
    pub kind: String,
    /// What it says.
    pub content: String,
    /// How near.
    pub score: f64,
}

/// A memory to keep.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept<'a> {
    /// Its id.
    pub id: Uuid,
    /// Its kind.
    pub kind: &'a str,
    /// What it says.
    pub content: &'a str,
    /// Its embedding.
    pub embedding: &'a str,
    /// The content's hash.
    pub hash: String,
    /// Whether it is the person's own; else the workspace's.
    pub personal: bool,
    /// The known one that it takes the place of.
    pub supersedes: Option<Uuid>,
}

/// What a job leaves.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Extraction<'a> {
    /// Which job.
    #[serde(flatten)]
    pub lease: Lease,
    /// The host's clock.
    pub now: Timestamp,
    /// Whose conversation it was.
    pub subject: &'a str,
    /// What was known already and said again.
    pub known: &'a [Uuid],
    /// What is new.
    pub memories: &'a [Kept<'a>],
    /// For which of the workspace's embedders it was embedded; none: by the local one.
    pub generation: Option<i32>,
}

impl<D: Database> Tenant<'_, D> {
    /// What an extraction is to read. The range stays the job's, however often it is tried.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_conversation(&self, reading: &Reading<'_>) -> Result<Read, StoreError> {
        const STATEMENT: &str = tenant_statement!("extract_read");
        let arg = serde_json::to_string(reading).map_err(|_| StoreError::Shape(STATEMENT))?;
        let answer = self.call_text(STATEMENT, &arg).await?;
        let Outcome { outcome } = parse(STATEMENT, &answer)?;
        match outcome.as_str() {
            "ok" => parse(STATEMENT, &answer).map(|conversation| Read::Conversation(Box::new(conversation))),
            "busy" => Ok(Read::Busy),
            _ => Ok(Read::Lost),
        }
    }

    /// The known memories nearest to each of these, of the same people, but for those that somebody has pinned.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn near_memories(&self, subject: &str, wanted: &[Wanted], limit: u32) -> Result<Vec<Vec<Near>>, StoreError> {
        #[derive(Serialize)]
        struct Argument<'a> {
            subject: &'a str,
            wanted: &'a [Wanted],
            limit: u32,
        }
        #[derive(Deserialize)]
        struct Answer {
            data: Vec<Vec<Near>>,
        }
        self.call(tenant_statement!("extract_near"), &Argument { subject, wanted, limit }).await.map(|Answer { data }| data)
    }

    /// Keeps what was extracted and ends the job, in one transaction. Lost when somebody else has it, or the conversation is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn store_extraction(&self, extraction: &Extraction<'_>) -> Result<Step, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            outcome: Step,
        }
        self.call(tenant_statement!("extract_store"), extraction).await.map(|Answer { outcome }| outcome)
    }
}
