//! No event is asked for before all work of the last one is finished.
//!
//! "The Invoke phase ends after the runtime and all extensions signal that they are done by sending a Next API request" (AWS's page on the execution
//! environment's life cycle): the environment is frozen when nothing is under way *and* the runtime has asked for the next event, not when the response
//! has ended. So the response goes out as soon as it is there, whole or piece by piece, and whoever called waits for nothing; the runtime then waits here.
//! The function's timeout counts until then. An extension inside of the process would do the same with a second loop and a registration at each start.
//!
//! The runtime's own loop ends, and the process with it, when a response cannot be handed over, as when the other end has gone half-way. That would cut
//! off the turn whose client it was. So that is logged, and the next event asked for; if the runtime API has really gone, asking fails.

use crate::native::log;
use lambda_runtime::Error;
use lambda_runtime::LambdaInvocation;
use lambda_runtime::tower::{Layer, Service};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::task::TaskTracker;

/// Lets an invocation end when its response was sent and all tasks are done.
#[derive(Debug, Clone)]
pub struct Whole(TaskTracker);

impl Whole {
    /// Waits for these tasks.
    pub fn new(tasks: TaskTracker) -> Self {
        tasks.close();
        Self(tasks)
    }
}

impl<S> Layer<S> for Whole {
    type Service = WholeService<S>;

    fn layer(&self, inner: S) -> WholeService<S> {
        WholeService { inner, tasks: self.0.clone() }
    }
}

/// See [`Whole`].
#[derive(Debug)]
pub struct WholeService<S> {
    inner: S,
    tasks: TaskTracker,
}

impl<S> Service<LambdaInvocation> for WholeService<S>
where
    S: Service<LambdaInvocation, Response = (), Error = Error>,
    S::Future: 'static,
{
    type Response = ();
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let id = invocation.context.request_id.clone();
        let (responded, tasks) = (self.inner.call(invocation), self.tasks.clone());
        Box::pin(async move {
            let responded = responded.await;
            tasks.wait().await;
            if let Err(error) = responded {
                log(&serde_json::json!({ "event": "response", "requestId": id, "error": error.to_string() }).to_string());
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use lambda_runtime::Config;
    use lambda_runtime::tower::service_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    fn invocation() -> LambdaInvocation {
        let (parts, ()) = http::Response::new(()).into_parts();
        let headers = [("lambda-runtime-deadline-ms", "0")];
        let headers = headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let context = lambda_runtime::Context::new("id", Arc::new(Config::default()), &headers).unwrap();
        LambdaInvocation { parts, body: bytes::Bytes::new(), context }
    }

    async fn waits_for_its_task(responded: Result<(), Error>) {
        let tasks = TaskTracker::new();
        let (finish, finished) = oneshot::channel::<()>();
        let mut responded = Some(responded);
        let spawning = tasks.clone();
        let mut finished = Some(finished);
        let mut service = Whole::new(tasks).layer(service_fn(move |_: LambdaInvocation| {
            let finished = finished.take().unwrap();
            spawning.spawn(async move { drop(finished.await) });
            let responded = responded.take().unwrap();
            async move { responded }
        }));
        let mut invoked = pin!(service.call(invocation()));
        // The response is there at once, and so is all that the runtime's one thread can do.
        for _ in 0..8 {
            tokio::task::yield_now().await;
            assert!(invoked.as_mut().now_or_never().is_none(), "the invocation ended before its task");
        }
        finish.send(()).unwrap();
        invoked.await.unwrap();
    }

    #[tokio::test]
    async fn an_invocation_ends_when_its_tasks_are_done() {
        waits_for_its_task(Ok(())).await;
    }

    #[tokio::test]
    async fn a_response_that_broke_off_cuts_off_no_task_and_ends_no_process() {
        waits_for_its_task(Err("the other end has gone".into())).await;
    }
}
