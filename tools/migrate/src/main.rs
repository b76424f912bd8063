//! Applies `migrations/` to the database of `DATABASE_URL`, and sets the passwords of the functions' roles.
//!
//! Each file runs in one transaction of its own together with the row that records it, under a lock, so that two of these at once,
//! a crash half-way, or a second run do no harm. The trap: a migrating user that is not a superuser needs `CREATEROLE` and the right
//! to create in the database (`migrations/0001` says more).

mod apply;
mod connect;
mod files;
mod plan;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Applies the numbered SQL files of a folder, in order, once.
///
/// Environment: `DATABASE_URL` (`postgres://user:password@host:port/database[?sslmode=require]`; with `sslmode=require` the server's
/// certificate is verified, `PGSSLROOTCERT` names a file of further roots); `ASTRA_ROLE_PASSWORD`, when set, becomes the password of
/// `astra_provision`, `astra_invoke`, `astra_quota`, `astra_billing` and `astra_grants`; `TENANT_KEYS` (`kid:base64url[,…]`, as the functions have it), when set, become the
/// keys that the database verifies tenants' proofs with. Rotation: give both, then the functions the new one first, then only the new one.
#[derive(Parser)]
#[command(name = "astra-migrate")]
struct Arguments {
    /// The folder of the SQL files.
    #[arg(long, default_value = "migrations")]
    dir: PathBuf,
    /// Says what would be done and changes nothing.
    #[arg(long)]
    check: bool,
}

/// Why nothing more was done. Texts name the file or variable and what to do about it, never a password.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Files(#[from] files::FilesError),
    #[error(transparent)]
    Connect(#[from] connect::ConnectError),
    #[error(transparent)]
    Apply(#[from] apply::ApplyError),
    #[error(transparent)]
    Config(#[from] astra_kernel::ConfigError),
    #[error(
        "the database knows no keys for tenants' proofs yet, so no function can read a workspace: set TENANT_KEYS (kid:base64url of 32 bytes), as the \
         functions have it, and migrate again"
    )]
    NoTenantKeys,
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let migrations = files::read(&arguments.dir)?;
    let tenant_keys = std::env::var("TENANT_KEYS").ok().filter(|keys| !keys.is_empty());
    let tenant_keys = tenant_keys.map(|keys| astra_kernel::proof::keys(&keys)).transpose()?;
    let mut client = connect::connect(std::env::var("DATABASE_URL").ok().as_deref()).await?;
    let password = std::env::var("ASTRA_ROLE_PASSWORD").ok().filter(|password| !password.is_empty());
    if arguments.check {
        let pending = apply::pending(&client, &migrations).await?;
        for migration in &pending {
            println!("would apply {}", migration.name);
        }
        if pending.is_empty() {
            println!("nothing to do: all {} migrations are applied", migrations.len());
        }
        if password.is_some() {
            println!("would set the passwords of the functions' roles");
        }
        if let Some(keys) = &tenant_keys {
            println!("would set the keys for tenants' proofs: {} of them", keys.len());
        }
        return Ok(());
    }
    let applied = apply::all(&mut client, &migrations, |name| println!("applied {name}")).await?;
    if applied == 0 {
        println!("nothing to do: all {} migrations are applied", migrations.len());
    }
    if let Some(password) = password {
        apply::set_passwords(&mut client, &password).await?;
        println!("set the passwords of the functions' roles");
    }
    match tenant_keys {
        Some(keys) => {
            apply::set_tenant_keys(&mut client, &keys).await?;
            println!("set the keys for tenants' proofs: {} of them", keys.len());
        }
        None if !apply::has_tenant_keys(&mut client).await? => return Err(Failure::NoTenantKeys),
        None => {}
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
