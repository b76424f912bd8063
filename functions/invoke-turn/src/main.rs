//! Turns on AWS Lambda, and the end of those that have died.

#[cfg(not(target_arch = "wasm32"))]
mod expiry;

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    gateway::lambda::run(
        gateway::rules::Function::InvokeTurn,
        invoke_turn::routes::router::<gateway::lambda::LambdaHost>(),
        expiry::Expiry::new,
    )
}

#[cfg(target_arch = "wasm32")]
fn main() {}
