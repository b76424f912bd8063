//! Every function that a role may call, with A's proof and B's name: it tells what it would tell of a workspace that does not exist.

use super::FUNCTIONS;
use super::filled::{Filled, Whose};
use astra_tests::session::{Refused, Session};
use astra_tests::{Db, Workspace, proof, workspace};
use serde_json::{Value, json};

/// The words that these functions look for, all at once, with what one of the two has under them.
fn argument(filled: &Filled, ws: &Workspace, whose: Whose) -> Value {
    let row = |table: &str| filled.tables.iter().find(|t| t.name(Whose::A) == format!("public.{table}")).unwrap().row(whose).clone();
    let (turn, hold, grant) = (row("turns"), row("holds"), row("grants"));
    json!({
        "now": "2026-01-31T12:00:00Z", "month": "2026-01", "limit": 10, "historyLimit": 10, "topK": 3,
        "subject": "member@test", "userId": "member@test", "agentId": "plum", "role": "plum-role", "name": "PLUM_KEY", "jti": "a-token-of-somebody", "direction": "given",
        "sessionId": turn["session_id"], "turnId": hold["turn_id"], "id": grant["id"], "requestHash": "x", "newSessionId": "0199c0de-0000-7000-8000-000000000001",
        "displayName": ws.id, "plan": ws.plan, "ownerId": "owner@test", "allow": [], "deny": [], "scope": "own", "hostProviders": [], "from": "2020-01-01T00:00:00Z",
        "to": "2030-01-01T00:00:00Z", "sequence": 1, "inputBound": 1, "output": 1, "progress": {}, "definition": {}, "keyId": "k", "nonce": "", "ciphertext": "",
        "receivingWorkspaceId": "nobody-at-all", "readonly": false, "createdBy": "owner@test", "kind": "fact", "content": "x",
    })
}

/// An answer or a refusal, without the name of whom it was asked of.
fn face(answer: Result<String, Refused>, name: &str) -> String {
    match answer {
        Ok(text) => text,
        Err(refused) => format!("{} {}", refused.code, refused.message),
    }
    .replace(name, "NAME")
}

#[tokio::test]
async fn no_function_tells_of_or_touches_another_workspace_than_the_proofs() {
    let (filled, db) = (Filled::new().await, Db::connect().await);
    let (a, b, nobody) = (&filled.a, &filled.b, workspace::unique("t"));
    let entered = format!("SELECT astra.enter('{}')", proof::of(&a.id));
    let (mut wrong, mut tried, mut told) = (Vec::new(), 0, 0);
    for role in FUNCTIONS {
        let session = Session::of_function(role).await;
        let sql =
            "SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'astra'::regnamespace AND oidvectortypes(p.proargtypes) = 'text, text'
                   AND has_function_privilege($1, p.oid, 'EXECUTE') ORDER BY p.proname";
        for row in db.rows(sql, &[role]).await {
            let name = row["proname"].as_str().unwrap();
            let ask = async |workspace: &str, argument: &Value| {
                let argument = argument.to_string().replace('\'', "''");
                face(session.answer(&entered, &format!("SELECT astra.{name}('{workspace}', '{argument}')")).await, workspace)
            };
            let of_b = argument(&filled, b, Whose::B);
            let (theirs, nobodys) = (ask(&b.id, &of_b).await, ask(&nobody, &of_b).await);
            if theirs != nobodys || theirs.contains(&b.id) && !of_b.to_string().contains(&b.id) {
                wrong.push(format!("{role}: astra.{name} of B: {theirs}\n  of nobody: {nobodys}"));
            }
            tried += 1;
            told += usize::from(ask(&a.id, &argument(&filled, a, Whose::A)).await != nobodys);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{tried} functions were asked for B, {told} of them told something of A");
    assert!(
        tried > 40 && told * 2 > tried,
        "{told} of {tried} functions tell something of the workspace that the proof names: else nothing is shown here"
    );
}

#[tokio::test]
async fn the_counters_role_learns_nothing_of_another_workspace_by_any_way_of_saying_its_name() {
    let filled = Filled::new().await;
    let (a, b) = (&filled.a, &filled.b);
    let session = Session::of_function("astra_quota").await;
    let argument = r#"{"now":"2026-01-31T12:00:00Z"}"#;
    let call = |workspace: &str| format!("SELECT astra.quota_status('{workspace}', '{argument}')");
    let proof = proof::of(&a.id);
    let ok = session.answer(&format!("SELECT astra.enter('{proof}')"), &call(&a.id)).await.unwrap();
    assert!(ok.contains("\"ok\""), "{ok}");
    for opening in [
        format!("SELECT astra.enter('{proof}')"),
        format!("SELECT astra.enter('{proof}'); SET LOCAL astra.workspace = '{}'", b.id),
        format!("SET LOCAL astra.workspace = '{}'", b.id),
        format!("SELECT set_config('astra.workspace', '{}', true)", b.id),
    ] {
        let answer = session.answer(&opening, &call(&b.id)).await.unwrap();
        assert!(answer.contains("not_found"), "{opening}: {answer}");
    }
    let forged = session.answer(&format!("SELECT astra.enter('{}')", proof.replacen(&a.id, &b.id, 1)), &call(&b.id)).await;
    assert_eq!(forged.map_err(|refused| refused.code), Err("42501".to_owned()));
}
