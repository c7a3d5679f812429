//! What the launcher and the agent share, and nothing else: a module that only one program uses lives in that program.

// No panic on an instance, nor in what it shares: `unwrap` and `expect` are refused everywhere, these where they would be reachable.
#![cfg_attr(
    not(test),
    warn(clippy::panic, clippy::unreachable, clippy::indexing_slicing, clippy::string_slice)
)]

pub mod certificates;
pub mod error;
pub mod forge;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod http;
pub mod installation;
pub mod last_words;
pub mod lock;
pub mod log;
pub mod network;
pub mod phase;
pub mod secret;
pub mod spec;
pub mod status;
pub mod timeout;
