//! `cml-agent`. (Being built.)

mod archive;
mod console;
mod host;
mod lifecycle;
mod provision;
mod runner;
mod state;
mod supervise;
mod user;

fn main() {}
