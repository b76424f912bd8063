//! Memory and knowledge, as far as it needs no I/O: documents into chunks, what several searches found into one order, conversations into
//! memories, and what becomes of a memory that resembles a known one.
//!
//! No host, no SQL, no clock. Whatever comes in may be hostile: each piece says what bounds it, and none panics.

mod citation;
pub mod extract;
pub mod fuse;
pub mod hash;
pub mod html;
mod kind;
pub mod near;
pub mod pdf;
pub mod split;

pub use citation::Citation;
pub use kind::{Kind, Scope, UnknownKind};
