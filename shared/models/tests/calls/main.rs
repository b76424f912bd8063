//! Calls of models over a scripted network: what is sent, what is made of what comes back, when it is tried again.

mod anthropic;
mod embeddings;
mod fake;
mod openai;
mod retry;
