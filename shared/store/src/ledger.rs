//! The ledger: how it is read and verified, what its receipts say, and what the operator enters by hand. Turns enter what they used themselves (`migrations/0034`).

use crate::audit::Verified;
use crate::{Database, Listed, Nothing, Outcome, Page, StoreError, Tenant, parse, tenant_statement};
use astra_kernel::ledger::Entry;
use astra_kernel::{Month, NanoUsd, Price, Timestamp, TurnId, Usage};
use serde::{Deserialize, Serialize};

/// An entry, and who asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryRow {
    /// The entry.
    pub entry: Entry,
    /// Who asked; empty when that was forgotten.
    pub user_id: String,
    /// What was hashed with it.
    pub user_salt: Option<String>,
}

/// What an entry's receipt says.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptRow {
    /// The entry's place.
    pub seq: u64,
    /// Its turn.
    pub turn_id: String,
    /// Its kind.
    pub kind: String,
    /// What is signed.
    pub text: String,
}

/// Which entries.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LedgerFilter {
    /// Only those behind this one, as the list goes.
    pub after: Option<u64>,
    /// How many at most.
    pub limit: u32,
    /// Only those that were entered in this month.
    pub month: Option<Month>,
}

/// What is given back.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Credit<'a> {
    /// Makes it one credit, however often it is sent.
    pub key: &'a str,
    /// How much.
    pub amount_nano_usd: NanoUsd,
    /// Why.
    pub reason: &'a str,
    /// For which entry.
    pub corrects: Option<u64>,
    /// When: it counts in this moment's month.
    pub now: Timestamp,
}

/// What a turn is to be. What is not said stays as it is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Correction<'a> {
    /// The turn.
    pub turn_id: TurnId,
    /// Why.
    pub reason: &'a str,
    /// Input tokens, the cached included.
    pub input_tokens: Option<i64>,
    /// Those of them that the provider had cached.
    pub cached_input_tokens: Option<i64>,
    /// Output tokens, reasoning included.
    pub output_tokens: Option<i64>,
    /// Those of them that were not shown.
    pub reasoning_tokens: Option<i64>,
    /// What it cost.
    pub cost_nano_usd: Option<NanoUsd>,
    /// What is charged for it.
    pub charge_nano_usd: Option<NanoUsd>,
}

/// What of a period is priced again.
#[derive(Debug, Clone, Serialize)]
pub struct Period<'a> {
    /// What began in it: from this moment on.
    pub from: Timestamp,
    /// And before this one.
    pub to: Timestamp,
    /// Only of this provider.
    pub provider: Option<&'a str>,
    /// Only of this model.
    pub model: Option<&'a str>,
    /// Only behind this entry.
    pub after: Option<&'a str>,
    /// How many at most.
    pub limit: u32,
}

/// What was used, what it cost, and the price that the book has for when it began.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Priced {
    /// The turn.
    pub turn_id: TurnId,
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// What was used.
    pub usage: Usage,
    /// What it cost.
    pub cost_nano_usd: NanoUsd,
    /// None: the book has no price for then any more.
    pub price: Option<Price>,
}

/// A turn that is to cost something else.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewCost {
    /// The turn.
    pub turn_id: TurnId,
    /// What it cost when it was read.
    pub was_nano_usd: NanoUsd,
    /// What it is to cost.
    pub cost_nano_usd: NanoUsd,
    /// By which version of its price.
    pub price_version: i32,
}

/// What came of an entry by hand.
#[derive(Debug)]
pub enum ByHand {
    /// It is entered.
    Entered(Box<EntryRow>),
    /// It had been entered before.
    Before(Box<EntryRow>),
    /// There is nothing to correct.
    AsItIs,
    /// No such workspace.
    NoWorkspace,
    /// No such turn has an entry here.
    NoTurn,
    /// No such entry to correct.
    NoEntry,
    /// That key is another credit's.
    KeyReused,
    /// More cached input than input, or more reasoning than output.
    NotSo,
}

impl<D: Database> Tenant<'_, D> {
    /// Entries, latest first; `None` when there is neither a workspace nor a ledger of one that was deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_ledger(&self, filter: LedgerFilter) -> Result<Option<Page<EntryRow>>, StoreError> {
        self.call(tenant_statement!("ledger_list"), &filter).await.map(Listed::found)
    }

    /// What the receipts of entries say, first entry first; `None` as above.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_receipts(&self, filter: LedgerFilter) -> Result<Option<Page<ReceiptRow>>, StoreError> {
        self.call(tenant_statement!("receipts_list"), &filter).await.map(Listed::found)
    }

    /// Makes every hash anew and compares; `None` as above.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn verify_ledger(&self) -> Result<Option<Verified>, StoreError> {
        self.call(tenant_statement!("ledger_verify"), &Nothing {}).await.map(Verified::found)
    }

    /// Gives something back. The same key again changes nothing. The operator's: the database looks at the proof for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn credit(&self, credit: &Credit<'_>) -> Result<ByHand, StoreError> {
        self.by_hand(tenant_statement!("ledger_credit"), credit).await
    }

    /// Makes a turn what it is to be. The operator's, as above. A counter that has counted the turn has to be told (`Reconcile`).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn correct(&self, correction: &Correction<'_>) -> Result<ByHand, StoreError> {
        self.by_hand(tenant_statement!("ledger_correct"), correction).await
    }

    /// What of a period was paid for here, to be priced again; `None` when there is no such workspace. The operator's, as above.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_priced(&self, period: &Period<'_>) -> Result<Option<Page<Priced>>, StoreError> {
        self.call(tenant_statement!("reprice_read"), period).await.map(Listed::found)
    }

    /// Enters what turns are to cost, by corrections; how many. One that no longer costs what it was read at is left. The operator's, as above.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reprice(&self, reason: &str, turns: &[NewCost]) -> Result<usize, StoreError> {
        #[derive(Serialize)]
        struct Arg<'a> {
            reason: &'a str,
            turns: &'a [NewCost],
        }
        #[derive(Deserialize)]
        struct Answer {
            entered: usize,
        }
        self.call(tenant_statement!("ledger_reprice"), &Arg { reason, turns }).await.map(|Answer { entered }| entered)
    }

    async fn by_hand(&self, statement: &'static str, arg: &impl Serialize) -> Result<ByHand, StoreError> {
        #[derive(Deserialize)]
        struct Made {
            entry: Box<EntryRow>,
        }
        let arg = serde_json::to_string(arg).map_err(|_| StoreError::Shape(statement))?;
        let text = self.call_text(statement, &arg).await?;
        let Outcome { outcome } = parse(statement, &text)?;
        let entry = || parse(statement, &text).map(|Made { entry }| entry);
        Ok(match outcome.as_str() {
            "entered" => ByHand::Entered(entry()?),
            "entered_before" => ByHand::Before(entry()?),
            "as_it_is" => ByHand::AsItIs,
            "not_found" => ByHand::NoWorkspace,
            "unknown_turn" => ByHand::NoTurn,
            "unknown_entry" => ByHand::NoEntry,
            "reused" => ByHand::KeyReused,
            "not_so" => ByHand::NotSo,
            _ => return Err(StoreError::Shape(statement)),
        })
    }
}
