//! What we send is what Typesense's own clients send for the same calls: npm's and `PyPI`'s, recorded by clients/record.mjs (`scripts/prove typesense` records them again).
//!
//! Equal in meaning: method, path, query, key, body as JSON; scoped keys byte for byte. What the two clients do differently from each other is listed here, and nothing else is let through:
//! npm's tells the server of an option of its own (`throwOnFail`); `PyPI`'s ends a path in `/`, sends numbers of a search as strings and `union: false`, and names no content type. An import
//! is `text/plain` to npm's client; Typesense's `OpenAPI` document wants `application/octet-stream`, which is what we send.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use astra_kernel::WorkspaceId;
use astra_typesense::{Entry, Filter, Source, Typesense, keys, requests};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

const RECORDED: [&str; 2] = [include_str!("clients/npm.json"), include_str!("clients/pypi.json")];

fn inputs() -> Value {
    serde_json::from_str(include_str!("clients/inputs.json")).unwrap()
}

fn text<'a>(inputs: &'a Value, name: &str) -> &'a str {
    inputs[name].as_str().unwrap()
}

/// Every call, by the name that the recorder has for it.
fn ours() -> BTreeMap<String, http::Request<Bytes>> {
    let inputs = inputs();
    let get = |name: &str| match name {
        "TYPESENSE_URL" => Some("http://127.0.0.1:8108".to_owned()),
        "TYPESENSE_API_KEY" => Some(text(&inputs, "key").to_owned()),
        "TYPESENSE_SEARCH_KEY" => Some(text(&inputs, "searchKey").to_owned()),
        _ => None,
    };
    let typesense = Typesense::read(get).unwrap().unwrap();
    let workspace: WorkspaceId = text(&inputs, "workspace").to_owned().try_into().unwrap();
    let (collection, alias) = (typesense.collection(&workspace, None), typesense.searches().alias(&workspace));
    assert_eq!((collection.as_str(), alias.as_str()), (text(&inputs, "collection"), text(&inputs, "alias")));
    let subject = text(&inputs, "subject");
    let id = |n: u128| Uuid::from_u128(0x0199_c0de_0000_7000_8000_0000_0000_0000 + n);
    let content = |n: usize| inputs["documents"][n]["content"].as_str().unwrap();
    let entries = [
        Entry { id: id(1), user: Some(subject), document: None, heading: "", content: content(0), epoch: 3 },
        Entry { id: id(2), user: None, document: Some(id(3)), heading: "Refunds > Terms", content: content(1), epoch: 3 },
    ];
    let of = || Filter::of(&workspace);
    let words = requests::words("退款: how long do \"refunds\" take?");
    [
        ("createCollection", typesense.create_collection(&collection)),
        ("dropCollection", typesense.drop_collection(&collection)),
        ("putAlias", typesense.put_alias(&alias, &collection)),
        ("deleteAlias", typesense.delete_alias(&alias)),
        ("import", typesense.import(&collection, &workspace, &entries)),
        ("delete0", typesense.delete(&collection, &of())),
        ("delete1", typesense.delete(&collection, &of().before(3))),
        ("delete2", typesense.delete(&collection, &of().with_ids(&[id(1)]))),
        ("delete3", typesense.delete(&collection, &of().of_documents(&[id(3)]))),
        ("search", typesense.searches().search(&workspace, subject, Some(Source::Document), &words, 50, 500)),
    ]
    .map(|(name, request)| (name.to_owned(), request))
    .into()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

/// A body's lines as JSON, the numbers and truths of a search as the strings that they are to the server.
fn meaning(call: &str, body: &str) -> Vec<Value> {
    let mut lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    if call == "search" {
        for (_, value) in lines[0]["searches"][0].as_object_mut().unwrap() {
            if value.is_number() {
                *value = json!(value.to_string());
            }
        }
    }
    lines
}

#[test]
fn each_request_is_what_both_clients_send() {
    let ours = ours();
    for recorded in RECORDED {
        let recorded: Value = serde_json::from_str(recorded).unwrap();
        let (client, is_npm) = (recorded["client"].as_str().unwrap(), recorded["client"] == "npm");
        let theirs = recorded["requests"].as_array().unwrap();
        assert_eq!(theirs.len(), ours.len());
        for their in theirs {
            let call = their["call"].as_str().unwrap();
            let our = &ours[call];
            let says = format!("{client}'s {call}");
            assert_eq!(our.method().as_str(), their["method"], "{says}");
            let path = their["path"].as_str().unwrap();
            assert_eq!(decoded(our.uri().path()), decoded(if is_npm { path } else { path.trim_end_matches('/') }), "{says}");
            let mut query: BTreeMap<String, String> = serde_json::from_value(their["query"].clone()).unwrap();
            assert_eq!(query.remove("throwOnFail").is_some(), is_npm && call == "import", "{says}");
            let pairs = our.uri().query().into_iter().flat_map(|query| query.split('&'));
            let sent: BTreeMap<_, _> = pairs.map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (decoded(k), decoded(v))).collect();
            assert_eq!(sent, query, "{says}");
            let their_body = their["body"].as_str().unwrap();
            let mut body = meaning(call, their_body);
            if call == "search" && !is_npm {
                assert_eq!(body[0].as_object_mut().unwrap().remove("union"), Some(json!(false)));
            }
            assert_eq!(meaning(call, std::str::from_utf8(our.body()).unwrap()), body, "{says}");
            // npm's names a type for what has no body, too.
            if is_npm && !their_body.is_empty() {
                let theirs = their["contentType"].as_str().unwrap();
                assert_eq!(our.headers()["content-type"], if call == "import" { "application/octet-stream" } else { theirs }, "{says}");
            }
            // PyPI's writes the parameters of a key with other blanks, which makes another key.
            if is_npm || call != "search" {
                assert_eq!(our.headers()["x-typesense-api-key"], their["apiKey"].as_str().unwrap(), "{says}");
            }
        }
    }
}

#[test]
fn each_scoped_key_is_theirs_byte_for_byte() {
    let inputs = inputs();
    let mut compared = 0;
    for recorded in RECORDED {
        let recorded: Value = serde_json::from_str(recorded).unwrap();
        for key in recorded["scopedKeys"].as_array().unwrap() {
            assert_eq!(keys::scoped_key(text(&inputs, "searchKey"), key["parameters"].as_str().unwrap()), key["key"].as_str().unwrap());
            compared += 1;
        }
        // What is signed says the same, whatever its blanks; npm's client writes it as we do.
        let workspace = text(&inputs, "workspace").to_owned().try_into().unwrap();
        let ours = keys::bound_to(&workspace, text(&inputs, "subject"));
        let theirs = recorded["scopedKeys"][0]["parameters"].as_str().unwrap();
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(&ours), read(theirs));
        assert_eq!(ours == theirs, recorded["client"] == "npm");
    }
    assert_eq!(compared, 6);
}

/// For `scripts/prove typesense`, which sends them to a proxy that validates them by Typesense's `OpenAPI` document.
#[test]
#[ignore = "writes a file"]
fn requests_to_be_validated() {
    let requests: Vec<Value> = ours()
        .iter()
        .map(|(call, request)| {
            let headers: BTreeMap<_, _> = request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            let body = std::str::from_utf8(request.body()).unwrap();
            json!({ "call": call, "method": request.method().as_str(), "target": request.uri().path_and_query().unwrap().as_str(), "headers": headers, "body": body })
        })
        .collect();
    std::fs::write(std::env::var("TYPESENSE_REQUESTS").unwrap(), json!(requests).to_string()).unwrap();
}
