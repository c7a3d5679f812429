//! Removing what a failed launch made, or may have made.

use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Report};
use common::forge::{Removal, RunnerId, When, Which};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Launch, Made, Making};
use crate::cloud::{Instance, Life, Search};

/// All that destroying one instance may take, tries and pauses together.
const DESTROY: Duration = Duration::from_mins(1);

/// All that deleting the registrations may take.
const UNREGISTER: Duration = Duration::from_secs(30);

/// The first pause between two tries; each one after it is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long an instance may stay unlisted whose making was asked for and not answered, at most.
const SWEEP: Duration = Duration::from_secs(20);

/// The sweep's share of the budget, so that a rehearsal does not wait as in earnest.
const SWEEP_SHARE: u32 = 30;

impl Launch<'_> {
    /// Destroys and unregisters; returns what it could not, each with what to do about it.
    pub(super) async fn roll_back(&self, made: &Made) -> Vec<String> {
        let mut left = Vec::new();
        let mut destroyed: Vec<String> = Vec::new();
        if let Making::Done(instance) = &made.making {
            left.extend(self.destroy(instance).await);
            destroyed.push(instance.id.clone());
        }
        match self.sweep(made).await {
            Ok(found) => {
                for instance in found.iter().filter(|instance| !destroyed.contains(&instance.id)) {
                    left.extend(self.destroy(instance).await);
                }
            }
            Err(error) => left.push(format!(
                "whether an instance was made is not known ({error:#}): look for the tag cml-launch-id={}",
                self.prepared.launch_id
            )),
        }
        left.extend(self.unregister(made).await);
        left
    }

    /// Every instance of this launch, whatever became of the answer to its making.
    async fn sweep(&self, made: &Made) -> Result<Vec<Instance>> {
        let patience = match &made.making {
            Making::NotAsked => return Ok(Vec::new()),
            Making::Asked => SWEEP.min(self.prepared.budget / SWEEP_SHARE),
            Making::Refused | Making::Done(_) => Duration::ZERO,
        };
        let end = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let found = timeout(DESTROY, self.cloud.find(&Search::Launch(&self.prepared.launch_id)))
                .await
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the cloud does not answer")));
            match found {
                // What is stopped still costs money.
                Ok(found) if found.iter().any(|instance| instance.life != Life::Gone) || Instant::now() >= end => {
                    return Ok(found.into_iter().filter(|instance| instance.life != Life::Gone).collect());
                }
                // Whoever may not look could not make anything either.
                Err(error) if made.making == Making::Refused && Report(&error).class() == Class::Access => return Ok(Vec::new()),
                Err(error) if Instant::now() >= end => return Err(error.context("looking for instances of this launch")),
                Ok(_) | Err(_) => sleep(pause.min(end.saturating_duration_since(Instant::now()))).await,
            }
            pause *= 2;
        }
    }

    /// Destroys an instance; what to do by hand where that failed.
    async fn destroy(&self, instance: &Instance) -> Option<String> {
        tracing::info!("destroying instance {}", instance.id);
        let end = Instant::now() + DESTROY;
        let mut pause = FIRST_PAUSE;
        loop {
            let destroyed = timeout_at(end, self.cloud.destroy(&instance.id)).await;
            let error = match destroyed.unwrap_or_else(|_| Err(anyhow::anyhow!("the cloud does not answer"))) {
                Ok(()) => return None,
                Err(error) => error,
            };
            if Instant::now() + pause >= end {
                return Some(format!(
                    "the instance {} in {} is still there ({error:#}): remove it with `{}`",
                    instance.id,
                    instance.region,
                    instance.removal(self.prepared.cloud)
                ));
            }
            tracing::warn!("destroying instance {}: {error:#}; trying again", instance.id);
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// Deletes the registrations that this launch made; what to do by hand where that failed.
    async fn unregister(&self, made: &Made) -> Option<String> {
        if !made.may_be_registered {
            return None;
        }
        let name = &self.request.name;
        let done = timeout(UNREGISTER, self.delete_registrations(made.registration.as_ref())).await;
        let error = done.unwrap_or_else(|_| Err(anyhow::anyhow!("the forge does not answer"))).err()?;
        Some(format!(
            "the runner {name} may still be registered ({error:#}): remove it in the forge's runner settings"
        ))
    }

    async fn delete_registrations(&self, known: Option<&RunnerId>) -> Result<()> {
        let ids = if let Some(id) = known {
            vec![id.clone()]
        } else {
            let runners = self
                .forge
                .runners(Which::Named(&self.request.name))
                .await
                .context("looking for the registration")?;
            runners.into_iter().map(|runner| runner.id).collect()
        };
        for id in ids {
            match self
                .forge
                .unregister(&id, When::Stopped)
                .await
                .context("deleting the registration")?
            {
                Removal::Removed => tracing::info!("deleted the registration of {}", self.request.name),
                Removal::Gone => {}
                Removal::Busy(words) => anyhow::bail!("the forge refuses: {words}"),
            }
        }
        Ok(())
    }
}
