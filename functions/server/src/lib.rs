//! The server: all functions in one process on tokio, at one address, for who has machines of their own.
//!
//! The routers are the functions' own and a path finds its function by the gateway's rules, so that clients see the same API as on Cloudflare Workers:
//! [`gateway::app`] does what the gateway does there, [`functions`] is what is behind it, [`listen`] has the sockets and the end of the process, [`settings`] is what must be set,
//! [`admin`] what those who run it may ask.
//!
//! Several of these may run side by side: nothing that matters is in a process's memory.

pub mod admin;
pub mod functions;
pub mod listen;
pub mod settings;
