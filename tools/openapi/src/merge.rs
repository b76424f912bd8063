//! Documents made into one.

use serde_json::{Map, Value};

/// Adds a document's paths and components to another's. The same name for two different things is a mistake in the code that is documented.
///
/// # Panics
/// On such a name: the file is not written.
pub(crate) fn add(into: &mut Value, from: &Value) {
    for member in ["paths", "components"] {
        join(&mut into[member], from[member].clone(), member);
    }
}

fn join(into: &mut Value, from: Value, at: &str) {
    match (into, from) {
        (_, Value::Null) => {}
        (Value::Object(known), Value::Object(new)) => {
            for (name, value) in new {
                let at = format!("{at}/{name}");
                match known.get_mut(&name) {
                    None => drop(known.insert(name, value)),
                    Some(same) if *same == value => {}
                    Some(other) => join(other, value, &at),
                }
            }
        }
        (known, new) => assert!(*known == new, "{at} is described twice, differently:\n{known}\n{new}"),
    }
}

/// The same document with members in alphabetical order, whatever order `serde_json` keeps.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(members))
        }
        Value::Array(entries) => Value::Array(entries.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_twice_is_once() {
        let mut document = json!({ "paths": {}, "components": { "schemas": { "A": { "type": "string" } } } });
        let other = json!({ "paths": { "/x": { "get": {} } }, "components": { "schemas": { "A": { "type": "string" }, "B": {} } } });
        add(&mut document, &other);
        assert_eq!(document["components"]["schemas"].as_object().map(Map::len), Some(2));
        assert!(document["paths"]["/x"]["get"].is_object());
    }

    #[test]
    #[should_panic(expected = "components/schemas/A/type is described twice")]
    fn two_things_under_one_name_are_a_mistake() {
        let mut document = json!({ "paths": {}, "components": { "schemas": { "A": { "type": "string" } } } });
        add(&mut document, &json!({ "components": { "schemas": { "A": { "type": "integer" } } } }));
    }
}
