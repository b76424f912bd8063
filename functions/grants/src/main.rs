//! Grants on AWS Lambda.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    use astra_host::lambda::events::NoEvents;
    use gateway::{lambda, rules::Function};

    lambda::run(Function::Grants, grants::routes::router::<lambda::LambdaHost>(), |_| Ok(()), |_, _| Ok(NoEvents))
}

#[cfg(target_arch = "wasm32")]
fn main() {}
