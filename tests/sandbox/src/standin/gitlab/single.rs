//! `run-single`: asks for work and does it, until it has done enough, has waited long enough, or is told to stop. Source:
//! `commands/single.go`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::build::Build;
use super::cli::Options;
use super::log::{self, Level};
use super::network::{Asked, Credentials, Network, Pace, Remote};
use super::stop::Stops;

/// How long it waits between two questions for work. Source: `common/consts.go`.
const CHECK: Duration = Duration::from_secs(3);
/// How long it waits when the server does not know it.
const UNHEALTHY: Duration = Duration::from_mins(5);

/// Runs to the end.
pub async fn run(options: Options) -> Result<()> {
    ensure!(!options.url.is_empty(), "Missing URL");
    ensure!(!options.token.is_empty(), "Missing Token");
    match options.executor.as_str() {
        "" => bail!("Missing Executor"),
        "shell" | "docker" => {}
        other => bail!("Unknown executor: {other}"),
    }
    let system = options.system.clone().unwrap_or_else(|| format!("r_{}", random()));
    let network = Network::new(&options, system);
    let entry = log::entry(format!("Starting runner for {} with token {} ...", options.url, network.short()));
    entry.write(Level::Info);
    if options.executor == "docker" {
        // Only the stand-in says so: what would become of a container.
        let mut entry = network.entry("Docker executor of the stand-in runs jobs as a shell");
        for (name, values) in &options.docker {
            entry = entry.with(name, values.clone());
        }
        entry.write(Level::Info);
    }
    let mut single = Single {
        stops: Stops::listen()?,
        builds_left: options.max_builds,
        last_build: Instant::now(),
        is_enough: false,
        options,
        network,
    };
    while !single.is_enough && !single.stops.is_finished() {
        single.turn().await;
        single.look_for_end();
    }
    Ok(())
}

/// A part of this machine's name for itself.
pub fn random() -> String {
    let seed = format!("{} {:?}", std::process::id(), jiff::Timestamp::now());
    crate::standin::sha256(seed.as_bytes()).chars().take(12).collect()
}

struct Single {
    options: Options,
    network: Network,
    stops: Stops,
    builds_left: i64,
    last_build: Instant,
    is_enough: bool,
}

impl Single {
    /// Asks once for work, and does it. A question that is asked is not taken back, whatever signal comes.
    async fn turn(&mut self) {
        match self.network.request().await {
            Asked::Unhealthy => {
                log::entry("Runner is not healthy!").write(Level::Info);
                self.wait(UNHEALTHY).await;
            }
            Asked::Nothing(pace) => self.wait(pace.or(CHECK)).await,
            Asked::Job(job, pace) => self.build(*job, pace).await,
        }
    }

    async fn wait(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = self.stops.exit() => {}
        }
    }

    async fn build(&mut self, job: Value, pace: Pace) {
        let credentials = Credentials {
            id: job["id"].as_u64().unwrap_or_default(),
            token: job["token"].as_str().unwrap_or_default().to_owned(),
        };
        let begun = self.network.update(&credentials, json!({ "state": "running" }), "").await;
        if matches!(begun, Remote::Abort | Remote::Canceling) {
            return;
        }
        let build = Build::new(&self.options, &self.network, job, credentials, pace);
        build.run(&mut self.stops).await;
        self.builds_left -= i64::from(self.builds_left > 0);
        self.last_build = Instant::now();
    }

    fn look_for_end(&mut self) {
        if self.builds_left < 1 && self.options.max_builds != 0 {
            log::entry("This runner has processed its build limit, so now exiting").write(Level::Info);
            self.is_enough = true;
        }
        let patience = u64::try_from(self.options.wait_timeout).unwrap_or_default();
        if patience > 0 && self.last_build.elapsed().as_secs() > patience {
            let text = format!("This runner has not received a job in {patience} seconds, so now exiting");
            log::entry(text).write(Level::Info);
            self.is_enough = true;
        }
    }
}
