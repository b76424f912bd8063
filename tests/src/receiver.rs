//! A receiver of webhooks on loopback: it checks signatures by Standard Webhooks as a customer's would, by code that is not the product's.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What was received.
#[derive(Debug, Clone)]
pub struct Message {
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`.
    pub timestamp: i64,
    /// `webhook-signature`.
    pub signatures: String,
    /// The body as it came.
    pub body: String,
}

impl Message {
    /// Whether one of its signatures is that secret's (`whsec_…`).
    pub fn is_signed(&self, secret: &str) -> bool {
        let key = BASE64_STANDARD.decode(secret.trim_start_matches("whsec_")).expect("a secret is base64");
        let expected = BASE64_STANDARD.encode(hmac(&key, format!("{}.{}.{}", self.id, self.timestamp, self.body).as_bytes()));
        self.signatures.split(' ').any(|signature| signature == format!("v1,{expected}"))
    }
}

/// RFC 2104 over SHA-256, for keys of up to 64 bytes.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |with: u8| (0..64).map(|n| key.get(n).copied().unwrap_or(0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// The running receiver. It ends with the test.
#[derive(Debug)]
pub struct Receiver {
    address: String,
    messages: Arc<Mutex<Vec<Message>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Starts one that answers the n-th message (from 0) with this status. A redirect's goes to itself.
    pub async fn start(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("the socket has an address").to_string();
        let messages: Arc<Mutex<Vec<Message>>> = Arc::default();
        let (notes, at, status) = (Arc::clone(&messages), address.clone(), Arc::new(status));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (notes, at, status) = (Arc::clone(&notes), at.clone(), Arc::clone(&status));
                tokio::spawn(async move { serve(socket, &notes, &at, &*status).await });
            }
        });
        Self { address, messages, task }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What came so far.
    pub fn messages(&self) -> Vec<Message> {
        self.messages.lock().expect("no test panics while it writes down").clone()
    }
}

async fn serve(
    mut socket: TcpStream,
    messages: &Mutex<Vec<Message>>,
    at: &str,
    status: &(dyn Fn(usize) -> u16 + Send + Sync),
) -> Option<()> {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length: usize = header(&head, "content-length").parse().unwrap_or(0);
            if let Some(body) = bytes.get(end + 4..end + 4 + length) {
                break (head, String::from_utf8_lossy(body).into_owned());
            }
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let status = {
        let mut messages = messages.lock().expect("no test panics while it writes down");
        let number = messages.len();
        messages.push(Message {
            id: header(&head, "webhook-id"),
            timestamp: header(&head, "webhook-timestamp").parse().unwrap_or(0),
            signatures: header(&head, "webhook-signature"),
            body,
        });
        status(number)
    };
    let answer = format!("HTTP/1.1 {status} X\r\nlocation: http://{at}/elsewhere\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    socket.write_all(answer.as_bytes()).await.ok()
}

fn header(head: &str, name: &str) -> String {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
    line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_the_vector_of_the_reference_libraries() {
        let message = Message {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(),
            timestamp: 1_614_265_330,
            signatures: "v1,bm9wZQ== v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".into(),
            body: r#"{"test": 2432232314}"#.into(),
        };
        assert!(message.is_signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        assert!(!Message { timestamp: 1, ..message }.is_signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    }
}
