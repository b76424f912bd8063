//! Typesense, as the search by words uses it: what is sent, and what becomes of the answer. No host, no SQL, no clock.
//!
//! 1. Postgres is the truth and the index a copy: an index names ids in an order, and whoever asked it reads them again where it is decided who may see what.
//! 2. A search is bound to its workspace and to who asks by a key that is derived for it ([`keys`]): what its filter says is joined by "and" to what the request says, so no filter
//!    can widen it. In the layout of one collection per workspace the collection binds it as well.
//! 3. Filters are built of names that we make ([`keys::workspace_name`], [`keys::owner_name`]) and of UUIDs, never of anybody's text ([`filter`]).
//! 4. An alias for each workspace says which collection is its own, so that a change of layout or schema is one request ([`layout`]).
//! 5. Nothing of an answer but ids and statuses gets out: an error's text may repeat a document.
//!
//! When it is away or late each call says so within its deadline ([`IndexError`]) and nothing here tries again.

pub mod client;
pub mod filter;
pub mod keys;
pub mod layout;
pub mod requests;
pub mod settings;

pub use client::{Client, IndexError, Named, Outcome, search};
pub use filter::Filter;
pub use layout::Layout;
pub use requests::{Entry, Source};
pub use settings::{Searches, Typesense};
