//! A whole world on loopback: GitHub, EC2, instance metadata, and instances that are real processes.

pub mod ec2;
pub mod events;
pub mod faults;
pub mod form;
pub mod github;
pub mod imds;
pub mod instance;
pub mod standin;
pub mod world;
