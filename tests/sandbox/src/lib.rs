//! A whole world on loopback: a forge, a cloud, instance metadata, and instances that are real processes.

pub mod azure;
pub mod bitbucket;
pub mod ci;
pub mod cloud;
pub mod ec2;
pub mod events;
pub mod faults;
pub mod fleet;
pub mod forge;
pub mod form;
pub mod gce;
pub mod github;
pub mod gitlab;
pub mod imds;
pub mod instance;
pub mod interrupt;
pub mod kubernetes;
pub mod proxy;
mod shared;
pub mod standin;
pub mod world;
