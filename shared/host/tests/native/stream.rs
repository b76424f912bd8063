//! The event stream from both ends.

use super::host;
use astra_host::stream::{EventSink as _, TurnHost as _};
use axum::body::Body;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use std::pin::pin;
use std::time::Duration;

async fn read(body: &mut Body) -> Option<Result<String, ()>> {
    let frame = body.frame().await?;
    Some(frame.map(|frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()).map_err(drop))
}

#[tokio::test]
async fn what_waits_goes_in_one_piece_and_the_end_comes_after_it() {
    let (sink, response) = host().stream();
    let mut body = response.into_body();
    assert!(read(&mut body).now_or_never().is_none());
    sink.push(b"one ");
    sink.push(b"two");
    assert_eq!(read(&mut body).await, Some(Ok("one two".into())));
    sink.push(b"three");
    let mut closed = pin!(sink.close());
    assert!(closed.as_mut().now_or_never().is_none());
    assert_eq!(read(&mut body).await, Some(Ok("three".into())));
    assert_eq!(read(&mut body).await, None);
    drop(body);
    closed.await;
}

#[tokio::test]
async fn a_reader_that_waits_is_woken() {
    let (sink, response) = host().stream();
    let mut body = response.into_body();
    let reader = tokio::spawn(async move { (read(&mut body).await, read(&mut body).await) });
    tokio::task::yield_now().await;
    sink.push(b"one");
    tokio::task::yield_now().await;
    sink.close().await;
    assert_eq!(reader.await.unwrap(), (Some(Ok("one".into())), None));
}

#[tokio::test]
async fn a_client_that_has_gone_holds_up_nobody() {
    let (sink, response) = host().stream();
    sink.push(b"one");
    drop(response);
    sink.push(b"two");
    assert_eq!(sink.close().now_or_never(), Some(()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_everything() {
    let (sink, response) = host().stream();
    let mut body = response.into_body();
    sink.push(b"one");
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        loop {
            tokio::time::sleep(Duration::from_secs(50)).await;
            let Some(piece) = read(&mut body).await else { break };
            all.push(piece.unwrap());
        }
        all
    });
    sink.close().await;
    assert_eq!(reader.await.unwrap(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_no_more_is_cut_off() {
    let (sink, response) = host().stream();
    let mut body = response.into_body();
    sink.push(b"one");
    sink.close().await;
    assert_eq!(read(&mut body).await, Some(Err(())));
}

#[tokio::test]
async fn more_than_anybody_writes_does_not_wait_in_memory() {
    let (sink, response) = host().stream();
    let mut body = response.into_body();
    for _ in 0..=128 {
        sink.push(&vec![0; 64 * 1024]);
    }
    assert_eq!(read(&mut body).await, Some(Err(())));
    drop(body);
    sink.close().await;
}

#[tokio::test]
async fn without_an_end_the_response_breaks_off() {
    let (sink, response) = host().stream();
    drop(sink);
    assert_eq!(read(&mut response.into_body()).await, Some(Err(())));
}
