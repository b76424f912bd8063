//! Documents that people write by hand, as more than one function reads them: YAML, and the guide's workspace/grants config in it.

pub mod config;
pub mod yaml;
