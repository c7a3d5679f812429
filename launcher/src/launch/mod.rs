//! A launch: check access → reuse? → create → wait until the runner is online → report. Whatever goes wrong in between, and whatever signal
//! comes, what was made is removed again.

mod decide;
mod diagnosis;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod online;
mod prepare;
mod rollback;
mod ssh;

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure, Report};
use common::forge::{self, Enroll, Enrollment, Forge, Runner, RunnerId};
use common::network::Proxy;
use common::secret::Secret;
use common::spec::Credential;
use jiff::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cloud::{Cloud, Instance, Order, Search};
use crate::fleet;
use crate::request::Request;
use crate::session::{Session, block_on};
use crate::signal::{Signals, stoppable};
use decide::{Decision, ask};
use diagnosis::Diagnosis;
use prepare::Prepared;

/// How long the console may take to answer after a failure: the instance costs money meanwhile.
const CONSOLE: Duration = Duration::from_secs(20);

/// How long the cloud may take to tell the address of an instance whose runner is online.
const LAST_LOOK: Duration = Duration::from_secs(20);

/// So many signals end a roll-back too.
const LAST_SIGNAL: usize = 3;

/// What a launch ended with.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A new runner is online.
    Launched(Instance),
    /// A runner that was there is used.
    Reused(Runner),
}

/// What a command that launches came to.
#[derive(Debug)]
pub enum Ended {
    /// There is a runner.
    Launch(Outcome),
    /// With `--dry-run`: what would be done.
    Plan(String),
}

/// Launches a runner on the request's cloud, or only says what that would do.
pub fn run(request: &Request) -> Result<Ended> {
    let kind = request.options.cloud.cloud.context("no cloud was asked for")?;
    let start = Instant::now();
    let prepared = Prepared::new(request, kind, Timestamp::now())?;
    Session::run(request, async |mut session| {
        session.cloud.supports(&request.options.cloud)?;
        let launch = Launch {
            request,
            prepared,
            forge: &*session.forge,
            cloud: &*session.cloud,
            start,
        };
        let decision = &request.options.decision;
        // With these it may come to no machine.
        if !decision.reuse && !decision.reuse_idle {
            launch.token()?;
        }
        if request.options.decision.dry_run {
            return stoppable(&mut session.signals, launch.plan()).await.map(Ended::Plan);
        }
        launch.run(&mut session.signals).await.map(Ended::Launch)
    })
}

/// With `--reuse` or `--reuse-idle`, before a runner is started on this host: one that is there and makes it unnecessary.
pub fn reusable(request: &Request) -> Result<Option<Outcome>> {
    let forge = request.access.open(request.forge, &request.repo)?;
    Ok(match block_on(ask(request, &*forge))? {
        Decision::Launch => None,
        Decision::Reuse { runner, message } => {
            tracing::info!("{message}");
            Some(Outcome::Reused(runner))
        }
    })
}

/// One launch, and whom it speaks to.
struct Launch<'a> {
    request: &'a Request,
    prepared: Prepared,
    forge: &'a dyn Forge,
    cloud: &'a dyn Cloud,
    /// When it began: the budget runs from here.
    start: Instant,
}

/// What a launch has made so far, or may have made.
#[derive(Debug)]
struct Made {
    /// What it is doing, for people.
    stage: &'static str,
    making: Making,
    /// The runner may stand in the forge's list.
    may_be_registered: bool,
    /// The registration that came with a single-use configuration.
    registration: Option<RunnerId>,
    /// What must not be shown when the console is.
    secrets: Vec<Secret>,
}

/// Whether there is an instance.
#[derive(Debug, PartialEq, Eq)]
enum Making {
    NotAsked,
    /// It was asked for; there is no answer, or none that says whether there is one.
    Asked,
    /// The cloud said no.
    Refused,
    Done(Box<Instance>),
}

impl Launch<'_> {
    /// Returns the runner, or an error after everything was rolled back.
    async fn run(&self, signals: &mut Signals) -> Result<Outcome> {
        let mut made = Made {
            stage: "checking access",
            making: Making::NotAsked,
            may_be_registered: false,
            registration: None,
            secrets: self.secrets(),
        };
        let deadline = self.start + self.prepared.budget;
        let work = timeout_at(deadline, self.work(&mut made));
        let ending = stoppable(signals, async { Ok(work.await) }).await;
        let error = match ending {
            Ok(Ok(Ok(outcome))) => return Ok(self.finish(outcome, signals).await),
            Ok(Ok(Err(error))) | Err(error) => error,
            Ok(Err(_)) => diagnosis::late(self.prepared.budget, made.stage),
        };
        Err(self.fail(error, &made, signals).await)
    }

    async fn work(&self, made: &mut Made) -> Result<Outcome> {
        let name = &self.request.name;
        tracing::info!("checking access to {}", self.request.repo);
        self.forge.check_access().await.context("checking access to the repository")?;
        made.stage = "looking at the runners that are there";
        if let Decision::Reuse { runner, message } = ask(self.request, self.forge).await? {
            tracing::info!("{message}");
            return Ok(Outcome::Reused(runner));
        }
        made.stage = "getting the runner's credential";
        let credential = self.credential(made).await?;
        let order = match credential {
            // The agent may not even ask the forge for its runner.
            Credential::Jit(_) => self.prepared.order(&self.with_runner().await?, credential)?,
            Credential::Token(_) => self.prepared.order(self.request, credential)?,
        };
        made.stage = "creating the instance";
        let instance = self.create(&order, made).await?;
        tracing::info!(
            "created {} {} in {}; waiting for {name}",
            instance.kind,
            instance.id,
            instance.region
        );
        made.stage = "waiting for the runner to be online";
        self.wait_online(&instance, made).await?;
        tracing::info!("{name} is online after {} s", self.start.elapsed().as_secs());
        Ok(Outcome::Launched(instance))
    }

    /// What is done when nothing can go wrong with the launch any more: learns the instance's address, and cleans up after others. A signal only ends that.
    async fn finish(&self, outcome: Outcome, signals: &mut Signals) -> Outcome {
        let Outcome::Launched(instance) = outcome else {
            return outcome;
        };
        let mut found = match timeout(LAST_LOOK, self.cloud.find(&Search::All)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!("asking for the instance's address: {error:#}");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let own = found.iter().position(|found| found.id == instance.id);
        let instance = own.map_or(instance, |own| found.swap_remove(own));
        let tidied = async {
            fleet::tidy(self.request, self.forge, self.cloud, found).await;
            Ok(())
        };
        let _ = stoppable(signals, tidied).await;
        Outcome::Launched(instance)
    }

    /// The token that the machine gets; none where it gets a configuration for one job only, with which nothing else can be done.
    fn token(&self) -> Result<Option<&Secret>> {
        let (options, access) = (&self.request.options.runner, &self.request.access);
        // An App's machine leaves a job that was interrupted to `cml runner reap`.
        let needs_none = options.single && (options.no_retry || access.is_app());
        if needs_none && forge::has_single_use(self.request.forge) {
            return Ok(None);
        }
        access.token("a machine for more than one job").map(Some)
    }

    async fn credential(&self, made: &mut Made) -> Result<Credential> {
        if let Some(token) = self.token()? {
            return Ok(Credential::Token(token.clone()));
        }
        if !self.request.options.runner.no_retry {
            tracing::info!("if its job is interrupted, `cml runner reap` runs it again: the machine has no token to do so");
        }
        let enroll = Enroll {
            name: self.request.name.clone(),
            labels: self.prepared.labels.clone(),
            single: true,
            platform: self.prepared.platform,
            // Only GitHub registers here, whose jobs say themselves where they run.
            containers: false,
        };
        // The answer may be lost.
        made.may_be_registered = true;
        let enrolled = self.forge.enroll(&enroll).await.inspect_err(|error| {
            // A refusal is an answer; and a name that is taken is another launch's to remove.
            made.may_be_registered = Report(error).class() == Class::Unexpected;
        });
        match enrolled.context("registering the runner")? {
            Enrollment::Made { id, config } => {
                made.registration = Some(id);
                made.secrets.push(config.clone());
                Ok(Credential::Jit(config))
            }
            Enrollment::Token(_) => anyhow::bail!("the forge gave a registration token where a single-use configuration was asked for"),
        }
    }

    /// The request with the runner that the forge offers, unless the user named one.
    async fn with_runner(&self) -> Result<Request> {
        let mut request = self.request.clone();
        let options = &mut request.options.runner;
        if options.runner_url.is_none() && options.runner_version.is_none() {
            let package = self
                .forge
                .package(self.prepared.platform)
                .await
                .context("asking the forge for its runner")?;
            options.runner_url = Some(package.url.into());
            options.runner_sha256 = options.runner_sha256.take().or(package.sha256);
        }
        Ok(request)
    }

    async fn create(&self, order: &Order, made: &mut Made) -> Result<Instance> {
        made.making = Making::Asked;
        // From now on the agent may register.
        made.may_be_registered = true;
        tracing::info!("creating an instance for {}", self.request.name);
        match self.cloud.create(order).await {
            Ok(instance) => {
                made.making = Making::Done(Box::new(instance.clone()));
                Ok(instance)
            }
            Err(error) => {
                if Report(&error).class() != Class::Unexpected {
                    made.making = Making::Refused;
                    made.may_be_registered = made.registration.is_some();
                }
                Err(error.context("creating the instance"))
            }
        }
    }

    /// Says what is known of a failure, and rolls back.
    async fn fail(&self, error: anyhow::Error, made: &Made, signals: &mut Signals) -> anyhow::Error {
        let is_signal = matches!(Report(&error).class(), Class::Signal(_));
        let error = match &made.making {
            Making::Done(instance) if !is_signal => {
                // A signal now means that nobody wants to read it.
                let console = stoppable(signals, async { Ok(self.diagnosis(instance, made).await) }).await;
                console.unwrap_or_default().explain(error)
            }
            _ => error,
        };
        if matches!(made.making, Making::NotAsked) && !made.may_be_registered {
            return error;
        }
        tracing::warn!("rolling back: {error:#}");
        let mut roll_back = pin!(self.roll_back(made));
        for count in usize::from(is_signal) + 1..=LAST_SIGNAL {
            let number = tokio::select! {
                biased;
                left = &mut roll_back => return leftovers(error, &left),
                number = signals.next() => number,
            };
            if count < LAST_SIGNAL {
                tracing::warn!("signal {number}: still removing what was made; signal number {LAST_SIGNAL} leaves it");
            }
        }
        leftovers(
            error,
            &[format!("what has the tag cml-launch-id={} may be left", self.prepared.launch_id)],
        )
    }

    /// What a console must not show.
    fn secrets(&self) -> Vec<Secret> {
        let proxy = self.request.options.runner.proxy.as_ref().and_then(Proxy::credentials);
        self.token().ok().flatten().cloned().into_iter().chain(proxy).collect()
    }

    async fn diagnosis(&self, instance: &Instance, made: &Made) -> Diagnosis {
        let console = match timeout(CONSOLE, self.cloud.console(&instance.id)).await {
            Ok(Ok(console)) => console,
            Ok(Err(error)) => {
                tracing::warn!("reading the console of {}: {error:#}", instance.id);
                String::new()
            }
            Err(_) => String::new(),
        };
        let diagnosis = Diagnosis::read(&console, &made.secrets);
        for line in &diagnosis.lines {
            tracing::warn!("console: {line}");
        }
        diagnosis
    }

    /// What the launch would do; only reads.
    async fn plan(&self) -> Result<String> {
        let masked = Secret::new(Secret::default().to_string());
        let credential = if self.token()?.is_some() {
            Credential::Token
        } else {
            Credential::Jit
        };
        let order = self.prepared.order(&self.request.masked(), credential(masked.clone()))?;
        let calls = self.cloud.plan(&order).await.context("planning the instance")?;
        let mut script = order.startup_data;
        let options = &self.request.options.runner;
        for own in [&options.cloud_startup_script, &options.on_interrupt].into_iter().flatten() {
            // It may hold a token too.
            script = script.replace(&String::from(own.clone()), masked.expose());
        }
        Ok(format!("{}\n\n# start-up data\n{script}", calls.join("\n")))
    }
}

/// Adds what is left behind to the error of a launch, loudly.
fn leftovers(error: anyhow::Error, left: &[String]) -> anyhow::Error {
    for item in left {
        tracing::error!("not rolled back: {item}");
    }
    let Some(first) = left.first() else {
        return error;
    };
    let class = Report(&error).class();
    let failure = Failure::new(class, format!("the launch failed, and {first}"));
    error.context(failure.hint("remove what the messages name: it may cost money"))
}

#[cfg(test)]
pub mod tests;
