//! The object's rows in memory, over restarts of the object.

use crate::desk::{Row, Rows};
use astra_kernel::TurnId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Rows as the object's store keeps them: as text. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    rows: Rc<RefCell<BTreeMap<TurnId, String>>>,
    fails: Rc<Cell<bool>>,
}

impl Kept {
    /// Nothing can be written from now on, or it can again.
    pub fn fail(&self, fails: bool) {
        self.fails.set(fails);
    }
}

fn read(row: &str) -> Row {
    serde_json::from_str(row).unwrap_or_else(|error| panic!("a row that was written cannot be read: {error}"))
}

impl Rows for Kept {
    fn all(&self) -> Vec<(TurnId, Row)> {
        self.rows.borrow().iter().map(|(turn, row)| (*turn, read(row))).collect()
    }

    fn get(&self, turn: TurnId) -> Option<Row> {
        self.rows.borrow().get(&turn).map(|row| read(row))
    }

    fn put(&self, turn: TurnId, row: &Row) -> bool {
        let row = serde_json::to_string(row).unwrap_or_else(|error| panic!("a row cannot be written: {error}"));
        if !self.fails.get() {
            self.rows.borrow_mut().insert(turn, row);
        }
        !self.fails.get()
    }

    fn delete(&self, turns: &[TurnId]) {
        for turn in turns {
            self.rows.borrow_mut().remove(turn);
        }
    }
}
