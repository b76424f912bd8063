//! A stand-in for Typesense, whose server can be had from no registry: strict about what it is sent, with documents in memory, and with faults where a test wants them.
//!
//! What it does as Typesense does: keys (a scoped key's HMAC, and its filter joined by "and" to a search's own), aliases, an import that says of each line what became of it, deletion by filter,
//! strings that are compared as words (signs dropped, case ignored: typesense/typesense#1930), words with one letter changed where nothing has them as they are (two from seven letters on). What it
//! does not: ranking (it counts the query's words that a document has), persistence.
//! `astra-typesense`'s own tests compare what is sent with what Typesense's clients send.
//!
//! It is a program of its own (`typesense-standin`), because the stack needs its address before any test runs. Tests tell it under `/standin`.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post, put};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::replace;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;

/// Its admin key.
pub const KEY: &str = "standin-admin-key";

/// Its search-only key.
pub const SEARCH_KEY: &str = "standin-search-key";

#[derive(Default)]
struct Inner {
    /// Documents by collection and id.
    collections: BTreeMap<String, BTreeMap<String, Value>>,
    aliases: BTreeMap<String, String>,
    /// `{on, contains, do, times, ..}`.
    faults: Vec<Value>,
    /// `{collection, filter, ids}` of each search that was answered.
    searches: Vec<Value>,
    /// What was asked for that no Typesense would do: a fault of who asks.
    wrongs: Vec<String>,
}

type Shared = Arc<Mutex<Inner>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Inner> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let router = Router::new()
        .route("/collections", post(create))
        .route("/collections/{name}", delete(drop_collection))
        .route("/collections/{name}/documents", delete(delete_documents))
        .route("/collections/{name}/documents/import", post(import))
        .route("/aliases/{name}", put(put_alias).delete(delete_alias))
        .route("/multi_search", post(multi_search))
        .route("/standin/state", get(state))
        .route("/standin/faults", post(add_fault))
        .route("/standin/documents/{collection}", post(put_document))
        .fallback(any(unknown));
    axum::serve(listener, router.with_state(Shared::default())).await
}

fn answer(status: u16, body: &Value) -> Response {
    (StatusCode::from_u16(status).expect("a status"), [("content-type", "application/json")], body.to_string()).into_response()
}

fn no(status: u16, message: &str) -> Response {
    answer(status, &json!({ "message": message }))
}

/// What no Typesense would do is an error, and is remembered: a suite ends by asking whether there was any.
fn wrong(shared: &Shared, what: String) -> Response {
    let refusal = no(400, &what);
    lock(shared).wrongs.push(what);
    refusal
}

async fn unknown(State(shared): State<Shared>, method: Method, uri: Uri) -> Response {
    wrong(&shared, format!("{method} {uri}"))
}

fn is_admin(headers: &HeaderMap) -> bool {
    headers.get("x-typesense-api-key").is_some_and(|key| key == KEY)
}

/// A fault that is meant for this, if any; each is used up.
fn fault(shared: &Shared, on: &str, text: &str) -> Option<Value> {
    let mut inner = lock(shared);
    let meant = |fault: &&mut Value| {
        (fault["on"] == on || fault["on"] == "any")
            && text.contains(fault["contains"].as_str().unwrap_or_default())
            && fault["times"].as_u64() != Some(0)
    };
    let fault = inner.faults.iter_mut().find(meant)?;
    fault["times"] = json!(fault["times"].as_u64().unwrap_or(1) - 1);
    Some(fault.clone())
}

/// A fault that makes the whole answer.
async fn failing(shared: &Shared, on: &str, text: &str) -> Result<Option<Value>, Response> {
    let Some(fault) = fault(shared, on, text) else { return Ok(None) };
    match fault["do"].as_str().unwrap_or_default() {
        "status" => Err(no(u16::try_from(fault["status"].as_u64().unwrap_or(503)).unwrap_or(503), "a fault")),
        "hang" => {
            tokio::time::sleep(Duration::from_millis(fault["millis"].as_u64().unwrap_or(2_000))).await;
            Ok(None)
        }
        // The connection ends where more was promised.
        "cut" => {
            let half = futures_util::stream::iter([Ok(Bytes::from_static(b"{\"resu")), Err(std::io::Error::other("cut"))]);
            Err(Response::builder().header("content-type", "application/json").body(Body::from_stream(half)).expect("a response"))
        }
        _ => Ok(Some(fault)),
    }
}

/// As Typesense compares strings.
fn normal(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(100).collect()
}

/// Whether a document fulfils conditions joined by "and".
fn fulfils(document: &Value, filter: &str) -> Result<bool, String> {
    let mut all = true;
    for condition in filter.split(" && ") {
        let (field, rest) = condition.split_once(':').ok_or_else(|| format!("not a condition: {condition}"))?;
        let value = document.get(field).ok_or_else(|| format!("no such field: {field}"))?;
        all &= if let Some(than) = rest.strip_prefix('<') {
            let than: i64 = than.parse().map_err(|_| format!("not a number: {than}"))?;
            value.as_i64().is_some_and(|value| value < than)
        } else if let Some(of) = rest.strip_prefix('=') {
            let list = of.strip_prefix('[').and_then(|of| of.strip_suffix(']')).unwrap_or(of);
            if list.contains(['[', ']', '`', '|', '(', ')']) || list.is_empty() {
                return Err(format!("a filter that nobody should send: {filter}"));
            }
            let value = value.as_str().unwrap_or_default();
            list.split(',').any(|one| if field == "id" { one == value } else { normal(one) == normal(value) })
        } else {
            return Err(format!("not a condition: {condition}"));
        };
    }
    Ok(all)
}

async fn create(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    if !is_admin(&headers) {
        return no(401, "Forbidden - a valid `x-typesense-api-key` header must be sent.");
    }
    let schema: Value = serde_json::from_str(&body).unwrap_or_default();
    let Some(name) = schema["name"].as_str() else { return wrong(&shared, format!("a collection without a name: {body}")) };
    if let Err(failed) = failing(&shared, "create", name).await {
        return failed;
    }
    if schema["fields"].as_array().is_none_or(Vec::is_empty) {
        return wrong(&shared, format!("a collection without fields: {body}"));
    }
    let mut inner = lock(&shared);
    if inner.collections.contains_key(name) {
        return no(409, "A collection with this name already exists.");
    }
    inner.collections.insert(name.to_owned(), BTreeMap::new());
    answer(201, &schema)
}

async fn drop_collection(State(shared): State<Shared>, headers: HeaderMap, Path(name): Path<String>) -> Response {
    if !is_admin(&headers) {
        return no(401, "Forbidden");
    }
    if let Err(failed) = failing(&shared, "drop", &name).await {
        return failed;
    }
    match lock(&shared).collections.remove(&name) {
        Some(_) => answer(200, &json!({ "name": name })),
        None => no(404, "No collection with this name."),
    }
}

async fn put_alias(State(shared): State<Shared>, headers: HeaderMap, Path(name): Path<String>, body: String) -> Response {
    if !is_admin(&headers) {
        return no(401, "Forbidden");
    }
    if let Err(failed) = failing(&shared, "alias", &name).await {
        return failed;
    }
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let collection = body["collection_name"].as_str().unwrap_or_default().to_owned();
    if !lock(&shared).collections.contains_key(&collection) {
        return wrong(&shared, format!("an alias {name} of {collection}, which is not there"));
    }
    lock(&shared).aliases.insert(name.clone(), collection.clone());
    answer(200, &json!({ "name": name, "collection_name": collection }))
}

async fn delete_alias(State(shared): State<Shared>, headers: HeaderMap, Path(name): Path<String>) -> Response {
    if !is_admin(&headers) {
        return no(401, "Forbidden");
    }
    match lock(&shared).aliases.remove(&name) {
        Some(_) => answer(200, &json!({ "name": name })),
        None => no(404, "No alias with this name."),
    }
}

/// What is not a document of ours.
fn misfit(document: &Value) -> Option<&'static str> {
    let strings = ["id", "workspace", "owner", "source", "document", "heading", "content"];
    let fits = document.as_object().is_some_and(|map| map.len() == 8)
        && strings.iter().all(|name| document[*name].is_string())
        && document["epoch"].is_i64();
    (!fits).then_some("Field has an incorrect type.")
}

async fn import(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    body: String,
) -> Response {
    if !is_admin(&headers) {
        return no(401, "Forbidden");
    }
    if query != BTreeMap::from([("action".to_owned(), "upsert".to_owned())]) {
        return wrong(&shared, format!("an import with {query:?}"));
    }
    let fault = match failing(&shared, "import", &format!("{name} {body}")).await {
        Ok(fault) => fault.unwrap_or_default(),
        Err(failed) => return failed,
    };
    let mut inner = lock(&shared);
    let Some(collection) = inner.collections.get_mut(&name) else { return no(404, "Not found.") };
    let mut lines = Vec::new();
    for line in body.lines() {
        let document: Value = serde_json::from_str(line).unwrap_or_default();
        let content = document["content"].as_str().unwrap_or_default();
        let refused = fault["do"] == "refuse" && content.contains(fault["document"].as_str().unwrap_or("\0"));
        if let Some(error) = misfit(&document).or(refused.then_some("a fault")) {
            lines.push(json!({ "success": false, "code": 400, "error": error, "document": line }).to_string());
        } else {
            collection.insert(document["id"].as_str().unwrap_or_default().to_owned(), document);
            lines.push(r#"{"success":true}"#.to_owned());
        }
    }
    // All is done, and half of it said.
    if fault["do"] == "half" {
        lines.truncate(lines.len() / 2);
        lines.push(r#"{"succ"#.to_owned());
    }
    (StatusCode::OK, [("content-type", "text/plain")], lines.join("\n")).into_response()
}

async fn delete_documents(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if !is_admin(&headers) {
        return no(401, "Forbidden");
    }
    if let Err(failed) = failing(&shared, "delete", &name).await {
        return failed;
    }
    let filter = query.get("filter_by").cloned().unwrap_or_default();
    if query.len() != 1 || !filter.starts_with("workspace:=") {
        return wrong(&shared, format!("a deletion by {query:?}"));
    }
    let (mut bad, mut deleted) = (None, 0);
    {
        let mut inner = lock(&shared);
        let Some(collection) = inner.collections.get_mut(&name) else { return no(404, "Not found.") };
        collection.retain(|_, document| match fulfils(document, &filter) {
            Ok(true) => {
                deleted += 1;
                false
            }
            Ok(false) => true,
            Err(error) => {
                bad = Some(error);
                true
            }
        });
    }
    bad.map_or_else(|| answer(200, &json!({ "num_deleted": deleted })), |bad| wrong(&shared, bad))
}

/// A scoped key's parameters, when it is one of ours.
fn scoped(key: &str) -> Option<Map<String, Value>> {
    let text = String::from_utf8(BASE64_STANDARD.decode(key).ok()?).ok()?;
    let (digest, rest) = text.split_at_checked(44)?;
    let parameters = rest.strip_prefix(&SEARCH_KEY[..4])?;
    let mac = Hmac::<Sha256>::new_from_slice(SEARCH_KEY.as_bytes()).ok()?.chain_update(parameters);
    mac.verify_slice(&BASE64_STANDARD.decode(digest).ok()?).ok()?;
    serde_json::from_str(parameters).ok()
}

/// Whether a word may have been meant by another, as Typesense's defaults have it: one change from four letters on, two from seven.
fn is_meant(word: &str, by: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (word.chars().collect(), by.chars().collect());
    let most = if a.len() >= 7 { 2 } else { usize::from(a.len() >= 4) };
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.iter().enumerate() {
        let mut before = replace(&mut row[0], at + 1);
        for (place, other) in b.iter().enumerate() {
            let least = (before + usize::from(letter != other)).min(row[place] + 1).min(row[place + 1] + 1);
            before = replace(&mut row[place + 1], least);
        }
    }
    row[b.len()] <= most
}

async fn multi_search(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let key = headers.get("x-typesense-api-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let Some(bound) = scoped(key) else {
        return wrong(&shared, "a search without a scoped key".to_owned());
    };
    let fault = match failing(&shared, "search", &body).await {
        Ok(fault) => fault.unwrap_or_default(),
        Err(failed) => return failed,
    };
    let search = serde_json::from_str::<Value>(&body).unwrap_or_default()["searches"][0].take();
    let named = search["collection"].as_str().unwrap_or_default();
    let (embedded, own) =
        (bound.get("filter_by").and_then(Value::as_str).unwrap_or_default(), search["filter_by"].as_str().unwrap_or_default());
    let filter = format!("{embedded} && {own}");
    let words: BTreeSet<String> = search["q"].as_str().unwrap_or_default().split(' ').map(normal).filter(|word| !word.is_empty()).collect();
    let known =
        ["collection", "q", "query_by", "filter_by", "include_fields", "per_page", "prefix", "drop_tokens_threshold", "search_cutoff_ms"];
    if search.as_object().is_none_or(|map| map.len() != known.len() || map.keys().any(|key| !known.contains(&key.as_str())))
        || words.is_empty()
    {
        return wrong(&shared, format!("a search like {search}"));
    }
    let found = {
        let inner = lock(&shared);
        let collection = inner.aliases.get(named).map_or(named, String::as_str);
        let Some(documents) = inner.collections.get(collection) else {
            return answer(200, &json!({ "results": [{ "code": 404, "error": "Not found." }] }));
        };
        let look = |has_word: fn(&BTreeSet<String>, &str) -> bool| {
            let mut found = Ok(Vec::new());
            for (id, document) in documents {
                match fulfils(document, &filter) {
                    Ok(true) => {
                        let text = format!(
                            "{} {}",
                            document["heading"].as_str().unwrap_or_default(),
                            document["content"].as_str().unwrap_or_default()
                        );
                        let has: BTreeSet<String> = text.split(|c: char| !c.is_alphanumeric()).map(normal).collect();
                        let score = words.iter().filter(|word| has_word(&has, word)).count();
                        if let (true, Ok(found)) = (score > 0, &mut found) {
                            found.push((Reverse(score), id.clone()));
                        }
                    }
                    Ok(false) => {}
                    Err(error) => found = Err(error),
                }
            }
            found
        };
        let exact = look(BTreeSet::contains);
        if exact.as_ref().is_ok_and(Vec::is_empty) { look(|has, word| has.iter().any(|by| is_meant(word, by))) } else { exact }
    };
    let mut found = match found {
        Ok(found) => found,
        Err(bad) => return wrong(&shared, bad),
    };
    found.sort();
    found.truncate(search["per_page"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(10));
    let (mut ids, mut matched): (Vec<Value>, Vec<usize>) = found.into_iter().map(|(Reverse(score), id)| (json!(id), score)).unzip();
    // An index that lies: these have all words.
    if let Some(said) = fault["ids"].as_array() {
        ids.clone_from(said);
        matched = vec![words.len(); said.len()];
    }
    lock(&shared).searches.push(json!({ "collection": named, "filter": filter, "ids": ids }));
    let hit = |(id, matched)| json!({ "document": { "id": id }, "text_match": 1, "text_match_info": { "tokens_matched": matched, "score": "1" }, "highlights": [] });
    let hits: Vec<Value> = ids.iter().zip(matched).map(hit).collect();
    answer(200, &json!({ "results": [{ "found": hits.len(), "hits": hits, "page": 1, "search_time_ms": 0 }] }))
}

async fn state(State(shared): State<Shared>) -> Response {
    let inner = lock(&shared);
    answer(200, &json!({ "collections": inner.collections, "aliases": inner.aliases, "searches": inner.searches, "wrongs": inner.wrongs }))
}

async fn add_fault(State(shared): State<Shared>, body: String) -> Response {
    lock(&shared).faults.insert(0, serde_json::from_str(&body).unwrap_or_default());
    answer(200, &json!({}))
}

async fn put_document(State(shared): State<Shared>, Path(collection): Path<String>, body: String) -> Response {
    let document: Value = serde_json::from_str(&body).unwrap_or_default();
    let id = document["id"].as_str().unwrap_or_default().to_owned();
    lock(&shared).collections.entry(collection).or_default().insert(id, document);
    answer(200, &json!({}))
}
