//! Memory on AWS Lambda, and the jobs that were left behind, which a schedule asks for.

#[cfg(not(target_arch = "wasm32"))]
mod schedule {
    use astra_host::Host as _;
    use astra_host::lambda::events::{EventError, Events};
    use gateway::lambda::LambdaHost;
    use memory::work;

    /// The task's name.
    const TASK: &str = "do-jobs";

    pub(crate) struct Schedule(pub(crate) LambdaHost);

    impl Events for Schedule {
        async fn scheduled(&self, task: &str) -> Result<(), EventError> {
            if task != TASK {
                return Err(EventError(format!("there is no scheduled task {task:?}; there is {TASK}")));
            }
            let until = self.0.now().plus_millis(work::RUN_MILLIS);
            work::due(&self.0, Some(until)).await.map(drop).map_err(|error| EventError(error.to_string()))
        }

        async fn message(&self, _: &str) -> Result<(), EventError> {
            Err(EventError("this function reads no queue".into()))
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    use astra_host::native;
    use gateway::{lambda, rules::Function};

    if std::env::args().nth(1).as_deref() == Some(native::CONVERT) {
        return convert::child::run();
    }
    lambda::run(Function::Memory, memory::routes::router::<lambda::LambdaHost>(), memory::words::check, |host, _| {
        Ok(schedule::Schedule(host))
    })
}

#[cfg(target_arch = "wasm32")]
fn main() {}
