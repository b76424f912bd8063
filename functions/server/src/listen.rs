//! The sockets: one task per connection, and an end that loses nothing that can be finished in time.
//!
//! hyper itself and not `axum::serve`, which has no limit on how long a client may take to send a request's head. HTTP/1.1: TLS and HTTP/2 are the business
//! of what stands in front.
//!
//! The end, once it is asked for: nothing more is accepted, connections at rest are closed, others after their answer. Requests, streams and background work
//! are waited for until the grace is over. A turn that is cut off then is one that died: its hold expires and is charged what was last reported.

use astra_host::native::{self, RequestLabels, metrics};
use astra_host::stream::TurnHost;
use axum::body::Body;
use axum::response::Response;
use futures_util::future::{Either, select};
use gateway::app::App;
use gateway::rules::{self, Function};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tower_http::timeout::TimeoutBody;

/// How long a client may take to send a request's head, and how long a connection may rest between two requests: longer than load balancers usually
/// keep one (60 s), so that it is they who close it.
const HEAD: Duration = Duration::from_secs(75);

/// How long after the last task connections may take to bring their last bytes out.
const FLUSH: Duration = Duration::from_secs(5);

/// How long nothing is accepted after that failed: mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a client may send nothing of a request's body.
const BODY: Duration = Duration::from_secs(20);

/// How the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All work was finished.
    Whole,
    /// The grace was over and so many tasks were still at work.
    CutOff(usize),
}

/// How much may be under way.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections of clients at once. Further ones wait until one ends.
    pub connections: usize,
    /// How long work that is under way may take once the end is asked for.
    pub grace: Duration,
}

/// Serves until `stop` is ready, then finishes what is under way. `tasks` are those of the hosts, too.
pub async fn serve<H: TurnHost>(
    listener: TcpListener,
    app: Arc<App<H>>,
    tasks: TaskTracker,
    stop: impl Future<Output = ()>,
    Bounds { connections: most, grace }: Bounds,
) -> Ended {
    let connections = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let mut stop = pin!(stop);
    loop {
        // Room first: what is not accepted waits in the system's queue, where it costs nothing.
        let accept = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        match select(stop.as_mut(), pin!(accept)).await {
            Either::Left(((), _)) => break,
            Either::Right((Ok((stream, permit)), _)) => {
                let connection = connect(stream, &app, &tasks, &connections);
                tokio::spawn(async move {
                    metrics().connections.inc();
                    // A client that hangs up ends its own connection and nothing else.
                    let _ = connection.await;
                    metrics().connections.dec();
                    drop(permit);
                });
            }
            Either::Right((Err(error), _)) => {
                native::log(&serde_json::json!({ "event": "accept", "error": error.to_string() }).to_string());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    let finish = async {
        let connections = pin!(connections.shutdown());
        match select(pin!(tasks.wait()), connections).await {
            // A connection that never sent a request would be waited for.
            Either::Left(((), connections)) => drop(timeout(FLUSH, connections).await),
            Either::Right(((), tasks)) => tasks.await,
        }
    };
    match timeout(grace, finish).await {
        Ok(()) => Ended::Whole,
        Err(_) => Ended::CutOff(tasks.len()),
    }
}

fn connect<H: TurnHost>(
    stream: TcpStream,
    app: &Arc<App<H>>,
    tasks: &TaskTracker,
    connections: &GracefulShutdown,
) -> impl Future<Output = hyper::Result<()>> + use<H> {
    // An event is worth a packet of its own. A socket that is already dead fails below.
    let _ = stream.set_nodelay(true);
    let (app, tasks) = (Arc::clone(app), tasks.clone());
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (app, tasks) = (Arc::clone(&app), tasks.clone());
        async move { Ok::<_, Infallible>(answer(app, &tasks, request).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEAD).serve_connection(TokioIo::new(stream), service);
    connections.watch(connection)
}

async fn answer<H: TurnHost>(app: Arc<App<H>>, tasks: &TaskTracker, request: http::Request<hyper::body::Incoming>) -> Response {
    let began = Instant::now();
    let function = rules::function_for(request.uri().path()).map_or("gateway", Function::name);
    let response = app.answer_apart(tasks, request.map(|body| Body::new(Box::pin(TimeoutBody::new(BODY, body))))).await;
    metrics().request(&RequestLabels { function, status: response.status().as_u16() }, began.elapsed());
    response
}
