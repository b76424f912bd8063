//! Words that must never be seen in a log: everything secret or private that the suites send carries one of them.

/// Begins every provider key that the suites store.
pub const KEY: &str = "sk-canary-";

/// Stands in every message that the suites send to an agent.
pub const TEXT: &str = "canary-text";

/// A fresh provider key.
pub fn key() -> String {
    format!("{KEY}{}", uuid::Uuid::new_v4().simple())
}

/// A message that carries the canary.
pub fn message(text: &str) -> String {
    format!("{text} ({TEXT})")
}
