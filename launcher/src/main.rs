//! `cml`: launches one self-hosted CI runner on a cloud, or runs it on this host.

mod cloud;
mod options;
mod request;

fn main() {}
