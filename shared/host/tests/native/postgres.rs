//! As much of a Postgres server as one statement needs: it answers what it is told to, or with the number of the connection that was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What a statement is answered.
pub(crate) enum Reply {
    /// The connection's number.
    Number,
    /// An error of this SQLSTATE.
    Error(&'static str),
    /// The connection is closed.
    Hangup,
    /// Nothing.
    Silence,
}

/// The server. What it was not told to answer it answers with the connection's number.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    /// Told when a statement is met with silence.
    pub(crate) silent: Arc<Notify>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (replies, silent) = (Arc::<Mutex<VecDeque<Reply>>>::default(), Arc::<Notify>::default());
        let server = Self { address, replies: Arc::clone(&replies), silent: Arc::clone(&silent) };
        tokio::spawn(async move {
            for number in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (replies, silent) = (Arc::clone(&replies), Arc::clone(&silent));
                tokio::spawn(async move {
                    // A client that hangs up ends its connection.
                    let _ = converse(stream, number, &replies, &silent).await;
                });
            }
        });
        server
    }

    pub(crate) fn will(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap().extend(replies);
    }
}

fn message(to: &mut Vec<u8>, tag: u8, body: &[u8]) {
    to.push(tag);
    to.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    to.extend_from_slice(body);
}

async fn converse(mut stream: TcpStream, number: usize, replies: &Mutex<VecDeque<Reply>>, silent: &Notify) -> std::io::Result<()> {
    let length = stream.read_u32().await?;
    stream.read_exact(&mut vec![0; length as usize - 4]).await?;
    let mut welcome = Vec::new();
    message(&mut welcome, b'R', &0_u32.to_be_bytes());
    message(&mut welcome, b'Z', b"I");
    stream.write_all(&welcome).await?;
    loop {
        let tag = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        stream.read_exact(&mut vec![0; length as usize - 4]).await?;
        if tag != b'S' {
            continue;
        }
        let reply = replies.lock().unwrap().pop_front().unwrap_or(Reply::Number);
        let mut answer = Vec::new();
        match reply {
            Reply::Number => {
                let text = number.to_string();
                message(&mut answer, b'1', &[]);
                message(&mut answer, b'2', &[]);
                // One column "c": no table, no column number, type text (25) of any length, no modifier, binary.
                message(&mut answer, b'T', b"\0\x01c\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x01");
                let cell = [&b"\0\x01"[..], &u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
                message(&mut answer, b'D', &cell);
                message(&mut answer, b'C', b"SELECT 1\0");
            }
            Reply::Error(state) => {
                let fields = format!("SERROR\0VERROR\0C{state}\0Mrefused\0Da row's values\0\0");
                message(&mut answer, b'E', fields.as_bytes());
            }
            Reply::Hangup => return Ok(()),
            Reply::Silence => {
                silent.notify_one();
                continue;
            }
        }
        message(&mut answer, b'Z', b"I");
        stream.write_all(&answer).await?;
    }
}
