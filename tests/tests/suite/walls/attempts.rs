//! Every table, every role, every command, with A's proof, with none and with false ones.
//!
//! A role without the right is refused. One with it finds A's row and never B's; what would become a row of B is refused; a proof that is not good is an error wherever it is
//! looked at. `astra_quota_inside` goes by what its functions have verified, the setting; the two roles that see more than one workspace do so where OTHERS says it.

use super::filled::{Filled, Table, Whose};
use super::{FUNCTIONS, MAINTENANCE, OTHERS};
use astra_tests::session::{Refused, Session};
use astra_tests::{Db, environment, jwt, proof};

const COMMANDS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

type Outcome = Result<u64, Refused>;

/// What a role may do with a table, and a column that it may change and read.
struct Right {
    commands: Vec<String>,
    column: Option<String>,
    tenants_column: bool,
}

async fn right(db: &Db, role: &str, table: &Table) -> Right {
    let name = table.name(Whose::A);
    let sql = "SELECT p.command FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p(command)
               WHERE CASE p.command WHEN 'DELETE' THEN has_table_privilege($1, $2, 'DELETE') ELSE has_any_column_privilege($1, $2, p.command) END";
    let usage = "SELECT has_schema_privilege($1, (SELECT relnamespace FROM pg_class WHERE oid = $2::regclass), 'USAGE') AS may";
    let mut commands: Vec<_> = db.rows(sql, &[role, name]).await.iter().map(|row| row["command"].as_str().unwrap().to_owned()).collect();
    if db.rows(usage, &[role, name]).await[0]["may"] != true {
        commands.clear();
    }
    let may_change = async |column: &str| {
        let sql = "SELECT has_column_privilege($1, $2, $3, 'UPDATE') AND has_column_privilege($1, $2, $3, 'SELECT') AS may";
        db.rows(sql, &[role, name, column]).await[0]["may"] == true
    };
    let mut column = None;
    for candidate in table.columns().iter().filter(|column| Some(column.as_str()) != table.column()) {
        if column.is_none() && may_change(candidate.trim_matches('"')).await {
            column = Some(candidate.clone());
        }
    }
    // A table of nothing but the workspace's name, or one whose changing columns cannot be read.
    let tenants_column = match table.column() {
        Some(tenants) => may_change(tenants).await,
        None => false,
    };
    Right { commands, column, tenants_column }
}

/// The statement of a command on the rows of one of the two.
fn statement(command: &str, table: &Table, whose: Whose, right: &Right) -> String {
    let (name, rows) = (table.name(whose), table.rows_of(whose));
    let column = right.column.as_deref().or(table.column()).unwrap_or("id");
    match command {
        "SELECT" => format!("SELECT {} FROM {name} WHERE {rows}", table.column().unwrap_or("id")),
        "INSERT" => table.insert(whose),
        "UPDATE" => format!("UPDATE {name} SET {column} = {column} WHERE {rows}"),
        _ => format!("DELETE FROM {name} WHERE {rows}"),
    }
}

fn is_refused(outcome: &Outcome) -> bool {
    outcome.as_ref().is_err_and(|refused| refused.code == "42501")
}

/// The wall lets the row be: it is there, or would be if its key were not taken.
fn is_let_through(command: &str, outcome: &Outcome) -> bool {
    match (command, outcome) {
        ("INSERT", Err(refused)) => refused.code.starts_with("23"),
        (_, Ok(rows)) => *rows > 0,
        _ => false,
    }
}

/// Nothing of it is seen or changed.
fn is_kept_out(command: &str, outcome: &Outcome) -> bool {
    match (command, outcome) {
        ("INSERT", Err(refused)) => refused.code == "42501" && refused.message.contains("row-level security"),
        ("INSERT", Ok(_)) | (_, Err(_)) => false,
        (_, Ok(rows)) => *rows == 0,
    }
}

/// The opening of a transaction with a proof. The owners' roles are not all given `astra.enter`, which does no more than this.
fn entering(role: &str, proof: &str) -> String {
    if FUNCTIONS.contains(&role) {
        format!("SELECT astra.enter('{proof}')")
    } else {
        format!("SELECT set_config('astra.proof', '{proof}', true)")
    }
}

/// Openings of a transaction that are no good proof of B, by what is wrong with them.
fn false_proofs(role: &str, a: &str, b: &str) -> Vec<(&'static str, String)> {
    let (kid, key) = environment::tenant_key();
    let said = |workspace: &str, expires: i64, kid: &str| format!("{workspace} {expires} {kid} ");
    let (soon, past) = (jwt::now() + 300, jwt::now() - 10);
    let good = proof::of(a);
    let enter = |proof: &str| entering(role, proof);
    vec![
        ("another key", enter(&proof::signed(&said(b, soon, &kid), b"a key that nobody has, of 32 bytes"))),
        ("a kid that is none", enter(&proof::signed(&said(b, soon, "nobody"), &key))),
        ("no kid", enter(&proof::signed(&format!("{b} {soon}"), &key))),
        ("expired", enter(&proof::signed(&said(b, past, &kid), &key))),
        ("expired, of A", enter(&proof::signed(&said(a, past, &kid), &key))),
        ("A's with B's name", enter(&good.replacen(a, b, 1))),
        ("A's with another end", enter(&good.replacen(" dev ", " dev  ", 1).replacen(&kid, &format!("{kid} "), 1))),
        ("A's MAC cut off", enter(&good[1..])),
        ("no MAC", enter(&format!("{} {}", "0".repeat(64), said(b, soon, &kid)))),
        ("only B's name", enter(b)),
        ("the setting alone", format!("SET LOCAL astra.proof = '{b}'")),
        ("the setting after A's proof", format!("{}; SET LOCAL astra.proof = '{}'", enter(&good), good.replacen(a, b, 1))),
    ]
}

#[tokio::test]
async fn no_role_reaches_another_workspaces_row_by_any_command() {
    let (filled, db) = (Filled::new().await, Db::connect().await);
    let Filled { a, b, tables } = &filled;
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for role in FUNCTIONS.into_iter().chain(["astra_owner", "astra_eraser", "astra_quota_inside"]) {
        let session = if FUNCTIONS.contains(&role) { Session::of_function(role).await } else { Session::of_owner(role).await };
        let inside = role == "astra_quota_inside";
        let opened = if inside { format!("SET LOCAL astra.workspace = '{}'", a.id) } else { entering(role, &proof::of(&a.id)) };
        for table in tables {
            let right = right(&db, role, table).await;
            for command in COMMANDS {
                let (of_a, of_b) = (statement(command, table, Whose::A, &right), statement(command, table, Whose::B, &right));
                let what = |opening: &str| format!("{role}, {opening}: {command} {}", table.name(Whose::B));
                let mut expect = |good: bool, what: String, outcome: &Outcome| {
                    tried += 1;
                    if !good {
                        wrong.push(format!("{what}: {outcome:?}"));
                    }
                };
                let (own, others) = (session.rows(&opened, &of_a).await, session.rows(&opened, &of_b).await);
                let may = right.commands.iter().any(|may| may == command);
                if !may || (table.is_append_only && ["UPDATE", "DELETE"].contains(&command) && role != "astra_eraser") {
                    // Some are refused row by row: there is none of B's.
                    let other_refused = is_refused(&others) || (may && is_kept_out(command, &others));
                    expect(is_refused(&own) && other_refused, what("without the right"), &own);
                    continue;
                }
                // Rows that others point to stay, by their keys.
                let kept_by_key = command == "DELETE" && own.as_ref().is_err_and(|refused| refused.code == "23503");
                expect(is_let_through(command, &own) || kept_by_key, format!("{} of A's own", what("as A")), &own);
                expect(is_kept_out(command, &others), what("as A"), &others);
                let keeps_it_up = role == "astra_owner" && MAINTENANCE.iter().any(|name| table.name(Whose::B) == format!("public.{name}"));
                let nobody = session.rows("SELECT 1", &of_b).await;
                expect(is_kept_out(command, &nobody) != keeps_it_up, what("as nobody"), &nobody);
                if command == "UPDATE" && right.tenants_column {
                    let column = table.column().unwrap();
                    let given_away = format!("UPDATE {} SET {column} = '{}' WHERE {}", table.name(Whose::A), b.id, table.rows_of(Whose::A));
                    let moved = session.rows(&opened, &given_away).await;
                    expect(is_refused(&moved), format!("{} a row of A made B's", what("as A")), &moved);
                }
                if inside {
                    // A proof alone is nothing to it: only what its functions have verified.
                    let proved = session.rows(&entering(role, &proof::of(&b.id)), &of_b).await;
                    expect(is_kept_out(command, &proved), what("by a proof alone"), &proved);
                    continue;
                }
                // The setting that astra_quota_inside goes by is nothing to the others.
                for before in ["SELECT 1", opened.as_str()].into_iter().skip(usize::from(keeps_it_up)) {
                    let named = session.rows(&format!("{before}; SET LOCAL astra.workspace = '{}'", b.id), &of_b).await;
                    expect(is_kept_out(command, &named), what("by the other setting"), &named);
                }
                for (why, opening) in false_proofs(role, &a.id, &b.id) {
                    let outcome = session.rows(&opening, &of_b).await;
                    let good = outcome.as_ref().is_err_and(|refused| ["42501", "22P02", "22023"].contains(&refused.code.as_str()));
                    expect(good, what(why), &outcome);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried} attempts:\n{}", wrong.len(), wrong.join("\n"));
    println!("{tried} attempts on {} tables", tables.len());
    assert!(tried > 1500 && tables.len() >= 20, "{tried} attempts on {} tables", tables.len());
}

#[tokio::test]
async fn who_sees_across_workspaces_does_so_where_it_is_said_and_only_so() {
    let (filled, db) = (Filled::new().await, Db::connect().await);
    let mut wrong = Vec::new();
    for role in ["astra_operator", "astra_crossing", "astra_books"] {
        let session = Session::of_owner(role).await;
        for table in &filled.tables {
            let right = right(&db, role, table).await;
            let named = table.name(Whose::B).strip_prefix("public.").unwrap_or_default();
            let said = OTHERS.iter().find(|(name, _, who, ..)| *name == named && *who == role).map(|(.., commands, _)| *commands);
            for command in COMMANDS {
                let outcome = session.rows("SELECT 1", &statement(command, table, Whose::B, &right)).await;
                // What grants write is added and ended, and never removed; so are invoices. Roll-ups are made anew.
                let may = said.is_some_and(|commands| match (command, role) {
                    ("SELECT", _) => true,
                    ("DELETE", role) => role == "astra_books" && named.starts_with("usage_"),
                    ("UPDATE", "astra_books") => named.starts_with("usage_") || named == "invoice_heads",
                    _ => commands == "ALL",
                });
                if if may { !is_let_through(command, &outcome) } else { !is_refused(&outcome) } {
                    wrong.push(format!("{role}: {command} {}: {outcome:?}", table.name(Whose::B)));
                }
            }
        }
        // And never what was said.
        for secret in [
            "SELECT nonce FROM public.secrets",
            "SELECT content FROM public.messages",
            "SELECT draft FROM public.holds",
            "SELECT create_body FROM public.workspaces",
        ] {
            let outcome = session.rows("SELECT 1", secret).await;
            if !(is_refused(&outcome) || (role == "astra_operator" && secret.contains("create_body"))) {
                wrong.push(format!("{role}: {secret}: {outcome:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
