//! Texts from elsewhere, from a server that says what a test wants.

use super::{Loopback, host, host_with, refusing};
use astra_host::outgoing::{Answered, NotAnswered, Outgoing};
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

/// What is answered to a call by a server that says this and then nothing more, and what it was sent.
async fn called(answer: &[u8], limit: usize, millis: u32) -> (Result<Answered, NotAnswered>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = host_with(Box::new(Loopback));
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let mut call = Outgoing::new(host.shared().guard(), http::Method::POST, url, millis).unwrap();
    (call.limit, call.body) = (limit, "{\"a\":1}".to_owned());
    call.headers = vec![("content-type", "application/json".to_owned()), ("webhook-id", "msg_1".to_owned())];
    let mut asked = Vec::new();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        while !asked.ends_with(b"{\"a\":1}") {
            assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
        }
        let _ = stream.write_all(answer).await;
        std::future::pending::<()>().await;
    };
    let answered = tokio::select! {
        answered = host.call_out(call) => answered,
        () = server => unreachable!(),
    };
    (answered, String::from_utf8(asked).unwrap())
}

#[tokio::test]
async fn a_call_is_sent_as_it_is_and_as_much_of_its_answer_is_read_as_is_asked_for() {
    let (answered, asked) = called(&answer("400 No", "0123456789"), 4, 60_000).await;
    assert_eq!(answered, Ok(Answered { status: 400, body: "0123".into() }));
    assert!(asked.starts_with("POST /hook HTTP/1.1\r\n") && asked.contains("webhook-id: msg_1\r\n"), "{asked}");
    // Nothing is waited for that nobody reads.
    let (answered, _) = called(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", 0, 60_000).await;
    assert_eq!(answered, Ok(Answered { status: 200, body: String::new() }));
    let (answered, _) = called(&answer("200 OK", "\u{e9}"), 1, 60_000).await;
    assert_eq!(answered, Ok(Answered { status: 200, body: "\u{fffd}".into() }));
}

#[tokio::test]
async fn a_calls_redirect_is_its_answer() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let head = format!("307 Moved\r\nlocation: http://{}/", elsewhere.local_addr().unwrap());
    assert_eq!(called(&answer(&head, ""), 0, 60_000).await.0.map(|answer| answer.status), Ok(307));
    assert!(elsewhere.accept().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn whether_a_call_may_have_been_received_is_told_apart() {
    assert_eq!(called(b"", 0, 2_000).await.0, Err(NotAnswered::TimedOut));
    assert_eq!(called(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", 100, 2_000).await.0, Err(NotAnswered::TimedOut));
    assert_eq!(called(b"nonsense\r\n\r\n", 0, 2_000).await.0, Err(NotAnswered::Broken));
    let (_kept, nobody) = refusing();
    let host = host_with(Box::new(Loopback));
    let call = Outgoing::new(host.shared().guard(), http::Method::GET, format!("http://{nobody}/"), 60_000).unwrap();
    assert_eq!(host.call_out(call).await, Err(NotAnswered::Unreachable));
}
