//! Billing on AWS Lambda, and its scheduled jobs.

#[cfg(not(target_arch = "wasm32"))]
mod schedule {
    use astra_host::Host as _;
    use astra_host::lambda::events::{EventError, Events};
    use billing::jobs;
    use gateway::lambda::LambdaHost;

    /// The task's name.
    const TASK: &str = "run-jobs";

    pub(crate) struct Schedule(pub(crate) LambdaHost);

    impl Events for Schedule {
        async fn scheduled(&self, task: &str) -> Result<(), EventError> {
            if task != TASK {
                return Err(EventError(format!("there is no scheduled task {task:?}; there is {TASK}")));
            }
            jobs::run_due(&self.0, self.0.now().plus_millis(jobs::RUN_MILLIS)).await;
            Ok(())
        }

        async fn message(&self, _: &str) -> Result<(), EventError> {
            Err(EventError("this function reads no queue".into()))
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    use gateway::{lambda, rules::Function};

    let check = |shared: &astra_host::Shared| {
        shared.secrets_key()?;
        shared.receipt_keys()?;
        billing::letterhead::Letterhead::read(shared).map(drop)
    };
    lambda::run(Function::Billing, billing::routes::router::<lambda::LambdaHost>(), check, |host, _| Ok(schedule::Schedule(host)))
}

#[cfg(target_arch = "wasm32")]
fn main() {}
