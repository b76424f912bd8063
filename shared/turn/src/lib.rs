//! A turn: one user message and all that the agent does about it, in the spec's six steps.
//!
//! 1. The caller has checked the token. 2. [`begin`] asks the counter, which reads the turn's context and holds its budget in one call.
//! 3. Memories came with the context; where a provider embeds them, they are looked for once more. 4. [`prompt`] renders, strictly. 5. [`run`] calls the model and hands on its text. 6. It saves and settles.
//!
//! The traps: whoever begins a turn must run it to its end, and the end is what is paid, so a client that hangs up does not end a turn: [`run`] belongs
//! to the host's background work. Between begin and end a sign of life goes to the counter; a turn that gives none is ended there.
//! When the counter cannot be reached at the end, the turn says so; saving goes on for a while, and then the counter charges what was last reported.

pub mod answer;
pub mod begin;
pub mod context;
pub mod events;
pub mod finish;
pub mod hold;
pub mod meter;
pub mod prompt;
pub mod pulse;
mod recall;
pub mod run;
pub mod settings;

pub use answer::TurnAnswer;
pub use begin::{Begun, TurnAsk, begin};
pub use run::{Running, run};
pub use settings::TurnSettings;
