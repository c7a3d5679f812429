//! `cml-agent`. (Being built.)

mod host;
mod runner;
mod user;

fn main() {}
