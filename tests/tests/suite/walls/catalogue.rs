//! What the catalogue says: tables and their policies, roles, functions.

use super::{FUNCTIONS, GLOBAL, MAINTENANCE, OTHERS, OWNERS};
use astra_tests::{Db, Session, Workspace};
use serde_json::{Value, json};

const OURS: &str = "(n.nspname IN ('public', 'astra') OR n.nspname LIKE 'mem\\_%')";

/// Tables of a workspace's rows, anything else that holds rows included: (schema, name).
async fn relations(db: &Db) -> Vec<(String, String, Value)> {
    let sql = format!(
        "SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind, c.relrowsecurity AND c.relforcerowsecurity AS forced, pg_get_userbyid(c.relowner) AS owner,
           (SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid AND i.indisprimary) AS first
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {OURS} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
    );
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    db.rows(&sql, &[]).await.into_iter().map(|row| (text(&row, "schema"), text(&row, "name"), row)).collect()
}

/// The policies that a table of this schema has to have: name, roles, command, what its rows must fulfil.
fn policies(schema: &str, table: &str) -> Vec<Value> {
    let (tenant, inside) =
        ("( SELECT astra.tenant() AS tenant)", "( SELECT current_setting('astra.workspace'::text, true) AS current_setting)");
    let rows = |who: &str| match (schema.strip_prefix("mem_"), table) {
        (Some(workspace), _) => format!("({who} = '{workspace}'::text)"),
        (None, "workspaces") => format!("(id = {who})"),
        (None, _) => format!("(workspace_id = {who})"),
    };
    let own = rows(tenant);
    let mut roles: Vec<_> = FUNCTIONS.into_iter().chain(["astra_owner"]).collect();
    if schema != "public" {
        roles.retain(|role| !["astra_quota", "astra_grants"].contains(role));
    }
    roles.sort_unstable();
    let one = |name: &str, roles: Value, command: &str, rows: &str, check: bool| json!({ "policyname": name, "roles": roles, "cmd": command, "permissive": "PERMISSIVE", "qual": rows, "with_check": check.then_some(rows) });
    let mut all =
        vec![one("inside", json!(["astra_quota_inside"]), "ALL", &rows(inside), true), one("tenant", json!(roles), "ALL", &own, true)];
    let others = OTHERS.into_iter().filter(|(name, ..)| schema == "public" && *name == table);
    all.extend(others.map(|(_, policy, role, command, across)| {
        one(policy, json!([role]), command, if across { "true" } else { &own }, command == "ALL")
    }));
    // The search by words: ids, words and whose they are, no contents (migrations/0037).
    if schema != "public" && ["memories", "chunks"].contains(&table) {
        all.push(one("words", json!(["astra_recall"]), "SELECT", "true", false));
    }
    if MAINTENANCE.contains(&table) {
        all.push(one("maintenance", json!(["astra_owner"]), "ALL", &format!("({tenant} IS NULL)"), true));
    }
    all.sort_by_key(|policy| policy["policyname"].as_str().unwrap().to_owned());
    all
}

#[tokio::test]
async fn every_table_is_a_workspaces_behind_its_policies_or_one_of_the_few_that_are_everybodys() {
    let (_a, db) = (Workspace::local().await, Db::connect().await);
    let (mut wrong, mut walled) = (Vec::new(), 0);
    for (schema, name, row) in relations(&db).await {
        let full = format!("{schema}.{name}");
        if GLOBAL.iter().any(|(global, _)| *global == full) {
            continue;
        }
        let first = match schema.as_str() {
            "public" if name == "workspaces" => "id",
            "public" => "workspace_id",
            // A memory's schema is its workspace's.
            _ => "id",
        };
        let expected = json!({ "schema": schema, "name": name, "kind": "r", "forced": true, "owner": "astra_owner", "first": first });
        if row != expected {
            wrong.push(format!("{full} is {row}, not {expected}"));
        }
        let sql = "SELECT policyname, permissive, to_jsonb(roles) AS roles, cmd, qual, with_check FROM pg_policies
                   WHERE schemaname = $1 AND tablename = $2 ORDER BY policyname COLLATE \"C\"";
        let found = db.rows(sql, &[&schema, &name]).await;
        let expected = policies(&schema, &name);
        if found != expected && !(schema.starts_with("mem_") && found.is_empty() && gone(&db, &schema).await) {
            wrong.push(format!("{full} has the policies {found:#?}, not {expected:#?}"));
        }
        walled += 1;
    }
    assert!(wrong.is_empty(), "astra.wall() makes a table's policies, the few that are everybody's stand in GLOBAL:\n{}", wrong.join("\n"));
    assert!(walled > 20, "{walled} tables were looked at");
}

/// Other tests delete their workspaces meanwhile.
async fn gone(db: &Db, schema: &str) -> bool {
    db.rows("SELECT 1 AS one FROM pg_namespace WHERE nspname = $1", &[schema]).await.is_empty()
}

#[tokio::test]
async fn what_is_everybodys_is_read_by_those_who_may_and_written_by_the_operator_alone() {
    let (db, mut wrong) = (Db::connect().await, Vec::new());
    for (table, expected) in GLOBAL {
        for role in FUNCTIONS.into_iter().chain(OWNERS) {
            let may = expected.iter().find(|(name, _)| *name == role).map_or("", |(_, may)| may);
            let found = db.rows(&format!("SELECT {} AS may", rights("$1", table)), &[role]).await;
            if found[0]["may"] != may {
                wrong.push(format!("{role} on {table}: {} instead of '{may}'", found[0]["may"]));
            }
        }
    }
    for role in FUNCTIONS {
        let keys = Session::of_function(role).await.rows("SELECT 1", "SELECT kid FROM astra.tenant_keys").await;
        if keys.as_ref().err().is_none_or(|refused| refused.code != "42501") {
            wrong.push(format!("{role} reads the keys: {keys:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// SQL for what a role may do with any column of a table, in the order SELECT INSERT UPDATE DELETE.
fn rights(role: &str, table: &str) -> String {
    format!(
        "(SELECT COALESCE(string_agg(p.command, ' ' ORDER BY p.n), '') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY p(command, n)
          WHERE CASE p.command WHEN 'DELETE' THEN has_table_privilege({role}, '{table}', 'DELETE') ELSE has_any_column_privilege({role}, '{table}', p.command) END)"
    )
}

#[tokio::test]
async fn the_functions_roles_own_nothing_are_nobody_else_and_cannot_become_it() {
    let (db, mut wrong) = (Db::connect().await, Vec::new());
    let roles = db
        .rows("SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolinherit AS strong, rolcanlogin AS login
               FROM pg_roles WHERE rolname LIKE 'astra%' ORDER BY rolname", &[])
        .await;
    for role in &roles {
        let name = role["rolname"].as_str().unwrap();
        let known = FUNCTIONS.contains(&name) || OWNERS.contains(&name);
        if !known || role["strong"] != false || role["login"] != FUNCTIONS.contains(&name) {
            wrong.push(format!("a role with other rights than it should have, or that this test does not know: {role}"));
        }
    }
    assert_eq!(roles.len(), FUNCTIONS.len() + OWNERS.len());
    for role in FUNCTIONS {
        let owned =
            "SELECT d.classid::regclass::text AS what, d.objid::text FROM pg_shdepend d WHERE d.refobjid = $1::regrole AND d.deptype = 'o'";
        let member = "SELECT m.roleid::regrole::text AS of FROM pg_auth_members m WHERE m.member = $1::regrole";
        for sql in [owned, member] {
            let found = db.rows(sql, &[role]).await;
            if !found.is_empty() {
                wrong.push(format!("{role} owns something or is somebody: {found:?}"));
            }
        }
        let session = Session::of_function(role).await;
        for other in FUNCTIONS.into_iter().chain(OWNERS).chain(["postgres", "pg_read_all_data"]).filter(|other| *other != role) {
            for statement in [format!("SET ROLE {other}"), format!("SET SESSION AUTHORIZATION {other}")] {
                let became = session.rows("SELECT 1", &statement).await;
                if became.as_ref().err().is_none_or(|refused| refused.code != "42501") {
                    wrong.push(format!("{role}: {statement}: {became:?}"));
                }
            }
        }
        for statement in [
            "CREATE TABLE public.mine (n int)",
            "CREATE SCHEMA mine",
            "CREATE FUNCTION astra.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER TABLE public.members DISABLE ROW LEVEL SECURITY",
            "DROP POLICY tenant ON public.members",
            "SET LOCAL session_replication_role = replica",
        ] {
            let made = session.rows("SELECT 1", statement).await;
            if made.as_ref().err().is_none_or(|refused| refused.code != "42501") {
                wrong.push(format!("{role}: {statement}: {made:?}"));
            }
        }
        // It does not help to switch row security off: what would be filtered is refused then.
        let off = session.rows("SET LOCAL row_security = off", "SELECT id FROM public.workspaces").await;
        if off.as_ref().err().is_none_or(|refused| refused.code != "42501") {
            wrong.push(format!("{role} reads without row security: {off:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_counters_role_has_no_right_to_any_table() {
    let db = Db::connect().await;
    let sql = format!(
        "SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {OURS} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (has_any_column_privilege('astra_quota', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
           OR has_table_privilege('astra_quota', c.oid, 'DELETE, TRUNCATE, TRIGGER'))"
    );
    assert_eq!(db.rows(&sql, &[]).await, Vec::<Value>::new());
}

#[tokio::test]
async fn every_function_is_for_those_it_is_given_to_and_runs_with_a_search_path_of_its_own() {
    let db = Db::connect().await;
    let everybodys = "SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.pronamespace = 'astra'::regnamespace
                      AND (p.proacl IS NULL OR EXISTS (SELECT 1 FROM aclexplode(p.proacl) a WHERE a.grantee = 0))";
    assert_eq!(db.rows(everybodys, &[]).await, Vec::<Value>::new(), "functions that everybody may execute");
    // astra.tenant() has none, for what a SET clause costs: all its names are in full, which is looked at below.
    let definers =
        "SELECT p.oid::regprocedure::text AS name, p.proconfig, o.rolname, o.rolsuper FROM pg_proc p JOIN pg_roles o ON o.oid = p.proowner
                    WHERE p.pronamespace = 'astra'::regnamespace AND p.prosecdef AND (o.rolsuper OR o.rolcanlogin OR o.rolbypassrls
                      OR (p.proname <> 'tenant' AND NOT COALESCE('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)))";
    assert_eq!(
        db.rows(definers, &[]).await,
        Vec::<Value>::new(),
        "SECURITY DEFINER functions that a caller's search path, or too strong an owner, would make another"
    );
    let elsewhere = "SELECT p.oid::regprocedure::text AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                     WHERE p.prosecdef AND n.nspname NOT IN ('astra', 'pg_catalog', 'information_schema')
                       AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')";
    assert_eq!(db.rows(elsewhere, &[]).await, Vec::<Value>::new(), "SECURITY DEFINER functions outside of astra");
    let owners =
        "SELECT DISTINCT pg_get_userbyid(p.proowner) AS owner FROM pg_proc p WHERE p.pronamespace = 'astra'::regnamespace ORDER BY 1";
    let owners: Vec<_> = db.rows(owners, &[]).await.iter().map(|row| row["owner"].as_str().unwrap().to_owned()).collect();
    assert!(owners.iter().all(|owner| OWNERS.contains(&owner.as_str())), "{owners:?}");
}

#[tokio::test]
async fn a_callers_search_path_makes_nothing_else_of_the_proof() {
    // Names in a schema of the caller's own, before pg_catalog, as far as a role can have one: its temporary schema. Functions there are never found by a bare name, operators neither.
    let (a, session) = (Workspace::local().await, Session::of_function("astra_provision").await);
    let count = "SELECT id FROM public.workspaces";
    let proof = astra_tests::proof::of(&a.id);
    let opening = format!(
        "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'; CREATE FUNCTION pg_temp.split_part(text, text, int) RETURNS text LANGUAGE sql
           AS 'SELECT ''x'''; SET LOCAL search_path = pg_temp, pg_catalog; SELECT astra.enter('{proof}')"
    );
    assert_eq!(session.rows(&opening, count).await, Ok(1));
    let forged = proof.replacen(&a.id, "somebody-else", 1);
    let refused = session.rows(&opening.replace(&proof, &forged), count).await;
    assert_eq!(refused.map_err(|refused| refused.code), Err("42501".to_owned()));
}

#[tokio::test]
async fn all_names_in_the_function_that_verifies_proofs_are_in_full() {
    let source = Db::connect().await.rows("SELECT prosrc FROM pg_proc WHERE oid = 'astra.tenant()'::regprocedure", &[]).await;
    let source = source[0]["prosrc"].as_str().unwrap();
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    // What stands before each parenthesis: a function, or a word of SQL's own.
    for (at, _) in source.match_indices('(') {
        let name = source[..at].rsplit(|c| !is_of_a_name(c)).next().unwrap();
        let is_full = ["pg_catalog.", "astra."].iter().any(|schema| name.starts_with(schema));
        assert!(is_full || ["", "OPERATOR", "EXTRACT"].contains(&name), "{name}() could be another's");
    }
    let source = source.replace("USING ERRCODE = ", "");
    for operator in [" = ", " <> ", " < ", " > ", " || ", " + ", " - "] {
        assert!(!source.contains(operator), "{operator} could be another's");
    }
}
