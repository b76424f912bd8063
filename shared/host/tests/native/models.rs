//! Outgoing HTTP against a server that says exactly what a test wants.

use super::{host, refusing};
use astra_models::{ByteStream as _, Http as _, HttpError};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Request;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const BODY: &[u8] = br#"{"model":"m"}"#;
const STREAMING: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n";

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn post(address: SocketAddr) -> Request<Bytes> {
    let uri = format!("http://{address}/v1/chat/completions");
    Request::post(uri).header("authorization", "Bearer key").body(Bytes::from_static(BODY)).unwrap()
}

/// Accepts a connection and reads one request; gives its text.
async fn request(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(BODY) {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the request broke off");
    }
    (stream, String::from_utf8(read).unwrap())
}

/// Resolves when the other end has closed the connection.
async fn cut(mut stream: TcpStream) {
    let read = stream.read(&mut [0; 64]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_the_key_stays_here() {
    let ((listener, address), (elsewhere, other)) = (listen().await, listen().await);
    let server = async {
        let (mut stream, sent) = request(&listener).await;
        let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{other}/\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        sent
    };
    let host = host();
    let both = async { tokio::join!(host.send(post(address)), server) };
    let (answer, sent) = tokio::select! {
        both = both => both,
        _ = elsewhere.accept() => panic!("the redirect was followed"),
    };
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["location"].to_str().unwrap()), (307, format!("http://{other}/").as_str()));
    assert!(sent.starts_with("POST /v1/chat/completions HTTP/1.1\r\n") && sent.contains("authorization: Bearer key\r\n"), "{sent}");
    assert!(elsewhere.accept().now_or_never().is_none());
}

#[tokio::test]
async fn a_body_is_read_to_its_end_and_a_wait_that_was_given_up_takes_nothing() {
    let (listener, address) = listen().await;
    let host = host();
    let server = async {
        let (mut stream, _) = request(&listener).await;
        stream.write_all(STREAMING).await.unwrap();
        stream
    };
    let (answer, mut stream) = tokio::join!(host.send(post(address)), server);
    let mut body = answer.unwrap().into_body();
    assert_eq!(body.next().await, Some(Ok("one".into())));
    assert!(body.next().now_or_never().is_none());
    stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(body.next().await, Some(Ok("two".into())));
    assert_eq!(body.next().await, None);
}

#[tokio::test]
async fn what_ends_before_its_time_is_broken() {
    let (listener, address) = listen().await;
    for (said, in_body) in [
        ("", false),
        ("HTTP/1.1 200 O", false),
        ("no HTTP at all\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\none", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n", true),
    ] {
        let host = host();
        let server = async {
            let (mut stream, _) = request(&listener).await;
            stream.write_all(said.as_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(host.send(post(address)), server);
        if in_body {
            let mut body = answer.unwrap().into_body();
            assert_eq!(body.next().await, Some(Ok("one".into())), "{said:?}");
            assert_eq!(body.next().await, Some(Err(HttpError::Broken)), "{said:?}");
        } else {
            assert_eq!(answer.err(), Some(HttpError::Broken), "{said:?}");
        }
    }
}

#[tokio::test]
async fn who_does_not_listen_is_unreachable() {
    let (_kept, address) = refusing();
    assert_eq!(host().send(post(address)).await.err(), Some(HttpError::Unreachable));
    let nowhere = Request::post("/no/host").body(Bytes::new()).unwrap();
    assert_eq!(host().send(nowhere).await.err(), Some(HttpError::Unreachable));
}

#[tokio::test]
async fn dropping_a_body_cuts_its_connection() {
    let (listener, address) = listen().await;
    let host = host();
    let server = async {
        let (mut stream, _) = request(&listener).await;
        stream.write_all(STREAMING).await.unwrap();
        stream
    };
    let (answer, stream) = tokio::join!(host.send(post(address)), server);
    let mut body = answer.unwrap().into_body();
    assert_eq!(body.next().await, Some(Ok("one".into())));
    drop(body);
    cut(stream).await;
}

#[tokio::test]
async fn dropping_a_request_cuts_its_connection() {
    let (listener, address) = listen().await;
    let host = host();
    let stream = tokio::select! {
        _ = host.send(post(address)) => panic!("nobody has answered"),
        (stream, _) = request(&listener) => stream,
    };
    cut(stream).await;
}
