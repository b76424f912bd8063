use crate::fake::{Network, Read, Reply, cut, data, endpoint, shown, status};
use astra_kernel::Timestamp;
use astra_models::{Embeddings, Endpoint, HttpError, LOCAL_MODEL, MAX_BATCH, ModelError, Provider, Retry, embed, embed_texts};
use futures_util::FutureExt;
use proptest::prelude::*;

/// Two texts as vectors of three numbers, in another order than they were asked for.
const ANSWER: &str = r#"{"object":"list","data":[{"object":"embedding","index":1,"embedding":[0,1,0]},
    {"object":"embedding","index":0,"embedding":[0.5,-0.25,1e-3]}],"model":"m","usage":{"prompt_tokens":7,"total_tokens":7}}"#;

#[expect(clippy::unnecessary_wraps, reason = "a reply is what a script is made of")]
fn json(reads: impl IntoIterator<Item = Read>) -> Reply {
    let response = http::Response::builder().header("content-type", "application/json");
    Ok(response.body(reads.into_iter().collect()).expect("a response"))
}

fn embedder() -> Endpoint {
    Endpoint { model: "text-embedding-3-small".into(), ..endpoint(Provider::Openai) }
}

fn embed_with(network: &Network, endpoint: &Endpoint, dimensions: usize, texts: &[&str]) -> Result<Embeddings, ModelError> {
    let now = || network.now();
    let retry = Retry { attempts: 3, deadline: Timestamp(60_000), now: &now, seed: 7, asking: &|_| () };
    let mut future = Box::pin(embed_texts(network, endpoint, dimensions, texts, retry));
    loop {
        // What waits is ready when it is asked again.
        if let Some(answer) = future.as_mut().now_or_never() {
            return answer;
        }
    }
}

fn answered(answer: &str) -> Result<Embeddings, ModelError> {
    embed_with(&Network::new([json([data(answer)])]), &embedder(), 3, &["a", "b"])
}

#[test]
fn what_is_sent() {
    let network = Network::new([json([data(ANSWER)]), json([data(ANSWER)])]);
    embed_with(&network, &embedder(), 3, &["Grüße \"a\"", "b"]).unwrap();
    insta::assert_snapshot!(shown(&network.state().requests[0]));
    // A model of one length is not asked for another.
    let own = Endpoint { model: "nomic-embed-text".into(), base_url: Some("http://localhost:11434/v1/".into()), ..embedder() };
    embed_with(&network, &own, 3, &["a", "b"]).unwrap();
    let shown = shown(&network.state().requests[1]);
    assert!(shown.starts_with("POST http://localhost:11434/v1/embeddings") && !shown.contains("dimensions"), "{shown}");
}

#[test]
fn vectors_are_in_the_order_of_the_texts() {
    let embeddings = answered(ANSWER).unwrap();
    assert_eq!(embeddings, Embeddings { vectors: vec![vec![0.5, -0.25, 0.001], vec![0.0, 1.0, 0.0]], tokens: Some(7) });
    let uncounted = ANSWER.replace(r#","usage":{"prompt_tokens":7,"total_tokens":7}"#, "");
    assert_eq!(answered(&uncounted).unwrap().tokens, None);
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let long = format!("{ANSWER}{}", " ".repeat(70_000));
    for (answer, error) in [
        (&ANSWER.replace("[0,1,0]", "[0,1]"), "its embeddings have another length than they are stored with"),
        (&ANSWER.replace("[0,1,0]", "[0,0,-0.0]"), "it sent an embedding without a direction"),
        (&ANSWER.replace("[0,1,0]", "[0,1e39,0]"), "it sent an embedding without a direction"),
        (&ANSWER.replace("\"index\":1", "\"index\":0"), "its embeddings are not one for each text"),
        (&ANSWER.replace("\"index\":1", "\"index\":2"), "its embeddings are not one for each text"),
        (&ANSWER.replace("[0,1,0]", "\"AAAA\""), "its answer holds no embeddings"),
        (&r#"{"data":[{"index":0,"embedding":[1,1,1]}]}"#.to_owned(), "it sent another number of embeddings than of texts"),
        (&"{}".to_owned(), "its answer holds no embeddings"),
        (&String::new(), "its answer holds no embeddings"),
        (&long, "its embeddings are longer than they can be"),
    ] {
        assert_eq!(answered(answer), Err(ModelError::Garbage(error)), "{}", &answer[..answer.len().min(200)]);
    }
    let page = Ok(http::Response::builder().header("content-type", "text/html").body(vec![data(ANSWER)]).unwrap());
    let page = embed_with(&Network::new([page]), &embedder(), 3, &["a", "b"]);
    assert_eq!(page, Err(ModelError::Garbage("it answered with a page where JSON was asked for")));
    let broken = embed_with(&Network::new([json([data("{"), Read::Break])]), &embedder(), 3, &["a", "b"]);
    assert_eq!(broken, Err(ModelError::Broken));
}

#[test]
fn what_passes_is_tried_again() {
    let network = Network::new([status(429, None), Err(HttpError::Unreachable), json([data(ANSWER)])]);
    assert!(embed_with(&network, &embedder(), 3, &["a", "b"]).is_ok());
    assert_eq!(network.state().requests.len(), 3);
    let network = Network::new([status(400, None)]);
    let refused = embed_with(&network, &embedder(), 3, &["a", "b"]);
    assert_eq!(refused, Err(ModelError::Status { status: 400, retry_after: None }));
}

#[test]
fn what_cannot_be_embedded_is_not_sent() {
    let network = Network::default();
    let misconfigured = |endpoint: &Endpoint, dimensions, texts: &[&str]| {
        matches!(embed_with(&network, endpoint, dimensions, texts), Err(ModelError::Misconfigured(_)))
    };
    assert!(misconfigured(&embedder(), 3, &["a"; MAX_BATCH + 1]));
    assert!(misconfigured(&embedder(), 3, &["a", " \n"]));
    assert!(misconfigured(&endpoint(Provider::Anthropic), 3, &["a"]));
    let local = Endpoint { provider: Provider::Local, model: LOCAL_MODEL.into(), base_url: None, api_key: None };
    assert!(misconfigured(&local, 1536, &["a"]));
    assert!(misconfigured(&Endpoint { model: "other".into(), ..local.clone() }, embed::LOCAL_DIMENSIONS, &["a"]));
    assert_eq!(embed_with(&network, &embedder(), 3, &[]).unwrap().vectors.len(), 0);
    let vectors = embed_with(&network, &local, embed::LOCAL_DIMENSIONS, &["a"; MAX_BATCH]).unwrap().vectors;
    assert_eq!((vectors.len(), &vectors[0]), (MAX_BATCH, &embed::local_embedding("a")));
    assert!(network.state().requests.is_empty());
}

#[test]
fn the_future_can_be_sent() {
    fn sendable(_: impl Send) {}
    let (network, endpoint) = (Network::default(), embedder());
    let now = || Timestamp(0);
    sendable(embed_texts(
        &network,
        &endpoint,
        3,
        &["a"],
        Retry { attempts: 1, deadline: Timestamp(1), now: &now, seed: 0, asking: &|_| () },
    ));
}

proptest! {
    #[test]
    fn it_does_not_matter_where_an_answer_is_cut(places in proptest::collection::vec(any::<usize>(), 0..6), waits: bool) {
        let network = Network::new([json(cut(ANSWER.as_bytes(), &places, waits))]);
        prop_assert_eq!(embed_with(&network, &embedder(), 3, &["a", "b"]), answered(ANSWER));
    }
}
