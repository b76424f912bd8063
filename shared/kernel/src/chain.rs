//! Entries of which each one's hash covers the one before: the audit log and the ledger. What an export of them is verified by, with no database at hand.
//!
//! Trap: a chain shows that nothing was changed or left out between two of its entries. That nothing is missing at its end is shown by a later export, or a head that was kept.

use crate::WorkspaceId;

/// The hash before the first entry.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// An entry.
pub trait Link {
    /// Whose chain it is in.
    fn workspace(&self) -> &WorkspaceId;
    /// Its place there: 1, 2, 3 and so on, without a gap.
    fn seq(&self) -> u64;
    /// The hash of the entry before, hexadecimal.
    fn prev_hash(&self) -> &str;
    /// Its hash, hexadecimal.
    fn hash(&self) -> &str;
    /// The hash that it should have; none when its text cannot be made.
    fn made_hash(&self) -> Option<String>;
}

/// Why a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is not as it was written.
    #[error("entry {0} is not as it was written: its hash is another")]
    Changed(u64),
    /// An entry does not follow the one before.
    #[error("entry {0} does not follow the one before it: that one was changed, or another was between them")]
    Unchained(u64),
    /// An entry is missing, and maybe more after it.
    #[error("entry {0} is missing (an export with filters leaves entries out and cannot be verified)")]
    Missing(u64),
    /// An entry is there twice, or two with one number.
    #[error("there are two entries {0}")]
    Twice(u64),
    /// An entry is another workspace's.
    #[error("entry {0} is of another workspace than those before it")]
    Foreign(u64),
}

/// Verifies entries of one workspace, in any order: each by its hash, and each with the one before. They may begin later than with entry 1.
///
/// # Errors
/// The first that is broken, by seq.
pub fn verify<T: Link>(entries: &mut [T]) -> Result<(), Broken> {
    entries.sort_by_key(Link::seq);
    let mut before: Option<&T> = None;
    for entry in &*entries {
        let seq = entry.seq();
        match before {
            Some(before) if before.workspace() != entry.workspace() => return Err(Broken::Foreign(seq)),
            Some(before) if before.seq() == seq => return Err(Broken::Twice(seq)),
            Some(before) if before.seq() + 1 != seq => return Err(Broken::Missing(before.seq() + 1)),
            _ => {}
        }
        if entry.made_hash().as_deref() != Some(entry.hash()) {
            return Err(Broken::Changed(seq));
        }
        let follows = before.map_or_else(|| (seq == 1).then_some(BEGINNING), |before| Some(before.hash()));
        if follows.is_some_and(|hash| hash != entry.prev_hash()) {
            return Err(Broken::Unchained(seq));
        }
        before = Some(entry);
    }
    Ok(())
}
