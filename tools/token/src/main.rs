//! Signs a bearer token with the deployment's `TOKEN_KEYS` and prints it, and nothing else.
//!
//! The first operator token of a deployment is made here, and no other way: whoever holds `TOKEN_KEYS` is the operator. The claims are
//! checked by verifying what was signed, with the code that the functions use.

use astra_kernel::token::AUDIENCE;
use astra_kernel::{Claims, Role, Timestamp, TokenKeys, WorkspaceId, ids};
use clap::Parser;
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

/// Signs a bearer token. Environment: `TOKEN_KEYS` (`kid:base64url[,...]`; the first one signs).
///
/// Examples: `astra-token operator --subject me` and `astra-token member --workspace customer-acme --subject user_1 --scope agent:invoke`
#[derive(Parser)]
#[command(name = "astra-token")]
struct Arguments {
    /// operator, owner, admin, member or viewer.
    role: String,
    /// The workspace; every role but operator needs it.
    #[arg(long)]
    workspace: Option<String>,
    /// The user whom the token speaks for.
    #[arg(long)]
    subject: String,
    /// How long it is good for, in seconds.
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(i64).range(1..=31_536_000))]
    expires_in: i64,
    /// Permissions to narrow it to, with commas between them (`agent:invoke,memory:*`).
    #[arg(long, value_delimiter = ',')]
    scope: Option<Vec<String>>,
}

/// Signs what the arguments say, at a moment.
fn token(arguments: Arguments, keys: &str, now: Timestamp, random: [u8; 10]) -> Result<String, String> {
    let role: Role = arguments.role.parse().map_err(|_| "a role is operator, owner, admin, member or viewer".to_owned())?;
    let ws = arguments.workspace.map(WorkspaceId::try_from).transpose().map_err(|e| format!("--workspace: {e}"))?;
    match (role, &ws) {
        (Role::Operator, Some(_)) => return Err("an operator's token has no --workspace: it is for all of them".to_owned()),
        (Role::Operator, None) | (_, Some(_)) => {}
        (_, None) => return Err(format!("a token for {} needs --workspace", role.as_str())),
    }
    if arguments.subject.is_empty() {
        return Err("--subject is empty".to_owned());
    }
    let keys = TokenKeys::parse(keys).map_err(|e| e.to_string())?;
    let claims = Claims {
        sub: arguments.subject,
        ws,
        role: role.as_str().to_owned(),
        scope: arguments.scope,
        jti: ids::uuid_v7(u64::try_from(now.0).unwrap_or(0), random).to_string(),
        iat: now.unix_seconds(),
        exp: now.unix_seconds() + arguments.expires_in,
        iss: AUDIENCE.to_owned(),
        aud: AUDIENCE.to_owned(),
    };
    let token = keys.sign(&claims).map_err(|e| e.to_string())?;
    keys.verify(&token, now).map_err(|e| e.to_string())?;
    Ok(token)
}

fn run() -> Result<String, String> {
    let arguments = Arguments::parse();
    let keys = std::env::var("TOKEN_KEYS").map_err(|_| "TOKEN_KEYS is not set: the deployment's keys, kid:base64url[,...]".to_owned())?;
    #[expect(clippy::disallowed_methods, reason = "a native program's clock is the system's")]
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
    let now = Timestamp(i64::try_from(now.as_millis()).map_err(|e| e.to_string())?);
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|e| format!("no randomness: {e}"))?;
    token(arguments, &keys, now, random)
}

fn main() -> ExitCode {
    match run() {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const KEYS: &str = "dev:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    fn signed(line: &str) -> Result<Claims, String> {
        let arguments = Arguments::try_parse_from(line.split(' ')).map_err(|e| e.to_string())?;
        let token = token(arguments, KEYS, NOW, [7; 10])?;
        TokenKeys::parse(KEYS).unwrap().verify(&token, NOW).map_err(|e| e.to_string())
    }

    #[test]
    fn an_operator_has_no_workspace_and_everybody_else_has_one() {
        assert_eq!(signed("t operator --subject me").unwrap().ws, None);
        assert!(signed("t operator --subject me --workspace a").unwrap_err().contains("no --workspace"));
        assert!(signed("t member --subject me").unwrap_err().contains("needs --workspace"));
        assert!(signed("t god --subject me").unwrap_err().contains("a role is"));
        assert!(signed("t member --subject me --workspace A_B").unwrap_err().contains("a workspace id is"));
        assert!(signed("t member --subject me --workspace a --expires-in 0").is_err());
    }

    #[test]
    fn expiry_and_scope_are_as_asked() {
        let claims = signed("t member --workspace a --subject u --expires-in 60 --scope agent:invoke,memory:*").unwrap();
        assert_eq!(claims.exp - claims.iat, 60);
        assert_eq!(claims.scope, Some(vec!["agent:invoke".to_owned(), "memory:*".to_owned()]));
    }
}
