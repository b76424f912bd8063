//! Many texts as vectors in one call: by `OpenAI`'s embeddings API and whoever speaks it
//! (<https://platform.openai.com/docs/api-reference/embeddings>), or by the local embedder, which needs no network.
//!
//! 1. A vector that does not fit is worse than none: its length is that of a column, and one of zeros has no direction, so that every
//!    cosine with it is no number. Both are refused here, for the whole batch.
//! 2. The answer may come in any order; `index` says which text a vector is of.
//! 3. One bad text (empty, or longer than the model takes) fails its whole batch at the provider. Empty ones are refused before anything
//!    is sent; how long a text may be the caller knows (chunks of about a thousand tokens are far from every model's limit).

use crate::call::{self, Wanted};
use crate::embed::{LOCAL_DIMENSIONS, local_embedding};
use crate::{ByteStream, Endpoint, Http, ModelError, Provider, Retry, local::LOCAL_MODEL};
use astra_kernel::Tokens;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde::Serialize;
use serde_json::Value;

const BASE: &str = "https://api.openai.com/v1";

/// How many texts go in one call. Cohere takes 96; `OpenAI` takes 2,048 of 300,000 tokens in all, which 96 texts of a thousand tokens keep.
pub const MAX_BATCH: usize = 96;

/// How many bytes a number of a vector may take in the answer; servers write up to 25.
const BYTES_PER_NUMBER: usize = 32;

/// How many bytes an answer may have besides.
const BYTES_BESIDE: usize = 64 * 1024;

/// The vectors of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// One for each text, in the texts' order, all of the length that was asked for, none of zeros.
    pub vectors: Vec<Vec<f32>>,
    /// What the provider counted; `None` when it did not say.
    pub tokens: Option<Tokens>,
}

/// Embeds up to [`MAX_BATCH`] texts as vectors of `dimensions` numbers. Tries again as [`Retry`] says until an answer begins. No texts
/// are no call.
///
/// # Errors
/// [`ModelError::Misconfigured`] before anything is sent: more texts, an empty one, a provider that embeds nothing, or a length that the
/// local embedder does not have. Else what a model's call can fail with; nothing of a batch is given then.
pub async fn embed_texts<H: Http>(
    http: &H,
    endpoint: &Endpoint,
    dimensions: usize,
    texts: &[&str],
    retry: Retry<'_>,
) -> Result<Embeddings, ModelError> {
    if texts.len() > MAX_BATCH {
        return Err(ModelError::Misconfigured("more texts are to be embedded at once than fit in one call"));
    }
    if texts.iter().any(|text| text.trim().is_empty()) {
        return Err(ModelError::Misconfigured("a text that is to be embedded is empty"));
    }
    match endpoint.provider {
        Provider::Anthropic => Err(ModelError::Misconfigured("its provider has no embeddings")),
        Provider::Local if endpoint.model != LOCAL_MODEL => Err(ModelError::Misconfigured("there is no local embedder of this name")),
        Provider::Local if dimensions != LOCAL_DIMENSIONS => {
            Err(ModelError::Misconfigured("the local embedder makes vectors of 384 numbers"))
        }
        Provider::Local => Ok(Embeddings { vectors: texts.iter().map(|text| local_embedding(text)).collect(), tokens: None }),
        Provider::Openai if texts.is_empty() => Ok(Embeddings { vectors: Vec::new(), tokens: None }),
        Provider::Openai => {
            let request = request(endpoint, dimensions, texts)?;
            let mut body = call::begin(http, &request, Wanted::Json, retry).await?;
            let most = texts.len() * dimensions * BYTES_PER_NUMBER + BYTES_BESIDE;
            let mut answer = Vec::new();
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(|_| ModelError::Broken)?;
                if answer.len() + piece.len() > most {
                    return Err(ModelError::Garbage("its embeddings are longer than they can be"));
                }
                answer.extend_from_slice(&piece);
            }
            read(&answer, texts.len(), dimensions)
        }
    }
}

fn request(endpoint: &Endpoint, dimensions: usize, texts: &[&str]) -> Result<http::Request<Bytes>, ModelError> {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        input: &'a [&'a str],
        encoding_format: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        dimensions: Option<usize>,
    }
    let dimensions = takes_dimensions(&endpoint.model).then_some(dimensions);
    let body = Body { model: &endpoint.model, input: texts, encoding_format: "float", dimensions };
    let mut request = endpoint.post(BASE, "/embeddings", &body)?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    endpoint.authorize(&mut request, AUTHORIZATION, "Bearer ")?;
    Ok(request)
}

/// Whether a model can be asked for a length. Others have one length and many refuse the field, as `text-embedding-ada-002` does.
fn takes_dimensions(model: &str) -> bool {
    model.rsplit('/').next().unwrap_or(model).starts_with("text-embedding-3")
}

/// By way of a tree, which is read for other things too: types of its own weigh 2 KB more in each function that embeds.
fn read(answer: &[u8], texts: usize, dimensions: usize) -> Result<Embeddings, ModelError> {
    let none = || ModelError::Garbage("its answer holds no embeddings");
    let text = std::str::from_utf8(answer).map_err(|_| ModelError::Garbage("its embeddings are not UTF-8"))?;
    let answer: Value = astra_kernel::json::from_str(text).map_err(|_| none())?;
    let data = answer.get("data").and_then(Value::as_array).ok_or_else(none)?;
    if data.len() != texts {
        return Err(ModelError::Garbage("it sent another number of embeddings than of texts"));
    }
    let mut vectors = vec![Vec::new(); texts];
    for one in data {
        let index = one.get("index").and_then(Value::as_u64).ok_or_else(none)?;
        let numbers = one.get("embedding").and_then(Value::as_array).ok_or_else(none)?;
        #[expect(clippy::cast_possible_truncation, reason = "f32 is what pgvector stores; one that is none is refused below")]
        let vector: Vec<f32> =
            numbers.iter().map(|number| number.as_f64().map(|number| number as f32)).collect::<Option<_>>().ok_or_else(none)?;
        if vector.len() != dimensions {
            return Err(ModelError::Garbage("its embeddings have another length than they are stored with"));
        }
        if vector.iter().any(|number| !number.is_finite()) || vector.iter().all(|number| *number == 0.0) {
            return Err(ModelError::Garbage("it sent an embedding without a direction"));
        }
        let place = usize::try_from(index).ok().and_then(|index| vectors.get_mut(index)).filter(|place| place.is_empty());
        *place.ok_or(ModelError::Garbage("its embeddings are not one for each text"))? = vector;
    }
    let tokens = answer.get("usage").and_then(|usage| usage.get("prompt_tokens")).and_then(Value::as_u64);
    Ok(Embeddings { vectors, tokens })
}
