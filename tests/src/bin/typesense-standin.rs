//! `typesense-standin FILE`: the stand-in for Typesense on a port of its own, whose address it writes to a file. scripts/test starts it beside the stack.

use astra_tests::standin;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let file = std::env::args().nth(1).ok_or_else(|| std::io::Error::other("typesense-standin FILE"))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    std::fs::write(format!("{file}.new"), format!("http://{}", listener.local_addr()?))?;
    // In one step: whoever reads it reads all of it.
    std::fs::rename(format!("{file}.new"), &file)?;
    standin::serve(listener).await
}
