//! Turns on AWS Lambda, and the end of those that have died.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    use astra_host::Host as _;
    use astra_host::lambda::expiry::Expiry;
    use gateway::{lambda, rules::Function};

    let check = |shared: &astra_host::Shared| {
        shared.secrets_key()?;
        astra_turn::TurnSettings::read(shared).map(drop)
    };
    lambda::run(Function::InvokeTurn, invoke_turn::routes::router::<lambda::LambdaHost>(), check, |host, counters| {
        Expiry::new(host.shared(), counters)
    })
}

#[cfg(target_arch = "wasm32")]
fn main() {}
