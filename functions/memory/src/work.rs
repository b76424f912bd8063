//! Jobs of the memory: what is done after the answer. One makes a document searchable, one makes memories of a conversation ([`mod@crate::extract`]), one has the vectors of a table
//! indexed when it has become large, one embeds all once more, one brings what has changed to the index of words ([`mod@crate::words`]).
//!
//! 1. A job is taken for a minute, which each step renews. Whoever takes it while another still has it gets nothing; whose minute is over finds, at the next step, that it is somebody
//!    else's, and stops. What a step writes and its lease are one transaction.
//! 2. A document's pieces are taken, embedded and written some at a time, in their order. Splitting is deterministic: who takes over goes on with the first piece that is missing.
//! 3. What fails is tried again after 5, 10, 20 … seconds, eight times in a row without a step forward; then it is dead, and the operator lists and replays it. What can never do better
//!    (a document that cannot be read) is dead at once.
//!
//! A job begins right after the request that makes it. What is left behind (a process that ended) is found by [`due`], which each host calls again and again: one job of each workspace
//! at a time, so that no workspace's many jobs delay another's few.

use crate::extract::extract;
use crate::pieces::Source;
use crate::words;
use astra_host::embedder::{self, NotEmbedded, embed};
use astra_host::stream::TurnHost;
use astra_host::uses::NotHeld;
use astra_kernel::{Timestamp, WorkspaceId};
use astra_memory::split::Chunk;
use astra_store::documents::{NewChunk, NewChunks, Piece, Step};
use astra_store::jobs::{Job, Lease, Taking, Work};
use astra_store::memory::{Embedded, Embedder, ToEmbed};
use astra_store::{Operator, StoreError, Tenant};
use futures_util::future::join_all;
use uuid::Uuid;

/// How long a job is one's own without a step, in seconds.
pub(crate) const LEASE_SECONDS: u32 = 60;

/// After so many tries without a step forward a job is dead.
const ATTEMPTS: u32 = 8;

/// How long it waits after the first try that failed, in milliseconds; twice as long after each further one.
const PAUSE_MILLIS: i64 = 5_000;

/// How long the call for a batch may take, in milliseconds: less than the job's lease.
const BATCH_MILLIS: u32 = 40_000;

/// How many pieces are written at a time.
const BATCH: usize = 64;

/// How many jobs follow each other after one request: what is left is found by [`due`].
const IN_A_ROW: usize = 20;

/// How many workspaces a round looks at.
const WORKSPACES: u32 = 100;

/// Of how many workspaces a job each is done at once.
const AT_ONCE: usize = 8;

/// Why a job was not done.
pub(crate) enum Undone {
    /// It may do better later.
    Later(String),
    /// Not before then, by no fault of its own: a budget is full. The try does not count.
    Wait(String, Timestamp),
    /// It never will.
    Never(String),
    /// Somebody else has it now, or nothing is left to do.
    Lost,
}

impl Undone {
    pub(crate) fn stale() -> Self {
        Self::Later("The workspace's embedder was changed meanwhile.".to_owned())
    }
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<NotEmbedded> for Undone {
    fn from(error: NotEmbedded) -> Self {
        match error {
            NotEmbedded::NotHeld(not_held) => not_held.into(),
            NotEmbedded::Model(_) | NotEmbedded::Late => Self::Later(error.to_string()),
        }
    }
}

impl From<NotHeld> for Undone {
    fn from(not_held: NotHeld) -> Self {
        match not_held {
            NotHeld::Full { again_at, .. } => Self::Wait(not_held.to_string(), again_at),
            // As things are: a price or a key may be set meanwhile.
            NotHeld::Denied(_) | NotHeld::Known | NotHeld::Away(_) | NotHeld::Fault(_) => Self::Later(not_held.to_string()),
        }
    }
}

/// Has a workspace's jobs done after the response.
pub(crate) fn soon<H: TurnHost>(host: &H, workspace: &WorkspaceId) {
    let (own, workspace) = (host.clone(), workspace.clone());
    host.background(async move { in_a_row(&own, &workspace).await });
}

/// Does a workspace's jobs, some of them.
pub(crate) async fn in_a_row<H: TurnHost>(host: &H, workspace: &WorkspaceId) {
    for _ in 0..IN_A_ROW {
        match one(host, workspace).await {
            Ok(true) => {}
            // What is left is found by `due`.
            Ok(false) | Err(_) => break,
        }
    }
}

/// Does jobs until there is none, or until a time if one is said. How many were taken.
///
/// # Errors
/// [`StoreError`] when the database cannot say which there are.
pub async fn due<H: TurnHost>(host: &H, until: Option<Timestamp>) -> Result<usize, StoreError> {
    let mut taken = 0;
    words::clear(host, WORKSPACES).await?;
    loop {
        match round(host, until).await? {
            0 => return Ok(taken),
            more => taken += more,
        }
    }
}

/// Does one job of each workspace that has one, the one first that has waited longest. How many were taken.
///
/// # Errors
/// [`StoreError`] when the database cannot say which there are.
pub async fn round<H: TurnHost>(host: &H, until: Option<Timestamp>) -> Result<usize, StoreError> {
    let mut taken = 0;
    for workspaces in Operator::open(host).jobs_due(host.now(), WORKSPACES).await?.chunks(AT_ONCE) {
        if until.is_some_and(|until| until <= host.now()) {
            break;
        }
        // One workspace's fault is no other's, and its model's slowness only that of those few beside it.
        let done = join_all(workspaces.iter().map(|workspace| one(host, workspace))).await;
        taken += done.into_iter().filter(|done| matches!(done, Ok(true))).count();
    }
    Ok(taken)
}

/// How long a run of a schedule begins further jobs, in milliseconds: the next comes within a minute.
pub const RUN_MILLIS: i64 = 50_000;

/// Takes and does one job. False when there is none.
async fn one<H: TurnHost>(host: &H, workspace: &WorkspaceId) -> Result<bool, StoreError> {
    let tenant = Tenant::open(host, workspace.clone());
    let lease = host.new_id();
    let Some(Job { id, work, attempts }) =
        tenant.take_job(Taking { lease, now: host.now(), seconds: LEASE_SECONDS, attempts: ATTEMPTS }).await?
    else {
        return Ok(false);
    };
    let lease = Lease { job_id: id, lease };
    let done = match work {
        Work::Ingest { document_id } => ingest(host, &tenant, lease, attempts, document_id).await,
        Work::Reembed {} => reembed(host, &tenant, lease).await,
        Work::Extract {} => extract(host, &tenant, lease, attempts).await,
        Work::Index { table } => tenant.build_index(lease, &table).await.map(drop).map_err(Undone::from),
        Work::Words {} => words::bring(host, &tenant, lease, attempts).await,
    };
    let now = host.now();
    let kept = match done {
        Ok(()) | Err(Undone::Lost) => return Ok(true),
        Err(Undone::Wait(why, until)) => tenant.wait_job(lease, &why, until).await,
        Err(Undone::Never(why)) => tenant.fail_job(lease, &why, None, now).await,
        Err(Undone::Later(error)) => {
            let again = (attempts < ATTEMPTS).then(|| now.plus_millis(PAUSE_MILLIS << (attempts.clamp(1, 8) - 1)));
            tenant.fail_job(lease, &error, again, now).await
        }
    };
    // If that is not taken either, the lease ends by itself.
    if kept.is_err() {
        host.log(r#"{"event":"job","error":"a failure was not written down"}"#);
    }
    Ok(true)
}

/// Makes a document searchable.
async fn ingest<H: TurnHost>(host: &H, tenant: &Tenant<'_, H>, lease: Lease, attempts: u32, document_id: Uuid) -> Result<(), Undone> {
    let document = tenant.read_document(lease, document_id).await?.ok_or(Undone::Lost)?;
    let source = Source { host, tenant, lease, document_id, parts: document.parts };
    let (total, mut pieces) = source.pieces(&document, attempts).await?;
    if total == 0 {
        return Err(Undone::Never("There is no text in the document.".to_owned()));
    }
    source.skip(&mut pieces, document.chunks).await?;
    let embedder = &document.embedder;
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH
            && let Some(piece) = source.take(&mut pieces).await?
        {
            batch.push((piece.path(), piece));
        }
        let vectors = vectors(host, tenant, embedder, &document.created_by, &batch).await?;
        let chunks: Vec<NewChunk<'_>> = batch
            .iter()
            .zip(vectors)
            .map(|((heading, piece), embedding)| NewChunk {
                id: host.new_id(),
                position: piece.position,
                heading,
                content: &piece.text,
                embedding,
            })
            .collect();
        let now = host.now();
        let leased_until = now.plus_millis(i64::from(LEASE_SECONDS) * 1000);
        let step = NewChunks { lease, document_id, total, chunks: &chunks, generation: embedder::generation(embedder), leased_until, now };
        match tenant.add_chunks(&step).await? {
            Step::Ok if chunks.is_empty() => return Err(Undone::Later("Some of its pieces are gone.".to_owned())),
            Step::Ok => {}
            Step::Done => return Ok(()),
            Step::Lost => return Err(Undone::Lost),
            Step::Stale => return Err(Undone::stale()),
        }
    }
}

/// Pieces, each with its headings, as vectors. What a provider has embedded before is not asked for again.
async fn vectors<H: TurnHost>(
    host: &H,
    tenant: &Tenant<'_, H>,
    embedder: &Embedder,
    subject: &str,
    batch: &[(String, Chunk)],
) -> Result<Vec<String>, Undone> {
    let mut known = vec![None; batch.len()];
    if embedder.model.is_some() {
        let pieces: Vec<Piece<'_>> = batch.iter().map(|(heading, piece)| Piece { heading, content: &piece.text }).collect();
        known = tenant.known_vectors(embedder::generation(embedder), &pieces).await?;
        known.resize(batch.len(), None);
    }
    let texts: Vec<String> =
        batch.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|((_, piece), _)| piece.to_embed()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut new = embed(host, tenant.workspace(), embedder, subject, &texts, BATCH_MILLIS).await?.into_iter();
    Ok(known.into_iter().filter_map(|known| known.or_else(|| new.next())).collect())
}

/// Embeds all once more, by the embedder to come, which takes the other's place when nothing is left. Who takes over goes on with what is left.
async fn reembed<H: TurnHost>(host: &H, tenant: &Tenant<'_, H>, lease: Lease) -> Result<(), Undone> {
    loop {
        let ToEmbed { embedder, rows } = tenant.read_to_embed(lease, BATCH).await?.ok_or(Undone::Lost)?;
        if rows.is_empty() {
            match tenant.switch_embedder(lease, host.now()).await? {
                Step::Done => return Ok(()),
                // Somebody has written more meanwhile.
                Step::Ok | Step::Stale => continue,
                Step::Lost => return Err(Undone::Lost),
            }
        }
        let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
        let vectors = embed(host, tenant.workspace(), &embedder, "(embedder)", &texts, BATCH_MILLIS).await?;
        let embedded: Vec<Embedded<'_>> =
            rows.iter().zip(&vectors).map(|(row, embedding)| Embedded { table: &row.table, id: row.id, embedding }).collect();
        let leased_until = host.now().plus_millis(i64::from(LEASE_SECONDS) * 1000);
        if !tenant.keep_embedded(lease, &embedded, leased_until).await? {
            return Err(Undone::Lost);
        }
    }
}
