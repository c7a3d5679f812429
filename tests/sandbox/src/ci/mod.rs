//! What every forge of the world has: runs of jobs that need each other, runners that are registered, hosted jobs as real processes, and
//! a server with a log, faults and a record. What makes a forge this one and no other is its [`Forge`].

mod again;
mod forge;
mod front;
mod hosted;
mod package;
mod page;
mod run;
mod runners;
mod server;
mod state;

pub use front::Request;
pub use package::Checksum;
pub use run::{JobSpec, JobView, Message, RunId, RunView, RunnerView, Workflow};
pub use server::Server;

pub(crate) use forge::{Forge, Rules};
pub(crate) use front::Asked;
pub(crate) use page::Page;
pub(crate) use runners::Registration;
pub(crate) use server::Setup;
pub(crate) use state::{Job, Run, State, Status, conclusion};
