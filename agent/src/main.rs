//! `cml-agent`. (Being built.)

mod archive;
mod console;
mod host;
mod lifecycle;
mod runner;
mod state;
mod supervise;
mod user;

fn main() {}
