//! Texts from elsewhere, from a server that says what a test wants.

use super::{host, refusing};
use astra_host::{Host as _, NotFetched};
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// What is fetched from a server that says this and then nothing more.
async fn fetched(answer: &[u8], millis: u32) -> Result<String, NotFetched> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
        }
        // It may not be read to its end.
        let _ = stream.write_all(answer).await;
        std::future::pending::<()>().await;
    };
    let host = host();
    tokio::select! {
        text = host.fetch_text(&url, 65_536, millis) => text,
        () = server => unreachable!(),
    }
}

fn answer(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_text_is_fetched() {
    assert_eq!(fetched(&answer("200 OK", "{\"keys\":[]}"), 60_000).await, Ok("{\"keys\":[]}".into()));
    assert_eq!(fetched(&answer("200 OK", &"x".repeat(65_536)), 60_000).await.map(|text| text.len()), Ok(65_536));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let head = format!("302 Found\r\nlocation: http://{}/", elsewhere.local_addr().unwrap());
    assert_eq!(fetched(&answer(&head, ""), 60_000).await, Err(NotFetched::Status(302)));
    assert!(elsewhere.accept().now_or_never().is_none());
}

#[tokio::test]
async fn what_is_too_large_is_not_read_to_its_end() {
    assert_eq!(fetched(&answer("200 OK", &"x".repeat(2_000_000)), 60_000).await, Err(NotFetched::TooLarge));
    let mut endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    endless.extend(format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000)).into_bytes());
    assert_eq!(fetched(&endless, 60_000).await, Err(NotFetched::TooLarge));
}

#[tokio::test]
async fn what_is_no_answer_is_said() {
    assert_eq!(fetched(&answer("500 No", "x"), 60_000).await, Err(NotFetched::Status(500)));
    assert_eq!(fetched(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe", 60_000).await, Err(NotFetched::Broken));
    let (_kept, nobody) = refusing();
    assert_eq!(host().fetch_text(&format!("http://{nobody}/"), 10, 60_000).await, Err(NotFetched::Unreachable));
    assert_eq!(host().fetch_text("none", 10, 60_000).await, Err(NotFetched::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_stops_is_not_waited_for() {
    assert_eq!(fetched(b"", 2_000).await, Err(NotFetched::Unreachable));
    assert_eq!(fetched(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", 2_000).await, Err(NotFetched::Broken));
}
