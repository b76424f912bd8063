//! Who was refused what within the last minute: so that a refusal is written down once and not as often as somebody tries.
//!
//! Each process counts for itself. Trap: when [`MOST`] others were refused within the minute, one more is not written down: the audit log is no place that a flood of tokens can
//! fill, nor is this memory.

use astra_kernel::{Permission, Timestamp, WorkspaceId};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How long a refusal stands for the same one, in milliseconds.
const MINUTE: i64 = 60_000;

/// How many are remembered.
const MOST: usize = 1000;

type Denial = (WorkspaceId, String, &'static str);

/// What is remembered.
#[derive(Debug, Default)]
pub struct Denials(Mutex<BTreeMap<Denial, Timestamp>>);

impl Denials {
    /// Whether this refusal is to be written down. From now on, for a minute, the same one is not.
    pub fn is_new(&self, workspace: &WorkspaceId, subject: &str, permission: Permission, now: Timestamp) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let denial = (workspace.clone(), subject.to_owned(), permission.as_str());
        let is_fresh = |at: &Timestamp| now.0 - at.0 < MINUTE;
        if known.get(&denial).is_some_and(is_fresh) {
            return false;
        }
        if known.len() >= MOST {
            known.retain(|_, at| is_fresh(at));
        }
        let has_room = known.len() < MOST;
        if has_room {
            known.insert(denial, now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_new_once_a_minute_and_no_more_than_so_many_are() {
        let (denials, acme) = (Denials::default(), WorkspaceId::try_from("acme".to_owned()).unwrap());
        let is_new = |subject: &str, permission, now| denials.is_new(&acme, subject, permission, Timestamp(now));
        assert!(is_new("anna", Permission::SecretWrite, 0));
        assert!(!is_new("anna", Permission::SecretWrite, MINUTE - 1));
        assert!(is_new("anna", Permission::AgentWrite, 1) && is_new("bob", Permission::SecretWrite, 1));
        assert!(is_new("anna", Permission::SecretWrite, MINUTE));
        let written = (0..2 * MOST).filter(|n| is_new(&n.to_string(), Permission::SecretWrite, MINUTE + 2)).count();
        assert_eq!(written, MOST - 1, "anna's is there still");
        assert!(is_new("carl", Permission::SecretWrite, 3 * MINUTE));
    }
}
