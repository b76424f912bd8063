//! The audit log's entries and the chain that they make: what an export is verified by, with no database at hand.
//!
//! An entry's hash is SHA-256 over a JSON array without blanks, in UTF-8: `[workspace, seq, at, actor, action, target, outcome, detail, hash of the entry before]`.
//! seq is a number, everything else a string: actor and detail are the text of their JSON, keys in the order of their bytes (actor is empty when nobody acted),
//! hashes are hexadecimal. The first entry's hash before is 64 zeros. `astra.audit_bytes` (migrations/0026) makes the same bytes; the
//! black-box suite compares them.

use crate::chain::Link;
use crate::{Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// A value of who acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Word {
    /// A text.
    Text(String),
    /// A yes or no.
    Flag(bool),
    /// Nothing.
    Nothing(()),
}

/// Who did what to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The workspace whose log it is in.
    pub workspace_id: WorkspaceId,
    /// Its place there: 1, 2, 3 and so on, without a gap.
    pub seq: u64,
    /// When, by the database's clock.
    pub at: Timestamp,
    /// Who: `sub`, `operator`, `jti` of the token, `request`; none when it was the deployment's own work.
    pub actor: Option<BTreeMap<String, Word>>,
    /// What: `member.add`.
    pub action: String,
    /// To what: an id or a name.
    pub target: String,
    /// `allowed` or `denied`.
    pub outcome: String,
    /// What else there is to say; texts only.
    pub detail: BTreeMap<String, String>,
    /// The hash of the entry before, hexadecimal.
    pub prev_hash: String,
    /// The entry's hash, hexadecimal.
    pub hash: String,
}

impl Entry {
    /// What the hash is made of.
    ///
    /// # Errors
    /// None that can come: strings are JSON.
    pub fn bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let Self { workspace_id, seq, at, actor, action, target, outcome, detail, prev_hash, hash: _ } = self;
        let actor = actor.as_ref().map(serde_json::to_string).transpose()?.unwrap_or_default();
        serde_json::to_vec(&(workspace_id, seq, at, actor, action, target, outcome, serde_json::to_string(detail)?, prev_hash))
    }
}

impl Link for Entry {
    fn workspace(&self) -> &WorkspaceId {
        &self.workspace_id
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn prev_hash(&self) -> &str {
        &self.prev_hash
    }

    fn hash(&self) -> &str {
        &self.hash
    }

    fn made_hash(&self) -> Option<String> {
        self.bytes().ok().map(|bytes| hex::encode(Sha256::digest(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{BEGINNING, Broken, verify};

    fn chain(length: u64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for seq in 1..=length {
            let mut entry = Entry {
                workspace_id: "acme".to_owned().try_into().unwrap(),
                seq,
                at: Timestamp(1_795_521_600_000),
                actor: (seq > 1)
                    .then(|| BTreeMap::from([("sub".into(), Word::Text("a\"b".into())), ("operator".into(), Word::Flag(true))])),
                action: "member.add".into(),
                target: "anna\u{1}\u{e9}\u{1f600}\\/\n".into(),
                outcome: "allowed".into(),
                detail: BTreeMap::from([("role".into(), "admin".into())]),
                prev_hash: entries.last().map_or_else(|| BEGINNING.to_owned(), |before| before.hash.clone()),
                hash: String::new(),
            };
            entry.hash = entry.made_hash().unwrap();
            entries.push(entry);
        }
        entries
    }

    #[test]
    fn the_bytes_are_these() {
        let expected = r#"["acme",2,"2026-11-24T12:00:00.000Z","{\"operator\":true,\"sub\":\"a\\\"b\"}","member.add","anna\u0001é😀\\/\n","allowed","{\"role\":\"admin\"}""#;
        let bytes = String::from_utf8(chain(2)[1].bytes().unwrap()).unwrap();
        assert!(bytes.starts_with(expected), "{bytes}");
    }

    #[test]
    fn what_is_as_it_was_written_verifies_in_any_order_and_from_any_entry() {
        let mut entries = chain(5);
        entries.reverse();
        assert_eq!(verify(&mut entries), Ok(()));
        assert_eq!(verify(&mut chain(5)[2..]), Ok(()));
        assert_eq!(verify::<Entry>(&mut []), Ok(()));
    }

    #[test]
    fn what_was_changed_is_named() {
        let broken = |change: fn(&mut Vec<Entry>)| {
            let mut entries = chain(5);
            change(&mut entries);
            verify(&mut entries).unwrap_err()
        };
        let anew = |entries: &mut Vec<Entry>, n: usize| entries[n].hash = entries[n].made_hash().unwrap();
        assert_eq!(broken(|e| e[2].target.push('x')), Broken::Changed(3));
        assert_eq!(broken(|e| e[2].at = e[2].at.plus_millis(1)), Broken::Changed(3));
        assert_eq!(broken(|e| e[2].actor = None), Broken::Changed(3));
        assert_eq!(broken(|e| e[2].outcome = "denied".into()), Broken::Changed(3));
        assert_eq!(broken(|e| drop(e[2].detail.insert("a".into(), String::new()))), Broken::Changed(3));
        let mut entries = chain(5);
        entries[2].target.push('x');
        anew(&mut entries, 2);
        assert_eq!(verify(&mut entries), Err(Broken::Unchained(4)));
        assert_eq!(broken(|e| drop(e.remove(2))), Broken::Missing(3));
        assert_eq!(broken(|e| e.push(e[2].clone())), Broken::Twice(3));
        let mut entries = chain(5);
        entries[0].prev_hash = entries[4].hash.clone();
        anew(&mut entries, 0);
        assert_eq!(verify(&mut entries), Err(Broken::Unchained(1)));
        let mut entries = chain(5);
        entries[2].workspace_id = "other".to_owned().try_into().unwrap();
        anew(&mut entries, 2);
        assert_eq!(verify(&mut entries), Err(Broken::Foreign(3)));
    }
}
