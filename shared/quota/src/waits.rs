//! What a running turn stands still for: one limit, of one scope, over one window.
//!
//! The trap: it is kept in holds and rows that outlive the code that wrote them. Before it was one limit it was the scope alone; that is read as any limit of it. And
//! a window was named by its beginning alone; that is read as any that begins then.

use crate::window::{LimitName, Scope, Span};
use serde::{Deserialize, Serialize};

/// A limit that a turn stands still for, as a text: the scope, the window as [`Span::id`] writes it, the limit's name, with blanks between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Waits(String);

impl Waits {
    /// For this limit.
    pub fn new(scope: &Scope, window: &Span, limit: LimitName) -> Self {
        Self(format!("{} {} {}", scope.as_str(), window.id(), limit.as_str()))
    }

    /// Whether it is for this limit.
    pub fn is_for(&self, scope: &Scope, window: &Span, limit: LimitName) -> bool {
        let mut parts = self.0.split(' ');
        parts.next() == Some(scope.as_str())
            && parts.next().is_none_or(|id| id == window.id() || window.id().split('/').next() == Some(id))
            && parts.next().is_none_or(|name| name == limit.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Period;
    use astra_kernel::{AgentId, Timestamp};

    #[test]
    fn a_wait_is_for_one_limit_and_what_was_written_before_for_any_of_its_scope() {
        let hour = |n: i64| Span { period: Period::Hour, starts_at: Timestamp(n * 3_600_000), ends_at: Timestamp((n + 1) * 3_600_000) };
        let (scope, agent) = (Scope::workspace(), Scope::agent(&AgentId::try_from("a".to_owned()).unwrap()));
        let waits = Waits::new(&scope, &hour(1), LimitName::MaxTokensPerHour);
        assert!(waits.is_for(&scope, &hour(1), LimitName::MaxTokensPerHour));
        assert!(!waits.is_for(&scope, &hour(2), LimitName::MaxTokensPerHour), "another window");
        assert!(!waits.is_for(&scope, &hour(1), LimitName::MaxCostUsdPerHour), "another limit");
        assert!(!waits.is_for(&agent, &hour(1), LimitName::MaxTokensPerHour), "another scope");
        let longer = Span { ends_at: Timestamp(3 * 3_600_000), ..hour(1) };
        assert!(!waits.is_for(&scope, &longer, LimitName::MaxTokensPerHour), "another zone's window");
        let before: Waits = serde_json::from_str("\"workspace hour:1970-01-01T01:00:00.000Z maxTokensPerHour\"").unwrap();
        assert!(
            before.is_for(&scope, &hour(1), LimitName::MaxTokensPerHour) && !before.is_for(&scope, &hour(2), LimitName::MaxTokensPerHour)
        );
        let before: Waits = serde_json::from_str("\"agent:a\"").unwrap();
        assert!(
            before.is_for(&agent, &hour(2), LimitName::MaxCostUsdPerHour) && !before.is_for(&scope, &hour(1), LimitName::MaxTokensPerHour)
        );
    }
}
