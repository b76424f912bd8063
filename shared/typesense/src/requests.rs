//! What is sent: one function for each call (<https://typesense.org/docs/30.0/api/>). tests/typesense compares them with what Typesense's own clients send.

use crate::keys::{bound_to, owner_name, scoped_key, workspace_name};
use crate::{Filter, Searches, Typesense};
use astra_kernel::WorkspaceId;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use uuid::Uuid;

/// The header of the key.
pub const API_KEY: HeaderName = HeaderName::from_static("x-typesense-api-key");

/// How many words of a query are looked for.
const WORDS: usize = 64;

/// What a document of the index was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A memory.
    Memory,
    /// A piece of a document.
    Document,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Document => "document",
        }
    }
}

/// A document of the index: a memory, or a piece of a document.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its id in Postgres.
    pub id: Uuid,
    /// Whose own it is; none: the whole workspace's.
    pub user: Option<&'a str>,
    /// The version of a document that it is a piece of; none: a memory.
    pub document: Option<Uuid>,
    /// Headings above it.
    pub heading: &'a str,
    /// Its text.
    pub content: &'a str,
    /// In which filling it was written.
    pub epoch: i64,
}

#[derive(Serialize)]
struct Line<'a> {
    id: Uuid,
    workspace: &'a str,
    owner: String,
    source: &'static str,
    document: String,
    epoch: i64,
    heading: &'a str,
    content: &'a str,
}

#[derive(Serialize)]
struct Field {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// The fields of a collection. Another list is another `layout::SCHEMA`.
const FIELDS: [Field; 7] = [
    Field { name: "workspace", kind: "string" },
    Field { name: "owner", kind: "string" },
    Field { name: "source", kind: "string" },
    Field { name: "document", kind: "string" },
    Field { name: "epoch", kind: "int64" },
    Field { name: "heading", kind: "string" },
    Field { name: "content", kind: "string" },
];

/// A query's words, blanks between them: signs would be operators (`-` excludes, `"` makes a phrase, `*` is everything). Empty when it has none.
pub fn words(query: &str) -> String {
    query.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(WORDS).collect::<Vec<_>>().join(" ")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Searches {
    /// Never logged: its key is a secret, and its body has texts.
    fn request(&self, method: Method, path: &str, key: &str, content_type: Option<&'static str>, body: impl Into<Bytes>) -> Request<Bytes> {
        let mut request = Request::new(body.into());
        *request.method_mut() = method;
        // Both are checked: the address when it is read, names and filters where they are made. What is none is an address that nobody answers at.
        *request.uri_mut() = format!("{}{path}", self.url).parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/plain, */*"));
        if let Ok(mut key) = HeaderValue::from_str(key) {
            key.set_sensitive(true);
            headers.insert(API_KEY, key);
        }
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        request
    }

    fn json(&self, method: Method, path: &str, key: &str, body: &impl Serialize) -> Request<Bytes> {
        // Plain structs: they serialise.
        self.request(method, path, key, Some("application/json"), serde_json::to_vec(body).unwrap_or_default())
    }

    /// Looks for words among what somebody of a workspace may find, in one of the two sources or in both. The text is in the body, so that no log of addresses has it.
    pub fn search(
        &self,
        workspace: &WorkspaceId,
        subject: &str,
        source: Option<Source>,
        words: &str,
        limit: u32,
        millis: u32,
    ) -> Request<Bytes> {
        #[derive(Serialize)]
        struct Searches<'a> {
            searches: [Asked<'a>; 1],
        }
        #[derive(Serialize)]
        struct Asked<'a> {
            collection: String,
            q: &'a str,
            query_by: &'static str,
            filter_by: &'static str,
            include_fields: &'static str,
            per_page: u32,
            /// A word is a whole word.
            prefix: &'static str,
            /// Any of the words will do, where too few documents have all of them.
            drop_tokens_threshold: u32,
            search_cutoff_ms: u32,
        }
        let search = Asked {
            collection: self.alias(workspace),
            q: words,
            query_by: "heading,content",
            filter_by: match source {
                Some(Source::Memory) => "source:=memory",
                Some(Source::Document) => "source:=document",
                None => "source:=[memory,document]",
            },
            include_fields: "id",
            per_page: limit,
            prefix: "false",
            drop_tokens_threshold: limit,
            search_cutoff_ms: millis,
        };
        let key = scoped_key(self.search_key.expose_secret(), &bound_to(workspace, subject));
        self.json(Method::POST, "/multi_search", &key, &Searches { searches: [search] })
    }
}

impl Typesense {
    /// Makes a collection.
    pub fn create_collection(&self, name: &str) -> Request<Bytes> {
        #[derive(Serialize)]
        struct Schema<'a> {
            name: &'a str,
            fields: [Field; 7],
        }
        self.searches.json(Method::POST, "/collections", self.key.expose_secret(), &Schema { name, fields: FIELDS })
    }

    /// Removes a collection with all that is in it.
    pub fn drop_collection(&self, name: &str) -> Request<Bytes> {
        self.searches.request(Method::DELETE, &format!("/collections/{}", encoded(name)), self.key.expose_secret(), None, Bytes::new())
    }

    /// Has an alias show a collection from now on.
    pub fn put_alias(&self, alias: &str, collection: &str) -> Request<Bytes> {
        #[derive(Serialize)]
        struct Shown<'a> {
            collection_name: &'a str,
        }
        let shown = Shown { collection_name: collection };
        self.searches.json(Method::PUT, &format!("/aliases/{}", encoded(alias)), self.key.expose_secret(), &shown)
    }

    /// Removes an alias.
    pub fn delete_alias(&self, alias: &str) -> Request<Bytes> {
        self.searches.request(Method::DELETE, &format!("/aliases/{}", encoded(alias)), self.key.expose_secret(), None, Bytes::new())
    }

    /// Writes a workspace's documents; those that are there are replaced. One JSON document a line.
    pub fn import(&self, collection: &str, workspace: &WorkspaceId, entries: &[Entry<'_>]) -> Request<Bytes> {
        let name = workspace_name(workspace);
        let lines = entries.iter().filter_map(|entry| {
            let Entry { id, user, document, heading, content, epoch } = *entry;
            let source = if document.is_some() { Source::Document } else { Source::Memory }.as_str();
            let document = document.map_or_else(|| "none".to_owned(), |id| id.simple().to_string());
            serde_json::to_string(&Line { id, workspace: &name, owner: owner_name(user), source, document, epoch, heading, content }).ok()
        });
        let path = format!("/collections/{}/documents/import?action=upsert", encoded(collection));
        self.searches.request(
            Method::POST,
            &path,
            self.key.expose_secret(),
            Some("application/octet-stream"),
            lines.collect::<Vec<_>>().join("\n"),
        )
    }

    /// Removes documents.
    pub fn delete(&self, collection: &str, filter: &Filter) -> Request<Bytes> {
        let path = format!("/collections/{}/documents?filter_by={}", encoded(collection), encoded(filter.as_str()));
        self.searches.request(Method::DELETE, &path, self.key.expose_secret(), None, Bytes::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signs_are_no_operators() {
        assert_eq!(words("  How long do \"refunds\" take -exactly?* "), "How long do refunds take exactly");
        assert_eq!(words("退款 需要多久？ naïve Ünïcode"), "退款 需要多久 naïve Ünïcode");
        for nothing in ["", "*", "-", "\"\"", " \n?! "] {
            assert_eq!(words(nothing), "");
        }
        assert_eq!(words(&"word ".repeat(100)).split(' ').count(), WORDS);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_stays_in_its_field(query in "\\PC{0,200}", subject in "\\PC{0,50}") {
            let get = |name: &str| Some(match name {
                "TYPESENSE_URL" => "https://t.example", "TYPESENSE_API_KEY" => "admin", "TYPESENSE_SEARCH_KEY" => "search", _ => return None,
            }.to_owned());
            let typesense = Typesense::read(get).unwrap().unwrap();
            let workspace = "acme".to_owned().try_into().unwrap();
            let request = typesense.searches().search(&workspace, &subject, Some(Source::Memory), &words(&query), 50, 500);
            let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            prop_assert_eq!(body["searches"].as_array().map(Vec::len), Some(1));
            let search = &body["searches"][0];
            prop_assert_eq!((search["collection"].as_str(), search["filter_by"].as_str()), (Some("astra_acme"), Some("source:=memory")));
            prop_assert!(search["q"].as_str().unwrap().chars().all(|c| c.is_alphanumeric() || c == ' '));
            prop_assert_eq!(request.uri(), "https://t.example/multi_search");
        }
    }
}
