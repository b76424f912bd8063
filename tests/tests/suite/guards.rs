//! The list of guards (`guards.toml`) cannot rot: what is taken away is in the code, once. What is done with it: `scripts/prove guards`.

use astra_tests::Db;
use std::collections::BTreeSet;
use std::path::Path;

/// Each value is a literal on one line: no more of TOML is needed.
fn value(line: &str) -> (&str, &str) {
    let value = line.split_once(" = '''").and_then(|(name, value)| Some((name, value.strip_suffix("'''")?)));
    value.unwrap_or_else(|| panic!("not a literal on one line: {line}"))
}

fn guards(text: &str) -> impl Iterator<Item = Vec<(&str, &str)>> {
    text.split("[[guard]]\n")
        .skip(1)
        .map(|guard| guard.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(value).collect())
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test]
async fn each_guard_is_in_the_code_once() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().unwrap();
    let text = read(&tests.join("guards.toml"));
    let db = Db::connect().await;
    let (mut names, mut wrong) = (BTreeSet::new(), Vec::new());
    for guard in guards(&text) {
        let get = |key: &str| guard.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let name = get("name").unwrap();
        let is_there = match (get("file"), get("function"), get("old")) {
            (Some(file), None, Some(old)) => read(&root.join(file)).matches(old).count() == 1,
            (None, Some(function), Some(old)) => {
                let is = db.rows("SELECT pg_get_functiondef($1::text::regprocedure) AS text", &[function]).await;
                is[0]["text"].as_str().unwrap().matches(old).count() == 1
            }
            (None, None, None) => get("sql").is_some() && get("undo").is_some(),
            _ => false,
        };
        if !names.insert(name)
            || !is_there
            || get("old").is_some_and(|old| Some(old) == get("new"))
            || get("tests").is_some() == get("crate").is_some()
        {
            wrong.push(format!("{name}: {guard:?}"));
        }
    }
    assert!(names.len() >= 60, "{} guards", names.len());
    assert!(wrong.is_empty(), "change tests/guards.toml with the code:\n{}", wrong.join("\n"));
}
