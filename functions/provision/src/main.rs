//! Provision on AWS Lambda.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    use astra_host::lambda::events::NoEvents;
    use gateway::{lambda, rules::Function};

    lambda::run(
        Function::Provision,
        provision::routes::router::<lambda::LambdaHost>(),
        |shared| shared.secrets_key().map(drop),
        |_, _| Ok(NoEvents),
    )
}

#[cfg(target_arch = "wasm32")]
fn main() {}
