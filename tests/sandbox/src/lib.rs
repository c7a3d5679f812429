//! A whole world on loopback: GitHub, EC2, instance metadata, and instances that are real processes.

pub mod events;
pub mod faults;
pub mod github;
pub mod standin;
