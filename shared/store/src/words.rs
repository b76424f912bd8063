//! The index of words in Typesense: what it holds of a workspace, and what is still to be brought to it (`migrations/0038`).

use crate::jobs::Lease;
use crate::memory::{Found, Recalled, Search, Source};
use crate::{Database, Operator, Outcome, StoreError, Tenant, operator_statement, tenant_statement};
use astra_kernel::{Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How an index begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening<'a> {
    /// If the workspace has none.
    IfThereIsNone,
    /// What is searched is not there any more.
    Lost,
    /// It is made anew; what there is serves until then.
    Anew {
        /// In this layout from now on.
        layout: Option<&'a str>,
    },
}

impl Opening<'_> {
    /// As a turn has found it: there is none, or it is lost.
    pub fn for_turn(lost: bool) -> Self {
        if lost { Self::Lost } else { Self::IfThereIsNone }
    }
}

/// Whether a workspace has an index from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opened {
    /// It has.
    Ok,
    /// Not before what a workspace of this name has left behind is gone.
    Later,
    /// There is no such workspace.
    NotFound,
}

/// What a search found, and whether the workspace has an index that is complete.
#[derive(Debug, Clone, Deserialize)]
pub struct Indexed {
    /// What Postgres found.
    #[serde(flatten)]
    pub recalled: Recalled,
    /// Whether the index may be believed.
    pub indexed: bool,
}

/// What was done of a step, and what is asked.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asking<'a> {
    /// The job, and who has it.
    #[serde(flatten)]
    pub lease: Lease,
    /// Until when it is theirs from now on.
    pub leased_until: Timestamp,
    /// The host's clock.
    pub now: Timestamp,
    /// How much a step has at most.
    pub limit: u32,
    /// Where the workspace's documents belong, once that was asked for.
    pub target: Option<&'a str>,
    /// What was done.
    pub done: Option<&'a Done>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Changes that were brought over.
    pub seqs: Vec<i64>,
    /// What the index did not take.
    pub refused: Vec<Refused>,
    /// How far filling is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// `switch`, `retire`, or `lost`: a collection is not there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<&'static str>,
}

/// What the index did not take: a change, or what it was filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The change; none while filling.
    pub seq: Option<i64>,
    /// What.
    pub kind: &'static str,
    /// Which.
    pub id: Uuid,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Change {
    /// In which order.
    pub seq: i64,
    /// What.
    pub kind: Changed,
    /// Which.
    pub id: Uuid,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Changed {
    /// A memory.
    Memory,
    /// A piece of a document.
    Chunk,
    /// A version of a document that is searched no more: all its pieces.
    Document,
}

/// A text, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Text {
    /// The memory's or the piece's id.
    pub id: Uuid,
    /// Whose own it is.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The version of a document that it is a piece of.
    #[serde(default)]
    pub document_id: Option<Uuid>,
    /// Headings above it.
    pub heading: String,
    /// The text.
    pub content: String,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// Where should the index be? The layout that was set for this workspace, if one was.
    Target {
        /// The layout.
        layout: Option<String>,
    },
    /// Changes: those that have a text are written, others are removed.
    Write {
        /// To these collections.
        into: Vec<String>,
        /// The changes, in their order.
        changes: Vec<Change>,
        /// Texts that are there.
        texts: Vec<Text>,
        /// The epoch.
        epoch: i64,
    },
    /// A collection has to be there.
    Create {
        /// It.
        collection: String,
    },
    /// A page of what there is.
    Fill {
        /// To this collection.
        into: String,
        /// What there is.
        texts: Vec<Text>,
        /// How far it is with that.
        position: String,
        /// The epoch.
        epoch: i64,
    },
    /// All is there.
    Switch {
        /// In this collection.
        collection: String,
        /// What has a smaller one is a leftover.
        epoch: i64,
    },
    /// Nothing of the workspace's stays in a collection.
    Retire {
        /// It.
        collection: String,
    },
    /// Nothing.
    None,
}

/// How far the index is behind.
#[derive(Debug, Clone, Deserialize)]
pub struct Behind {
    /// Whether it is searched.
    pub ready: Option<bool>,
    /// Whether it is being made or moved.
    pub moving: Option<bool>,
    /// Changes that are not there yet.
    pub waiting: i64,
    /// Of those, refused before.
    pub refused: i64,
    /// Since when the oldest waits.
    pub oldest: Option<Timestamp>,
}

impl<D: Database> Operator<'_, D> {
    /// Workspaces of which something is left in an index.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn words_leftovers(&self, now: Timestamp, limit: u32) -> Result<Vec<WorkspaceId>, StoreError> {
        #[derive(Serialize)]
        struct Which {
            now: Timestamp,
            limit: u32,
        }
        #[derive(Deserialize)]
        struct Answer {
            workspaces: Vec<WorkspaceId>,
        }
        self.call(operator_statement!("op_words_leftovers"), &Which { now, limit }).await.map(|Answer { workspaces }| workspaces)
    }
}

impl<D: Database> Tenant<'_, D> {
    /// Searches, and says whether an index may be asked beside; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn search_indexed(&self, search: &Search<'_>) -> Result<Option<Indexed>, StoreError> {
        self.found(tenant_statement!("memory_search_indexed"), search).await
    }

    /// Of these, what is there and the subject may see.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn entries(&self, subject: &str, what: &[Source], ids: &[Uuid]) -> Result<Vec<Found>, StoreError> {
        #[derive(Serialize)]
        struct Which<'a> {
            subject: &'a str,
            what: &'a [Source],
            ids: &'a [Uuid],
        }
        #[derive(Deserialize)]
        struct Answer {
            found: Vec<Found>,
        }
        let found = self.found(tenant_statement!("memory_entries"), &Which { subject, what, ids }).await?;
        Ok(found.map(|Answer { found }| found).unwrap_or_default())
    }

    /// The workspace has an index from now on; as it is said, it is made anew.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_words(&self, opening: Opening<'_>) -> Result<Opened, StoreError> {
        #[derive(Serialize)]
        struct How<'a> {
            rebuild: bool,
            lost: bool,
            layout: Option<&'a str>,
        }
        #[derive(Deserialize)]
        struct Answer {
            outcome: Opened,
        }
        let how = match opening {
            Opening::IfThereIsNone => How { rebuild: false, lost: false, layout: None },
            Opening::Lost => How { rebuild: false, lost: true, layout: None },
            Opening::Anew { layout } => How { rebuild: true, lost: false, layout },
        };
        self.call(tenant_statement!("words_open"), &how).await.map(|Answer { outcome }| outcome)
    }

    /// The workspace has no index from now on, and the job is done. False when somebody else has the job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close_words(&self, lease: Lease) -> Result<bool, StoreError> {
        let Outcome { outcome } = self.call(tenant_statement!("words_close"), &lease).await?;
        Ok(outcome == "ok")
    }

    /// Says what was done and asks what is next; `None` when somebody else has the job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn words_step(&self, asking: &Asking<'_>) -> Result<Option<Step>, StoreError> {
        self.found(tenant_statement!("words_step"), asking).await
    }

    /// The index is away: the job waits. False when somebody else has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn words_later(&self, lease: Lease, error: Option<&str>, run_at: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Later<'a> {
            #[serde(flatten)]
            lease: Lease,
            error: Option<&'a str>,
            run_at: Timestamp,
        }
        let Outcome { outcome } = self.call(tenant_statement!("words_later"), &Later { lease, error, run_at }).await?;
        Ok(outcome == "ok")
    }

    /// How far the index is behind.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn words_status(&self) -> Result<Behind, StoreError> {
        self.call(tenant_statement!("words_status"), &crate::Nothing {}).await
    }

    /// Collections in which something is left of this workspace, or of one of its name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn words_left(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        #[derive(Serialize)]
        struct When {
            now: Timestamp,
        }
        #[derive(Deserialize)]
        struct Answer {
            collections: Vec<String>,
        }
        self.call(tenant_statement!("words_leftovers"), &When { now }).await.map(|Answer { collections }| collections)
    }

    /// Nothing is left in a collection.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn words_cleared(&self, collection: &str, now: Timestamp) -> Result<(), StoreError> {
        #[derive(Serialize)]
        struct Cleared<'a> {
            collection: &'a str,
            now: Timestamp,
        }
        self.call(tenant_statement!("words_cleared"), &Cleared { collection, now }).await.map(|Outcome { .. }| ())
    }
}
