//! The list of mutations (`tests/mutations.toml`) cannot rot: each text that is to be changed is in the code, once. What is done with them: `scripts/prove mutants`.

use std::collections::BTreeSet;
use std::path::Path;

/// Each value is a literal on one line: no more of TOML is needed.
fn value(line: &str) -> (&str, &str) {
    let value = line.split_once(" = '").and_then(|(name, value)| Some((name, value.strip_suffix('\'')?)));
    value.unwrap_or_else(|| panic!("not a literal on one line: {line}"))
}

fn entries(text: &str) -> impl Iterator<Item = Vec<(&str, &str)>> {
    text.split("[[mutation]]\n").skip(1).map(|entry| entry.lines().filter(|line| !line.is_empty()).map(value).collect())
}

#[test]
fn each_mutations_text_is_in_the_code_once() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(crate_folder.join("tests/mutations.toml")).unwrap();
    let (mut names, mut wrong) = (BTreeSet::new(), Vec::new());
    for entry in entries(&text) {
        let [("name", name), ("file", file), ("old", old), ("new", new), ("breaks", _)] = entry[..] else {
            panic!("not of the form: {entry:?}")
        };
        let times = std::fs::read_to_string(crate_folder.join("src").join(file)).unwrap().matches(old).count();
        if !names.insert(name) || times != 1 || old == new {
            wrong.push(format!("{name}: {times} times in src/{file}: {old}"));
        }
    }
    assert!(names.len() >= 60, "{} mutations", names.len());
    assert!(wrong.is_empty(), "change tests/mutations.toml with the rules:\n{}", wrong.join("\n"));
}
