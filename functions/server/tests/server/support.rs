//! A server on a free port of loopback, and who talks to it.

use astra_edge::functions;
use astra_edge::listen::{self, Bounds, Ended};
use astra_host::native::{self, Counter, NativeHost, Pool, Process, tls};
use astra_host::{CounterUnreachable, Shared};
use astra_kernel::token::AUDIENCE;
use astra_kernel::{Claims, Settings, TenantKeys, TokenKeys, WorkspaceId};
use astra_quota::words::{Answer, Ask};
use reqwest::{Method, RequestBuilder};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

pub(crate) const ORIGIN: &str = "https://app.example.com";

const TOKEN_KEYS: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

struct Fixed;

impl Settings for Fixed {
    fn get(&self, name: &str) -> Option<String> {
        let value = match name {
            "TOKEN_KEYS" | "TENANT_KEYS" | "RECEIPT_KEYS" => TOKEN_KEYS,
            "SECRETS_KEY" => "s1:HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4",
            "OPENAI_API_KEY" => "sk-test",
            _ => return None,
        };
        Some(value.to_owned())
    }
}

/// A counter that answers as a function says.
struct Told<F>(F);

impl<F: Fn(&Ask) -> Answer + Send + Sync + 'static> Counter for Told<F> {
    async fn ask(&self, _: &WorkspaceId, ask: &Ask) -> Result<Answer, CounterUnreachable> {
        Ok((self.0)(ask))
    }
}

/// A counter that is there and knows nothing.
pub(crate) fn pong(ask: &Ask) -> Answer {
    match ask {
        Ask::Ping => Answer::Pong,
        _ => Answer::Unavailable,
    }
}

fn keys() -> Arc<TenantKeys> {
    Arc::new(TenantKeys::parse(TOKEN_KEYS).unwrap())
}

/// A pool of no connections to nowhere.
pub(crate) fn no_pool() -> Pool {
    Pool::open("DATABASE_URL", "postgres://app:p@127.0.0.1:1/astra?sslmode=disable", 1, tls::client(None).unwrap(), keys()).unwrap()
}

/// A running server. Nobody listens where its database should be.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<JoinHandle<Ended>>,
    _no_database: TcpSocket,
}

impl Server {
    pub(crate) async fn start(counter: impl Fn(&Ask) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(counter, Duration::from_mins(10)).await
    }

    pub(crate) async fn start_with(counter: impl Fn(&Ask) -> Answer + Send + Sync + 'static, grace: Duration) -> Self {
        Self::start_within(counter, Bounds { connections: 100, grace }).await
    }

    pub(crate) async fn start_within(counter: impl Fn(&Ask) -> Answer + Send + Sync + 'static, bounds: Bounds) -> Self {
        let no_database = TcpSocket::new_v4().unwrap();
        no_database.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let url = format!("postgres://app:p@{}/astra?sslmode=disable", no_database.local_addr().unwrap());
        let pool = Pool::open("DATABASE_URL", &url, 2, tls::client(None).unwrap(), keys()).unwrap();
        let tasks = TaskTracker::new();
        let process = Process::new(Shared::new(Box::new(Fixed)), Told(counter), tasks.clone()).unwrap();
        let app = functions::app(ORIGIN.to_owned(), |_| NativeHost::new(Arc::clone(&process), pool.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopping = async {
            let _ = stopped.await;
        };
        let ended = Some(tokio::spawn(listen::serve(listener, Arc::new(app), tasks, stopping, bounds)));
        // No TLS is spoken here, but reqwest, built without a provider of its own, wants one.
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls::client(None).unwrap()).no_proxy().build().unwrap();
        Self { address, client, stop: Some(stop), ended, _no_database: no_database }
    }

    /// A request in the making.
    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// Sends bytes and reads what comes until the other end closes.
    pub(crate) async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Asks it to stop.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// How it ended.
    pub(crate) async fn ended(&mut self) -> Ended {
        self.ended.take().unwrap().await.unwrap()
    }
}

/// An operator's token.
pub(crate) fn operator() -> String {
    token(None, "operator")
}

/// A token. `workspace` is none for operators.
pub(crate) fn token(workspace: Option<&str>, role: &str) -> String {
    let now = native::now().unix_seconds();
    let claims = Claims {
        sub: "user-1".into(),
        ws: workspace.map(|ws| ws.to_owned().try_into().unwrap()),
        role: role.into(),
        scope: None,
        jti: "j".into(),
        iat: now,
        exp: now + 600,
        iss: AUDIENCE.into(),
        aud: AUDIENCE.into(),
    };
    TokenKeys::parse(TOKEN_KEYS).unwrap().sign(&claims).unwrap()
}
