//! The machines that this tool made, after their launches: seen, read, ended, and cleaned up after.

mod legacy;
mod machine;
mod reap;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::{Forge, Removal, When, Which};
use common::log::escape;
use jiff::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cloud::{Cloud, Instance, Life, Offer, Search};
use crate::options::Output;
use crate::request::Request;
use crate::session::Session;
use crate::signal::stoppable;
use machine::Machine;

/// How long a launch that is done may go on with it: looking twice takes a third of that.
const TIDY: Duration = Duration::from_mins(1);

/// How long a list waits for prices, all of them together.
const PRICES: Duration = Duration::from_secs(10);

/// What is to be done with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Show all of them.
    List,
    /// End these, by name or id.
    Terminate(Vec<String>),
    /// Show the console of this one, by name or id.
    Logs(String),
    /// End what nobody needs, forget what is gone, and run again what was interrupted and could not be.
    Reap,
}

/// Does it, on the request's cloud, in its region, for its repository.
pub fn run(request: &Request, command: &Command) -> Result<()> {
    request.options.cloud.cloud.ok_or_else(|| {
        Failure::new(Class::Usage, "which cloud to look at is not said")
            .hint("give `--cloud`, and `--cloud-region` where it is not the default")
    })?;
    let said = Session::run(request, async |mut session| {
        let fleet = Fleet {
            request,
            forge: &*session.forge,
            cloud: &*session.cloud,
        };
        stoppable(&mut session.signals, fleet.act(command)).await
    })?;
    crate::write_out(said.as_bytes())
}

/// In passing, after a launch: ends those of `found`, which the cloud has just listed, that nobody needs. What cannot be done now is left to the next launch.
pub async fn tidy(request: &Request, forge: &dyn Forge, cloud: &dyn Cloud, found: Vec<Instance>) {
    let fleet = Fleet { request, forge, cloud };
    match timeout(TIDY, fleet.tidy(found)).await {
        Ok(Ok(said)) => said
            .lines()
            .for_each(|line| tracing::info!("cleaned up after an earlier launch: {line}")),
        Ok(Err(error)) => tracing::warn!("cleaning up after earlier launches: {error:#}; `cml runner reap` does it again"),
        Err(_) => tracing::warn!("cleaning up after earlier launches takes too long; `cml runner reap` does it again"),
    }
}

/// The machines of one repository in one region, and whom to ask about them.
struct Fleet<'a> {
    request: &'a Request,
    forge: &'a dyn Forge,
    cloud: &'a dyn Cloud,
}

impl Fleet<'_> {
    /// Does it; returns what there is to say of it.
    async fn act(&self, command: &Command) -> Result<String> {
        match command {
            Command::List => self.list().await,
            Command::Terminate(wanted) => self.terminate(wanted).await,
            Command::Logs(wanted) => self.logs(wanted).await,
            Command::Reap => self.reap().await,
        }
    }

    /// Those of our repository, with what the forge says of their runners; long gone ones too, as long as the cloud lists them.
    async fn machines(&self) -> Result<Vec<Machine>> {
        let found = self.cloud.find(&Search::All).await.context("looking for machines")?;
        let ours = found
            .into_iter()
            .map(Machine::new)
            .filter(|machine| machine.is_of(&self.request.repo));
        let mut machines: Vec<Machine> = ours.collect();
        machines.sort_by(|a, b| a.instance.launched_at.cmp(&b.instance.launched_at));
        if !machines.is_empty() {
            let mut runners = self.forge.runners(Which::All).await.context("listing the runners")?;
            // A name may have been used before: its runner is that of the last machine.
            for machine in machines.iter_mut().rev() {
                let own = runners.iter().position(|runner| runner.name == machine.name);
                machine.runner = own.map(|own| runners.swap_remove(own));
            }
        }
        Ok(machines)
    }

    async fn list(&self) -> Result<String> {
        let mut machines = self.machines().await?;
        machines.retain(|machine| !machine.instance.is_gone());
        self.price(&mut machines).await;
        match self.request.options.decision.output {
            Output::Text => Ok(table::text(&machines, Timestamp::now())),
            Output::Json => Ok(table::json(&machines, Timestamp::now())?),
        }
    }

    /// Asks what each costs, once for all that are sold as the same; what nobody says in time stays unknown.
    async fn price(&self, machines: &mut [Machine]) {
        let end = Instant::now() + PRICES;
        let mut known: BTreeMap<Offer, Option<f64>> = BTreeMap::new();
        for machine in machines {
            let offer = machine.instance.offer();
            if !known.contains_key(&offer) {
                let asked = timeout_at(end, self.cloud.hourly(&offer)).await;
                let price = asked.unwrap_or_else(|_| Err(anyhow::anyhow!("the cloud does not answer")));
                let price = price.unwrap_or_else(|error| {
                    tracing::debug!("asking what {} in {} costs: {error:#}", offer.kind, offer.region);
                    None
                });
                known.insert(offer.clone(), price);
            }
            machine.hourly = known.get(&offer).copied().flatten();
        }
    }

    /// One machine, by its name or its id.
    async fn machine(&self, wanted: &str) -> Result<Machine> {
        let machines = self.machines().await?;
        // A name may have been used before: the last one counts.
        let found = machines.into_iter().rev().find(|machine| machine.is_called(wanted));
        found.ok_or_else(|| {
            Failure::new(
                Class::Usage,
                format!("no machine of {} is called `{wanted}` here", self.request.repo),
            )
            .hint("`cml runner list` shows them; `--cloud-region` is where it looks")
            .into()
        })
    }

    async fn logs(&self, wanted: &str) -> Result<String> {
        let machine = self.machine(wanted).await?;
        let console = self.cloud.console(&machine.instance.id).await.context("reading the console")?;
        let lines = console.lines().map(|line| escape(line.trim_end()) + "\n");
        Ok(lines.collect())
    }

    /// What each runs is interrupted, and not run again: whoever ends a machine by hand knows why.
    async fn terminate(&self, wanted: &[String]) -> Result<String> {
        let mut machines = Vec::new();
        for wanted in wanted {
            machines.push(self.machine(wanted).await?);
        }
        let mut said = String::new();
        for machine in machines {
            said += &self.end(&machine).await?;
        }
        Ok(said)
    }

    /// Destroys a machine and forgets its runner.
    async fn end(&self, machine: &Machine) -> Result<String> {
        let Machine { name, instance, .. } = machine;
        if instance.life != Life::Gone {
            let destroyed = self.cloud.destroy(&instance.id).await;
            destroyed.with_context(|| format!("destroying {name} ({})", instance.id))?;
        }
        Ok(format!("{name} ({}): terminated{}\n", instance.id, self.forget(machine).await?))
    }

    /// Deletes the registration of a machine that is gone, or is going.
    async fn forget(&self, machine: &Machine) -> Result<&'static str> {
        let Some(runner) = &machine.runner else {
            return Ok("");
        };
        let removal = self.forge.unregister(&runner.id, When::Stopped).await;
        Ok(
            match removal.with_context(|| format!("deleting the registration of {}", machine.name))? {
                Removal::Removed | Removal::Gone => ", its registration deleted",
                Removal::Busy(_) => ", its registration left: the forge still sees its job, and forgets both by itself",
            },
        )
    }
}
