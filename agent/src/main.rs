//! `cml-agent`. (Being built.)

mod host;
mod lifecycle;
mod runner;
mod supervise;
mod user;

fn main() {}
