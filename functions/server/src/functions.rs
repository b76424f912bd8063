//! What the server serves: every function, each with its own host.

use astra_host::stream::TurnHost;
use gateway::app::{App, Part};
use gateway::rules::Function;

/// All functions behind one address. `allowed_origins` is `ALLOWED_ORIGINS`.
pub fn app<H: TurnHost>(allowed_origins: String, host: impl Fn(Function) -> H) -> App<H> {
    let parts = Function::ALL.map(|function| {
        let router = match function {
            Function::Provision => provision::routes::router::<H>(),
            Function::InvokeTurn => invoke_turn::routes::router::<H>(),
            Function::Billing => billing::routes::router::<H>(),
            Function::Grants => grants::routes::router::<H>(),
            Function::Memory => memory::routes::router::<H>(),
        };
        Part { function, router, host: host(function) }
    });
    App::new(allowed_origins, host(Function::Provision), parts)
}
