//! A model server that answers every `POST /v1/chat/completions` with the same streamed completion.
//!
//! The pieces are written one by one: the body says "not yet" after each piece, so that hyper flushes it before it asks for the next.
//! A server that hands over all pieces at once would be measured as one write, which no model server does.

use crate::Fault;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The port on 127.0.0.1; 0 takes a free one. The address is printed when it listens.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// How many pieces of text one answer has.
    #[arg(long, default_value_t = 20)]
    chunks: usize,
    /// Milliseconds to wait before each piece after the first.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

/// Serves until the process is ended.
pub(crate) async fn serve(arguments: Arguments) -> Result<(), Fault> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|cause| Fault::Io { what: format!("the mock model server cannot listen on {address} (name another --port)"), cause })?;
    let address = listener.local_addr().map_err(|cause| Fault::Io { what: "the mock model server has no address".into(), cause })?;
    println!("http://{address}");
    let answers = Arc::new(Answers::new(arguments.chunks, Duration::from_millis(arguments.delay_ms)));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&answers), request));
            // A client that hangs up ends its own connection and nothing else.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// What is answered, written out once.
struct Answers {
    pieces: Vec<Bytes>,
    whole: Bytes,
    delay: Duration,
}

impl Answers {
    fn new(chunks: usize, delay: Duration) -> Self {
        let words: Vec<String> = (0..chunks).map(|n| format!("word{n} ")).collect();
        let head = json!({"id": "chatcmpl-bench", "created": 1_760_000_000, "model": "gpt-4o-mini", "system_fingerprint": "fp_bench"});
        let usage = json!({"prompt_tokens": 50, "completion_tokens": chunks, "total_tokens": 50 + chunks,
            "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}});
        let event = |choices: Value, usage: Value| {
            let mut event = head.clone();
            event["object"] = json!("chat.completion.chunk");
            event["choices"] = choices;
            event["usage"] = usage;
            format!("data: {event}\n\n")
        };
        let delta =
            |word: &str| json!([{"index": 0, "delta": {"role": "assistant", "content": word}, "logprobs": null, "finish_reason": null}]);
        let mut pieces: Vec<Bytes> = words.iter().map(|word| event(delta(word), Value::Null).into()).collect();
        // The end of an answer comes in one write: why it stopped, what it used, and the end mark.
        let stop = event(json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"}]), Value::Null);
        pieces.push(format!("{stop}{}data: [DONE]\n\n", event(json!([]), usage.clone())).into());
        let mut whole = head;
        whole["object"] = json!("chat.completion");
        whole["choices"] =
            json!([{"index": 0, "message": {"role": "assistant", "content": words.concat()}, "logprobs": null, "finish_reason": "stop"}]);
        whole["usage"] = usage;
        Self { pieces, whole: whole.to_string().into(), delay }
    }
}

type Body = Either<Pieces, Full<Bytes>>;

async fn answer(answers: Arc<Answers>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let known = request.method() == Method::POST && request.uri().path().ends_with("/chat/completions");
    let asked = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(problem(StatusCode::BAD_REQUEST, "the request's body broke off")),
    };
    if !known {
        return Ok(problem(StatusCode::NOT_FOUND, "this server answers POST /v1/chat/completions only"));
    }
    let Ok(asked) = serde_json::from_slice::<Value>(&asked) else {
        return Ok(problem(StatusCode::BAD_REQUEST, "the request's body is not JSON"));
    };
    let (kind, body) = if asked["stream"] == true {
        let pieces = Pieces { left: answers.pieces.iter().cloned().collect(), delay: answers.delay, flushed: true, timer: None };
        ("text/event-stream; charset=utf-8", Either::Left(pieces))
    } else {
        ("application/json", Either::Right(Full::new(answers.whole.clone())))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    Ok(response)
}

fn problem(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({"error": {"message": message, "type": "invalid_request_error"}}).to_string();
    let mut response = Response::new(Either::Right(Full::new(body.into())));
    *response.status_mut() = status;
    response
}

/// The pieces of one answer, each flushed before the next.
struct Pieces {
    left: VecDeque<Bytes>,
    delay: Duration,
    flushed: bool,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(timer) = &mut self.timer {
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        } else if !self.flushed {
            self.flushed = true;
            // Nothing holds up the end once the last piece is out.
            if self.delay.is_zero() || self.left.is_empty() {
                context.waker().wake_by_ref();
            } else {
                let mut timer = Box::pin(tokio::time::sleep(self.delay));
                // Polled once so that it wakes this task.
                let _ = timer.as_mut().poll(context);
                self.timer = Some(timer);
            }
            return Poll::Pending;
        }
        self.flushed = false;
        Poll::Ready(self.left.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(answers: &Answers) -> Pieces {
        Pieces { left: answers.pieces.iter().cloned().collect(), delay: answers.delay, flushed: true, timer: None }
    }

    #[test]
    fn every_piece_is_flushed_before_the_next() {
        let answers = Answers::new(20, Duration::ZERO);
        let mut body = pieces(&answers);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut seen = Vec::new();
        for step in 0.. {
            match (step % 2, hyper::body::Body::poll_frame(Pin::new(&mut body), &mut context)) {
                (0, Poll::Ready(Some(Ok(frame)))) => seen.push(frame.into_data().unwrap()),
                (0, Poll::Ready(None)) => break,
                (1, Poll::Pending) => {}
                (_, other) => panic!("step {step}: {other:?}"),
            }
        }
        assert_eq!(seen.len(), 21);
        assert!(seen[20].ends_with(b"data: [DONE]\n\n"));
    }

    #[test]
    fn the_usage_counts_the_pieces() {
        let answers = Answers::new(20, Duration::ZERO);
        let whole: Value = serde_json::from_slice(&answers.whole).unwrap();
        assert_eq!(whole["usage"]["completion_tokens"], 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_holds_up_each_piece_after_the_first() {
        let answers = Answers::new(3, Duration::from_secs(1));
        let begun = tokio::time::Instant::now();
        let collected = pieces(&answers).collect().await.unwrap().to_bytes();
        assert!(collected.ends_with(b"[DONE]\n\n"));
        assert_eq!(begun.elapsed().as_secs(), 3);
    }
}
