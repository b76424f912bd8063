//! Documents: kept as they were sent, split by a job, searched by pieces.

use crate::forms;
use crate::search::{Hits, SearchBody};
use crate::upload::{Rest, Upload};
use crate::{words, work};
use astra_host::fields::{Text, WorkspacePath};
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::stream::TurnHost;
use astra_host::{Call, Failure};
use astra_kernel::{Code, Permission, Problem, Timestamp};
use astra_memory::pdf;
use astra_store::documents::{Document, DocumentList, NewDocument, NewPart, TooLate};
use astra_store::memory::{Put, Source};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The largest document: 20 MiB.
pub(crate) const LARGEST: usize = 20 << 20;

/// What a document may be.
pub(crate) const MEDIA_TYPES: [&str; 4] = ["text/markdown", "text/plain", "text/html", pdf::MEDIA_TYPE];

/// A version of a document.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Document)]
pub(crate) struct DocumentView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// The document.
    slug: String,
    /// From 1.
    version: i32,
    /// Its title.
    title: String,
    /// What it is.
    media_type: String,
    /// Its tags.
    tags: Vec<String>,
    /// How many bytes were sent.
    bytes: i64,
    /// `pending`, `ready` or `failed`.
    status: String,
    /// Why it failed.
    error: Option<String>,
    /// How many of its pieces are there.
    chunks: i64,
    /// Of how many; null before that is known.
    total_chunks: Option<i64>,
    /// Whether it is this version that is searched.
    is_current: bool,
    /// Who sent it.
    created_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Since when it is searched.
    #[schema(value_type = Option<String>, format = DateTime)]
    ready_at: Option<Timestamp>,
}

impl From<Document> for DocumentView {
    fn from(document: Document) -> Self {
        let Document {
            id,
            slug,
            version,
            title,
            media_type,
            tags,
            bytes,
            status,
            error,
            chunks,
            total_chunks,
            is_current,
            created_by,
            created_at,
            ready_at,
        } = document;
        Self {
            id,
            slug,
            version,
            title,
            media_type,
            tags,
            bytes,
            status,
            error,
            chunks,
            total_chunks,
            is_current,
            created_by,
            created_at,
            ready_at,
        }
    }
}

/// What went with a document.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RemovedDocument)]
pub(crate) struct Removed {
    /// How many versions.
    versions: i64,
    /// How many pieces.
    chunks: i64,
}

/// A document's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct DocumentPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The document's name.
    #[param(min_length = 1, max_length = 128, pattern = "^[a-z0-9][a-z0-9._-]*$")]
    slug: String,
}

/// A file that is no text.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "for the description only")]
struct File(Vec<u8>);

/// What is said of a document beside its body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UploadQuery {
    title: Option<Text>,
    tags: Option<String>,
}

/// Which page of which documents.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    tag: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

/// Keeps a document as a new version, 20 MiB at most. It is searched as soon as its status is `ready`, and the version before until then. The same content again makes no new
/// version.
#[utoipa::path(
    put, path = "/workspaces/{workspaceId}/documents/{slug}", tag = "memory", operation_id = "uploadDocument",
    params(
        DocumentPath,
        ("title" = Option<String>, Query, description = "Its title; its name unless told", min_length = 1, max_length = 200),
        ("tags" = Option<String>, Query, description = "Tags, commas between them", max_length = 1100),
    ),
    request_body(content((String = "text/markdown"), (String = "text/plain"), (String = "text/html"), (inline(File) = "application/pdf"))),
    responses(
        (status = 202, description = "It is kept, and is being split", body = DocumentView),
        (status = 200, description = "The newest version has this content", body = DocumentView),
    ),
)]
pub(crate) async fn upload<H: TurnHost>(call: Call<H>, Params(path): Params<DocumentPath>, request: Unread) -> Result<Response, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryWrite).await?;
    let slug = forms::slug("slug", path.slug)?;
    let UploadQuery { title, tags } = request.query()?;
    let tags = forms::tags("tags", tags.as_deref())?;
    let media_type = request.media_type(&MEDIA_TYPES)?;
    let gone = || Problem::not_found("workspace");
    let (id, mut body, mut upload) = (call.host.new_id(), request.parts(LARGEST), Upload::new(media_type));
    while let Some(bytes) = body.next().await? {
        upload.push(&bytes);
        while let Some((part, body)) = upload.part()? {
            let part = NewPart { document_id: id, part, body: &body, now: call.host.now() };
            allowed.data.put_document_part(&part).await?.ok_or_else(gone)?;
        }
    }
    let Rest { body, hash, bytes, parts } = upload.finish()?;
    let document = NewDocument {
        id,
        slug: &slug,
        title: title.as_ref().map_or(&slug, Text::as_str),
        media_type,
        tags: &tags,
        hash: &hash,
        bytes,
        parts,
        body: &body,
        created_by: &allowed.claims.sub,
        job_id: call.host.new_id(),
        now: call.host.now(),
    };
    let (status, document) = match allowed.data.put_document(&document).await?.ok_or_else(gone)? {
        Ok(Put::Created(document)) => {
            work::soon(&call.host, allowed.data.workspace());
            (StatusCode::ACCEPTED, document)
        }
        Ok(Put::Known(document)) => (StatusCode::OK, document),
        Err(TooLate) => return Err(Problem::new(Code::BadRequest, "The upload took more than an hour. Send it again.").into()),
    };
    Ok((status, Json(DocumentView::from(document))).into_response())
}

/// One page of the workspace's documents: the newest version of each.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/documents", tag = "memory", operation_id = "listDocuments",
    params(
        WorkspacePath,
        ("tag" = Option<String>, Query, description = "Only those with this tag", min_length = 1, max_length = 64),
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", min_length = 1, max_length = 128),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Documents by name", body = PageBody<DocumentView>)),
)]
pub(crate) async fn list<H: TurnHost>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<DocumentView>>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryRead).await?;
    let ListQuery { tag, after, limit } = request.query()?;
    let limit = PageQuery { after: None, limit }.limit()?;
    let after = after.map(|after| forms::slug("after", after)).transpose()?;
    let tag = tag.map(|tag| forms::slug("tag", tag)).transpose()?;
    let list = DocumentList { tag: tag.as_deref(), after: after.as_deref(), limit, ..DocumentList::default() };
    let page = allowed.data.list_documents(&list).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody::from_page(page, DocumentView::from)))
}

/// A document's versions, newest first, 200 at most.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/documents/{slug}", tag = "memory", operation_id = "readDocument", params(DocumentPath),
    responses((status = 200, description = "Its versions", body = PageBody<DocumentView>)),
)]
pub(crate) async fn versions<H: TurnHost>(
    call: Call<H>,
    Params(path): Params<DocumentPath>,
) -> Result<Json<PageBody<DocumentView>>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryRead).await?;
    let slug = forms::slug("slug", path.slug)?;
    let list = DocumentList { slug: Some(&slug), limit: 200, ..DocumentList::default() };
    let page = allowed.data.list_documents(&list).await?.filter(|page| !page.data.is_empty()).ok_or_else(unknown)?;
    Ok(Json(PageBody::from_page(page, DocumentView::from)))
}

fn unknown() -> Problem {
    Problem::not_found("document")
}

/// Removes a document with all its versions.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/documents/{slug}", tag = "memory", operation_id = "deleteDocument", params(DocumentPath),
    responses((status = 200, description = "What was removed", body = Removed)),
)]
pub(crate) async fn delete<H: TurnHost>(call: Call<H>, Params(path): Params<DocumentPath>) -> Result<Json<Removed>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryWrite).await?;
    let slug = forms::slug("slug", path.slug)?;
    let removed = allowed.data.remove_document(&slug).await?.ok_or_else(unknown)?;
    words::soon(&call.host, allowed.data.workspace());
    Ok(Json(Removed { versions: removed.versions, chunks: removed.chunks }))
}

/// Searches the workspace's documents, by meaning and by words. What was found says where it stands.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/documents/search", tag = "memory", operation_id = "searchDocuments", params(WorkspacePath),
    request_body = SearchBody,
    responses((status = 200, description = "Pieces of documents, the best first", body = Hits)),
)]
pub(crate) async fn search<H: TurnHost>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<Hits>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryRead).await?;
    let body: SearchBody = request.json().await?;
    body.run(&call.host, &allowed, Source::Documents).await.map(Json)
}
