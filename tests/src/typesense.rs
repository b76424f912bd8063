//! The stand-in for Typesense as tests see it: what is in it, and faults that it is to have.

use crate::environment;
use serde_json::{Value, json};

/// The stack's stand-in.
#[derive(Debug, Clone)]
pub struct Typesense {
    http: reqwest::Client,
    url: String,
}

impl Typesense {
    /// The stack's; none where the stack has no Typesense.
    pub fn of_stack() -> Option<Self> {
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client is made");
        environment::typesense().map(|url| Self { http, url })
    }

    async fn post(&self, path: &str, body: &Value) {
        let request = self.http.post(format!("{}{path}", self.url)).body(body.to_string());
        let status = request.send().await.expect("the stand-in answers").status();
        assert!(status.is_success(), "{path}: {status}");
    }

    /// All that it holds: collections with documents by id, aliases, the last searches, and what no Typesense would have done.
    pub async fn state(&self) -> Value {
        let bytes =
            self.http.get(format!("{}/standin/state", self.url)).send().await.expect("it answers").bytes().await.expect("it is read");
        serde_json::from_slice(&bytes).expect("it is JSON")
    }

    /// The documents of a workspace by the collection that its alias shows: content by id. None without an alias.
    pub async fn shown(&self, workspace: &str) -> Option<(String, Vec<(String, String)>)> {
        let mut state = self.state().await;
        let collection = state["aliases"][format!("astra_{workspace}")].as_str()?.to_owned();
        let documents = state["collections"][&collection].take();
        let name = workspace_name(workspace);
        let own = documents.as_object()?.iter().filter(|(_, document)| document["workspace"] == name.as_str());
        Some((collection, own.map(|(id, document)| (id.clone(), document["content"].as_str().unwrap_or_default().to_owned())).collect()))
    }

    /// How many documents of a workspace there are in each collection that has some.
    pub async fn places(&self, workspace: &str) -> Vec<(String, usize)> {
        let (state, name) = (self.state().await, workspace_name(workspace));
        let count = |documents: &Value| {
            documents.as_object().map_or(0, |all| all.values().filter(|document| document["workspace"] == name.as_str()).count())
        };
        let collections = state["collections"].as_object().expect("collections are by name");
        collections.iter().map(|(collection, documents)| (collection.clone(), count(documents))).filter(|(_, count)| *count > 0).collect()
    }

    /// The next so many calls of a kind (`search`, `import`, `delete`, `create`, `drop`, `alias`), of which the name or the body contains a text, go wrong: `status`, `hang`, `cut`, `half`,
    /// `refuse` (a document that contains a text), or an answer of `ids`.
    pub async fn fault(&self, on: &str, contains: &str, times: u64, what: Value) {
        let mut fault = json!({ "on": on, "contains": contains, "times": times });
        fault.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
        self.post("/standin/faults", &fault).await;
    }

    /// Puts a document there, whatever it is.
    pub async fn put(&self, collection: &str, document: &Value) {
        self.post(&format!("/standin/documents/{collection}"), document).await;
    }

    /// Removes a collection, as somebody might by hand.
    pub async fn lose(&self, collection: &str) {
        let request = self.http.delete(format!("{}/collections/{collection}", self.url)).header("x-typesense-api-key", crate::standin::KEY);
        let status = request.send().await.expect("the stand-in answers").status();
        assert!(status.is_success(), "{status}");
    }
}

/// A workspace's name in the index: the first 16 bytes of SHA-256 of `workspace`, a zero byte and its id.
pub fn workspace_name(workspace: &str) -> String {
    use sha2::Digest as _;
    hex::encode(&sha2::Sha256::digest(format!("workspace\0{workspace}"))[..16])
}
