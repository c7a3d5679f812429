//! What the launcher and the agent share, and nothing else: a module that only one program uses lives in that program.

pub mod error;
pub mod forge;
pub mod http;
pub mod log;
pub mod phase;
pub mod secret;
pub mod spec;
pub mod status;
pub mod timeout;
