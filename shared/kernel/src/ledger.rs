//! The ledger's entries, and the text that an entry's hash is of: what receipts are verified by, with no database at hand.
//!
//! The text is a JSON object without blanks, in UTF-8, whose names are [`Entry`]'s in their order but for the last, `hash`, which is SHA-256 over it. `astra.ledger_text`
//! (migrations/0034) makes the same bytes; the black-box suite compares them. A receipt's payload is the same text with `,"hash":"…"` before its closing brace, so
//! that its last [`TAIL`] bytes are what to take away. docs/ledger.md says all of it for those who write a verifier of their own.

use crate::chain::Link;
use crate::{NanoUsd, WorkspaceId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// How many bytes a receipt's payload has behind the text that is hashed, its closing brace left out: `,"hash":"` and 64 digits and `"}`.
pub const TAIL: usize = 75;

/// What was used, corrected or credited, and its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LedgerEntry)]
pub struct Entry {
    /// The workspace whose ledger it is in: which pays.
    #[schema(value_type = String)]
    pub workspace_id: WorkspaceId,
    /// Its own.
    #[schema(value_type = String, format = "uuid")]
    pub id: Uuid,
    /// `turn`, `embedding`, `extraction`, `tool`, `correction` or `credit`.
    pub kind: String,
    /// The turn; of a credit an id that its Idempotency-Key makes.
    #[schema(value_type = String, format = "uuid")]
    pub turn_id: Uuid,
    /// The entry that this one corrects.
    #[schema(required = true, value_type = Option<String>, format = "uuid")]
    pub corrects: Option<Uuid>,
    /// Of a correction: how many its turn had before it, and one.
    pub nth: u16,
    /// By which grant another workspace has used this one's agent.
    #[schema(required = true, value_type = Option<String>, format = "uuid")]
    pub grant_id: Option<Uuid>,
    /// The agent; empty for a credit of nothing in particular.
    pub agent_id: String,
    /// SHA-256 of a salt and who asked, hexadecimal.
    pub user_hash: String,
    /// The conversation.
    #[schema(required = true, value_type = Option<String>, format = "uuid")]
    pub session_id: Option<Uuid>,
    /// The model's provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Which version of its price.
    pub price_version: i32,
    /// The plan's mark-up then: what is charged is what it cost, and so many hundredths of a percent of that more.
    pub markup_basis_points: i32,
    /// Input tokens, the cached included.
    pub input_tokens: i64,
    /// Those of them that the provider had cached.
    pub cached_input_tokens: i64,
    /// Output tokens, reasoning included.
    pub output_tokens: i64,
    /// Those of them that were not shown.
    pub reasoning_tokens: i64,
    /// Tokens that were embedded.
    pub embedding_tokens: i64,
    /// What it cost.
    #[schema(value_type = i64)]
    pub cost_nano_usd: NanoUsd,
    /// What is charged for it.
    #[schema(value_type = i64)]
    pub charge_nano_usd: NanoUsd,
    /// Who counted: `provider` or `estimated`.
    pub source: String,
    /// When what was used began: RFC 3339 in UTC with six decimals. It decides the bill's month.
    pub started_at: String,
    /// Why, where somebody entered it by hand.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// Who entered it by hand.
    #[schema(required = true)]
    pub made_by: Option<String>,
    /// Its place: 1, 2, 3 and so on, without a gap.
    pub seq: u64,
    /// When it was entered, by the database's clock: never before the entry before.
    pub entered_at: String,
    /// The hash of the entry before, hexadecimal; 64 zeros for the first.
    pub prev_hash: String,
    /// The entry's hash, hexadecimal.
    pub hash: String,
}

impl Entry {
    /// What its receipt says.
    ///
    /// # Errors
    /// None that can come: strings are JSON.
    pub fn receipt(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// What its hash is of; none when the hash is not one.
    pub fn text(&self) -> Option<String> {
        let receipt = self.receipt().ok()?;
        let words = receipt.strip_suffix(&format!(",\"hash\":\"{}\"}}", self.hash))?;
        Some(format!("{words}}}"))
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
        Some(hex::encode(Sha256::digest(self.text()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{BEGINNING, Broken, verify};

    fn chain(length: u64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for seq in 1..=length {
            let id = Uuid::from_u128(seq.into());
            let mut entry = Entry {
                workspace_id: "acme".to_owned().try_into().unwrap(),
                id,
                kind: "turn".into(),
                turn_id: id,
                corrects: None,
                nth: 0,
                grant_id: None,
                agent_id: "as\"sistant".into(),
                user_hash: "aa".repeat(32),
                session_id: Some(id),
                provider: "openai".into(),
                model: "gpt\\\u{1}\u{e9}\u{1f600}/".into(),
                price_version: 1,
                markup_basis_points: 0,
                input_tokens: 12,
                cached_input_tokens: 2,
                output_tokens: 3,
                reasoning_tokens: 0,
                embedding_tokens: 0,
                cost_nano_usd: NanoUsd(54_000),
                charge_nano_usd: NanoUsd(54_000),
                source: "provider".into(),
                started_at: "2026-11-24T12:00:00.000001Z".into(),
                reason: None,
                made_by: None,
                seq,
                entered_at: "2026-11-24T12:00:01.000000Z".into(),
                prev_hash: entries.last().map_or_else(|| BEGINNING.to_owned(), |before| before.hash.clone()),
                hash: String::new(),
            };
            entry.hash = entry.made_hash().unwrap();
            entries.push(entry);
        }
        entries
    }

    #[test]
    fn the_text_is_this() {
        let entry = &chain(2)[1];
        let expected = concat!(
            r#"{"workspaceId":"acme","id":"00000000-0000-0000-0000-000000000002","kind":"turn","turnId":"00000000-0000-0000-0000-000000000002","#,
            r#""corrects":null,"nth":0,"grantId":null,"agentId":"as\"sistant","#,
            r#""userHash":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","sessionId":"00000000-0000-0000-0000-000000000002","#,
            r#""provider":"openai","model":"gpt\\\u0001é😀/","priceVersion":1,"markupBasisPoints":0,"inputTokens":12,"cachedInputTokens":2,"outputTokens":3,"reasoningTokens":0,"embeddingTokens":0,"#,
            r#""costNanoUsd":54000,"chargeNanoUsd":54000,"source":"provider","startedAt":"2026-11-24T12:00:00.000001Z","reason":null,"madeBy":null,"#,
            r#""seq":2,"enteredAt":"2026-11-24T12:00:01.000000Z","prevHash":""#
        );
        let text = entry.text().unwrap();
        assert_eq!(text, format!("{expected}{}\"}}", entry.prev_hash));
        let receipt = entry.receipt().unwrap();
        assert_eq!(format!("{}}}", &receipt[..receipt.len() - TAIL]), text);
        assert_eq!(serde_json::from_str::<Entry>(&receipt).unwrap(), *entry);
    }

    #[test]
    fn what_was_changed_is_named() {
        assert_eq!(verify(&mut chain(5)), Ok(()));
        let broken = |change: fn(&mut Vec<Entry>)| {
            let mut entries = chain(5);
            change(&mut entries);
            verify(&mut entries).unwrap_err()
        };
        assert_eq!(broken(|e| e[2].charge_nano_usd.0 += 1), Broken::Changed(3));
        assert_eq!(broken(|e| e[2].nth = 1), Broken::Changed(3));
        assert_eq!(broken(|e| e[2].reason = Some(String::new())), Broken::Changed(3));
        assert_eq!(broken(|e| e[2].hash = "x".into()), Broken::Changed(3));
        assert_eq!(broken(|e| drop(e.remove(2))), Broken::Missing(3));
        let mut entries = chain(5);
        entries[2].charge_nano_usd.0 += 1;
        entries[2].hash = entries[2].made_hash().unwrap();
        assert_eq!(verify(&mut entries), Err(Broken::Unchained(4)));
    }
}
