//! Which entries an invoice covers, as docs/ledger.md says it: of those up to its last one that began before its month ended, those that the invoice before does not cover. So every entry is
//! covered once, whenever it was entered: what came too late for its own month is in the next invoice.

use crate::Sums;
use astra_kernel::WorkspaceId;
use astra_kernel::ledger::Entry;
use serde::Deserialize;

/// What of an invoice is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Invoice {
    workspace_id: WorkspaceId,
    pub(crate) month: String,
    /// The exact sum of what is charged.
    total_charge_nano_usd: i64,
    /// The ledger's last entry when it was made.
    last_seq: u64,
    /// That entry's hash.
    last_hash: Option<String>,
    /// The first entry that it covers.
    first_seq: Option<u64>,
    /// When its month ended; none: all up to the last entry.
    ends_at: Option<String>,
    /// The same of the invoice before.
    previous_last_seq: Option<u64>,
    previous_ends_at: Option<String>,
}

/// A time of RFC 3339 in UTC as text that sorts, with six decimals.
fn micros(time: &str) -> String {
    let (whole, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), ""));
    format!("{whole}.{fraction:0<6}")
}

impl Invoice {
    fn covers(&self, entry: &Entry) -> bool {
        let is_up_to = |last: u64, ends_at: Option<&String>| {
            entry.seq <= last && ends_at.is_none_or(|ends_at| micros(&entry.started_at) < micros(ends_at))
        };
        is_up_to(self.last_seq, self.ends_at.as_ref())
            && !self.previous_last_seq.is_some_and(|last| is_up_to(last, self.previous_ends_at.as_ref()))
    }

    /// The sums of what it covers, if they are what it says. The entries are sorted, and none between them is missing.
    pub(crate) fn check(&self, entries: &[Entry]) -> Result<Sums, String> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Err("there is no receipt in it".to_owned()) };
        if first.workspace_id != self.workspace_id {
            return Err(format!("the invoice is of {}, and the receipts of {}", self.workspace_id, first.workspace_id));
        }
        let from = self.first_seq.or_else(|| self.previous_last_seq.map(|last| last + 1)).unwrap_or(1);
        if first.seq > from || last.seq < self.last_seq {
            return Err(format!(
                "the invoice covers entries from {from} to {}, and there are receipts from {} to {}",
                self.last_seq, first.seq, last.seq
            ));
        }
        if let (Some(hash), Some(entry)) = (&self.last_hash, entries.iter().find(|entry| entry.seq == self.last_seq))
            && *hash != entry.hash
        {
            return Err(format!("entry {} is not the one that the invoice names: one of the two was made anew", self.last_seq));
        }
        let sums = Sums::of(entries.iter().filter(|entry| self.covers(entry)));
        if sums.charge != i128::from(self.total_charge_nano_usd) {
            return Err(format!(
                "the invoice says {} nano-dollars, and the receipts that it covers {}",
                self.total_charge_nano_usd, sums.charge
            ));
        }
        Ok(sums)
    }
}
