//! The object's rows in memory, over restarts of the object.

use crate::desk::{Row, Rows};
use astra_kernel::TurnId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Rows as the object's store keeps them: as text. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Kept(Rc<RefCell<BTreeMap<TurnId, String>>>);

fn read(row: &str) -> Row {
    serde_json::from_str(row).unwrap_or_else(|error| panic!("a row that was written cannot be read: {error}"))
}

impl Rows for Kept {
    fn all(&self) -> Vec<(TurnId, Row)> {
        self.0.borrow().iter().map(|(turn, row)| (*turn, read(row))).collect()
    }

    fn get(&self, turn: TurnId) -> Option<Row> {
        self.0.borrow().get(&turn).map(|row| read(row))
    }

    fn put(&self, turn: TurnId, row: &Row) -> bool {
        let row = serde_json::to_string(row).unwrap_or_else(|error| panic!("a row cannot be written: {error}"));
        self.0.borrow_mut().insert(turn, row);
        true
    }

    fn delete(&self, turns: &[TurnId]) {
        for turn in turns {
            self.0.borrow_mut().remove(turn);
        }
    }
}
