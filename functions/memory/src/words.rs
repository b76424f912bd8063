//! Search by words in Typesense, where the deployment has one, and how what has changed is brought to it.
//!
//! 1. A search asks Postgres (by meaning) and Typesense (by words) at the same time. Typesense names ids; what is shown of them is read from Postgres, which decides who may see it:
//!    an index that is wrong or behind shows nothing that may not be seen.
//! 2. When Typesense fails, or is late, or has not all of the workspace yet, Postgres searches the words as well. The answer says so when Typesense should have answered.
//! 3. What has changed is written down by Postgres with the change (`migrations/0038`). A job of the workspace brings it over, in order, and makes, moves and makes anew the whole index.
//!    It sends what is there when it sends: doing it twice ends the same. A job that is Typesense's fault to fail is tried again for as long as it takes.
//! 4. Nothing of a workspace is in Typesense before its first search there.

use crate::work::{LEASE_SECONDS, Undone};
use astra_host::stream::TurnHost;
use astra_host::{Allowed, Failure, Host};
use astra_kernel::{ConfigError, Problem, WorkspaceId};
use astra_store::jobs::Lease;
use astra_store::memory::{Recalled, Search, Source};
use astra_store::words::{Asking, Change, Changed, Done, Indexed, Opening, Refused, Step, Text};
use astra_store::{Operator, StoreError, Tenant};
use astra_typesense::{Client, Entry, Filter, IndexError, Outcome, Source as Kind, Typesense};
use futures_util::future::join;
use serde::Serialize;
use std::collections::BTreeSet;
use uuid::Uuid;

/// How long a search waits for Typesense, in milliseconds.
const SEARCH_MILLIS: u32 = 500;

/// How many changes, or texts, go over at a time: 64 pieces of a document are about 256 KB.
const BATCH: u32 = 64;

/// How many steps a job goes before it lets other workspaces' jobs go first.
const STEPS: usize = 50;

/// How long a job waits after the first try that failed, in milliseconds; twice as long after each further one, up to [`LONGEST_PAUSE`].
const PAUSE_MILLIS: i64 = 2_000;

/// In milliseconds.
const LONGEST_PAUSE: i64 = 60_000;

/// How a leg of a search answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Leg {
    /// As it should.
    Ok,
    /// Not at all.
    Failed,
    /// Not in time.
    Late,
}

/// The deployment's Typesense, if it has one.
pub(crate) fn typesense<H: Host>(host: &H) -> Result<Option<Typesense>, ConfigError> {
    Typesense::read(|name| host.shared().setting(name))
}

/// Checks how it is set.
///
/// # Errors
/// Names the variable.
pub fn check(shared: &astra_host::Shared) -> Result<(), ConfigError> {
    Typesense::read(|name| shared.setting(name)).map(drop)
}

/// What both legs found, and how Typesense answered.
pub(crate) async fn recall<H: TurnHost>(
    host: &H,
    typesense: &Typesense,
    allowed: &Allowed<'_, H>,
    search: &Search<'_>,
    what: Source,
) -> Result<(Recalled, Leg), Failure> {
    let unknown = || Problem::not_found("workspace");
    let data = &allowed.data;
    let kind = match what {
        Source::Memories => Kind::Memory,
        Source::Documents => Kind::Document,
    };
    // Without words Postgres searches by meaning only.
    let by_meaning = Search { query: "", ..*search };
    let who = (data.workspace(), search.subject);
    let by_words = astra_typesense::search(host, typesense.searches(), who, Some(kind), search.query, search.limit, SEARCH_MILLIS);
    let (found, named) = join(data.search_indexed(&by_meaning), by_words).await;
    let Indexed { mut recalled, indexed } = found?.ok_or_else(unknown)?;
    let named = match named {
        Ok(named) if indexed => named,
        other => {
            let leg = match other {
                // Nobody knows yet what it lacks: Postgres is whole.
                _ if !indexed => Leg::Ok,
                Err(IndexError::Late) => Leg::Late,
                _ => Leg::Failed,
            };
            // What is not there is made: a workspace's first search, or a Typesense that was lost.
            if !indexed {
                make(host, data.workspace(), Opening::IfThereIsNone);
            } else if other == Err(IndexError::Missing) {
                make(host, data.workspace(), Opening::Lost);
            }
            return Ok((data.search(search).await?.ok_or_else(unknown)?, leg));
        }
    };
    let named: Vec<Uuid> = named.into_iter().map(|named| named.id).collect();
    let there: BTreeSet<Uuid> = recalled.found.iter().map(|entry| entry.id).collect();
    let unread: Vec<Uuid> = named.iter().copied().filter(|id| !there.contains(id)).collect();
    if !unread.is_empty() {
        recalled.found.extend(data.entries(search.subject, &[what], &unread).await?);
    }
    let seen: BTreeSet<Uuid> = recalled.found.iter().map(|entry| entry.id).collect();
    recalled.keyword = named.into_iter().filter(|id| seen.contains(id)).collect();
    Ok((recalled, Leg::Ok))
}

/// Has what has changed brought over, after the response. Without Typesense nothing is.
pub(crate) fn soon<H: TurnHost>(host: &H, workspace: &WorkspaceId) {
    if matches!(typesense(host), Ok(Some(_))) {
        crate::work::soon(host, workspace);
    }
}

/// Has a workspace's index made, after the response.
fn make<H: TurnHost>(host: &H, workspace: &WorkspaceId, opening: Opening<'static>) {
    let (own, workspace) = (host.clone(), workspace.clone());
    host.background(async move {
        // What comes to nothing is asked for again by the next search.
        if Tenant::open(&own, workspace.clone()).open_words(opening).await.is_ok() {
            crate::work::in_a_row(&own, &workspace).await;
        }
    });
}

/// What became of a step.
#[derive(Default)]
struct Made {
    done: Done,
    /// Of some of it nobody knows: it is to be done again, later.
    again: Option<IndexError>,
}

/// Brings over what has changed, and makes the index what it is to be.
pub(crate) async fn bring<H: TurnHost>(host: &H, tenant: &Tenant<'_, H>, lease: Lease, attempts: u32) -> Result<(), Undone> {
    let typesense = match typesense(host) {
        Ok(Some(typesense)) => typesense,
        Ok(None) => return if tenant.close_words(lease).await? { Ok(()) } else { Err(Undone::Lost) },
        Err(error) => return later(host, tenant, lease, attempts, &error.to_string()).await,
    };
    let client = Client::new(host, &typesense);
    let (mut target, mut made) = (None, None::<Made>);
    for left in (0..=STEPS).rev() {
        let now = host.now();
        let asking = Asking {
            lease,
            leased_until: now.plus_millis(i64::from(LEASE_SECONDS) * 1000),
            now,
            limit: BATCH,
            target: target.as_deref(),
            done: made.as_ref().map(|made| &made.done),
        };
        let step = tenant.words_step(&asking).await?.ok_or(Undone::Lost)?;
        if let Some(Made { again: Some(error), .. }) = made {
            return later(host, tenant, lease, attempts, &error.to_string()).await;
        }
        match step {
            Step::None => return Ok(()),
            // The others' turn; this one goes on after them.
            _ if left == 0 => break,
            Step::Target { layout } => {
                target = Some(typesense.collection(tenant.workspace(), layout.and_then(|layout| layout.parse().ok())));
                made = None;
            }
            step => match take(&client, tenant.workspace(), step).await {
                Ok(all) => made = Some(all),
                // A collection that is there no more: somebody's hand, or another Typesense. All of it is made again.
                Err(IndexError::Missing) => {
                    made = Some(Made { done: Done { step: Some("lost"), ..Done::default() }, again: Some(IndexError::Missing) });
                }
                Err(error) => return later(host, tenant, lease, attempts, &error.to_string()).await,
            },
        }
    }
    if tenant.words_later(lease, None, host.now()).await? { Ok(()) } else { Err(Undone::Lost) }
}

/// It is tried again, however often that was.
async fn later<H: TurnHost>(host: &H, tenant: &Tenant<'_, H>, lease: Lease, attempts: u32, error: &str) -> Result<(), Undone> {
    let pause = (PAUSE_MILLIS << (attempts.clamp(1, 8) - 1)).min(LONGEST_PAUSE);
    if tenant.words_later(lease, Some(error), host.now().plus_millis(pause)).await? { Ok(()) } else { Err(Undone::Lost) }
}

/// Does a step.
async fn take<H: TurnHost>(client: &Client<'_, H>, workspace: &WorkspaceId, step: Step) -> Result<Made, IndexError> {
    let all = |done| Made { done, again: None };
    match step {
        Step::Target { .. } | Step::None => Ok(Made::default()),
        Step::Write { into, changes, texts, epoch } => write(client, workspace, &into, &changes, &texts, epoch).await,
        Step::Create { collection } => {
            client.create_collection(&collection).await?;
            Ok(all(Done { position: Some(String::new()), ..Done::default() }))
        }
        Step::Fill { into, texts, position, epoch } => {
            let outcomes = client.import(&into, workspace, &entries(&texts, epoch)).await?;
            if outcomes.contains(&Outcome::Unknown) {
                return Err(IndexError::Garbage);
            }
            // What is refused is not lost: it is a change that is tried again.
            let refused = texts.iter().zip(outcomes).filter(|(_, outcome)| *outcome == Outcome::Refused).map(|(text, _)| Refused {
                seq: None,
                kind: if text.document_id.is_some() { "chunk" } else { "memory" },
                id: text.id,
            });
            Ok(all(Done { refused: refused.collect(), position: Some(position), ..Done::default() }))
        }
        Step::Switch { collection, epoch } => {
            client.delete(&collection, &Filter::of(workspace).before(epoch)).await?;
            client.show(workspace, &collection).await?;
            Ok(all(Done { step: Some("switch"), ..Done::default() }))
        }
        Step::Retire { collection } => {
            client.clear(workspace, &collection).await?;
            Ok(all(Done { step: Some("retire"), ..Done::default() }))
        }
    }
}

fn entries(texts: &[Text], epoch: i64) -> Vec<Entry<'_>> {
    texts
        .iter()
        .map(|Text { id, user_id, document_id, heading, content }| Entry {
            id: *id,
            user: user_id.as_deref(),
            document: *document_id,
            heading,
            content,
            epoch,
        })
        .collect()
}

/// Writes what is there and removes what is not.
async fn write<H: TurnHost>(
    client: &Client<'_, H>,
    workspace: &WorkspaceId,
    into: &[String],
    changes: &[Change],
    texts: &[Text],
    epoch: i64,
) -> Result<Made, IndexError> {
    let there: BTreeSet<Uuid> = texts.iter().map(|text| text.id).collect();
    let of = |kind: Changed| changes.iter().filter(move |change| change.kind == kind).map(|change| change.id);
    let gone: Vec<Uuid> = of(Changed::Memory).chain(of(Changed::Chunk)).filter(|id| !there.contains(id)).collect();
    let versions: Vec<Uuid> = of(Changed::Document).collect();
    let (mut refused, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for collection in into {
        // What is gone goes first, whatever becomes of the rest.
        if !gone.is_empty() {
            client.delete(collection, &Filter::of(workspace).with_ids(&gone)).await?;
        }
        if !versions.is_empty() {
            client.delete(collection, &Filter::of(workspace).of_documents(&versions)).await?;
        }
        for (text, outcome) in texts.iter().zip(client.import(collection, workspace, &entries(texts, epoch)).await?) {
            match outcome {
                Outcome::Written => {}
                Outcome::Refused => drop(refused.insert(text.id)),
                Outcome::Unknown => drop(unknown.insert(text.id)),
            }
        }
    }
    let mut done = Done::default();
    for change in changes {
        if refused.contains(&change.id) {
            let kind = if change.kind == Changed::Memory { "memory" } else { "chunk" };
            done.refused.push(Refused { seq: Some(change.seq), kind, id: change.id });
        } else if !unknown.contains(&change.id) {
            done.seqs.push(change.seq);
        }
    }
    Ok(Made { done, again: (!unknown.is_empty()).then_some(IndexError::Garbage) })
}

/// Removes what workspaces and indexes that are gone have left behind in Typesense.
pub(crate) async fn clear<H: TurnHost>(host: &H, workspaces: u32) -> Result<(), StoreError> {
    let Ok(Some(typesense)) = typesense(host) else { return Ok(()) };
    let client = Client::new(host, &typesense);
    for workspace in Operator::open(host).words_leftovers(host.now(), workspaces).await? {
        let tenant = Tenant::open(host, workspace.clone());
        for collection in tenant.words_left(host.now()).await? {
            // What is away is cleared when it is back.
            if client.hide(&workspace).await.is_ok() && client.clear(&workspace, &collection).await.is_ok() {
                tenant.words_cleared(&collection, host.now()).await?;
            }
        }
    }
    Ok(())
}
