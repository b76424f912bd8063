//! Billing on AWS Lambda.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    gateway::lambda::run(gateway::rules::Function::Billing, billing::routes::router::<gateway::lambda::LambdaHost>(), |_| {
        gateway::lambda::NoEvents
    })
}

#[cfg(target_arch = "wasm32")]
fn main() {}
