//! How things break.

use std::time::Duration;

use e2e::surroundings::jump;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::faults::{self, Effect};

use super::cell::Held;
use super::fault::Fault;

/// Long enough for all of a stop.
const NOTICE: Duration = Duration::from_secs(30);

/// The ways to power off, as they are tried.
const WAYS: [&str; 3] = ["systemctl", "poweroff", "shutdown"];

/// One that refuses, and leaves a word of it.
const REFUSES: &str = "#!/bin/sh\necho \"$0\" >>'@refused@'\nexit 1\n";

impl Held {
    pub fn strike(&self, fault: Fault) {
        match fault {
            Fault::AgentKilled => self.signal("cml-agent", Signal::SIGKILL),
            Fault::AgentFrozen => self.signal("cml-agent", Signal::SIGSTOP),
            Fault::AgentKilledAndDeleted => {
                self.scene.inside(&self.id, "rm -f /opt/cml/bin/cml-agent");
                self.signal("cml-agent", Signal::SIGKILL);
            }
            Fault::RunnerKilled => self.signal(self.names.runner, Signal::SIGKILL),
            Fault::RunnerDeaf => {
                self.signal(self.names.runner, Signal::SIGSTOP);
                // Of a notice's time the runner gets a part to stop in, which is over sooner than the minute that it gets otherwise.
                self.scene.world.cloud.take_back(&self.id, NOTICE);
            }
            Fault::BothKilled => {
                // An agent that sees its runner's end first takes it for a crash of the runner.
                let runner = self.pid(self.names.runner);
                self.signal("cml-agent", Signal::SIGKILL);
                kill(runner, Signal::SIGKILL).unwrap();
            }
            Fault::DiskFull => self.scene.inside(&self.id, e2e::FILL_DISK),
            Fault::MetadataSilent => self.scene.world.cloud.silence_metadata(&self.id),
            Fault::ClockAhead => self.jump("+1d"),
            Fault::ClockBehind => self.jump("-1d"),
            Fault::NamesUnknown => {
                let lost = self.name_server.as_ref().expect("there is one").take_over();
                self.scene.inside(&self.id, &lost);
                // A connection that stands needs no name.
                self.hang_up();
            }
            Fault::PowerOffRefused => self.refuse(&WAYS[..2]),
            Fault::PowerOffForbidden => self.refuse(&WAYS),
            _ => self.strike_forge(fault),
        }
    }

    fn jump(&self, days: &str) {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid("cml-agent"))).unwrap();
        assert!(maps.contains("libfaketime"), "the agent would not see it: {maps}");
        self.scene.inside(&self.id, &jump(days));
    }

    fn strike_forge(&self, fault: Fault) {
        let answer = |status, body: &str| {
            let (headers, body) = (Vec::new(), body.into());
            self.api(&Effect::Answer { status, headers, body });
        };
        match fault {
            Fault::ForgeUnreachable => self.hang_up(),
            Fault::ForgeUnauthorized => answer(401, r#"{"message":"Bad credentials"}"#),
            Fault::ForgeForbidden => answer(403, r#"{"message":"Resource not accessible by personal access token"}"#),
            Fault::ForgeLimits => self.api(&Effect::Answer {
                status: 429,
                headers: vec![("retry-after".into(), "3600".into())],
                body: String::new(),
            }),
            Fault::ForgeSlow => self.api(&Effect::Delay(Duration::from_secs(1))),
            Fault::ForgeBroken => answer(500, ""),
            other => panic!("{other:?} is none of the forge's"),
        }
    }

    /// On everybody: whoever has the token, and the runner.
    fn hang_up(&self) {
        self.api(&Effect::Reset);
        self.always(self.names.protocol, Effect::Reset);
    }

    fn api(&self, effect: &Effect) {
        for request in self.names.api {
            self.always(request, effect.clone());
        }
    }

    fn always(&self, request: &str, effect: Effect) {
        self.scene.world.forge.faults().add(faults::Fault {
            request: request.into(),
            skip: 0,
            times: usize::MAX,
            effect,
        });
    }

    fn refuse(&self, ways: &[&str]) {
        let shims = self.scene.world.fleet.machine_dir(&self.id).join("shims");
        let script = REFUSES.replace("@refused@", &self.refusals().display().to_string());
        for way in ways {
            std::fs::write(shims.join(way), &script).unwrap();
        }
    }

    fn signal(&self, program: &str, signal: Signal) {
        kill(self.pid(program), signal).unwrap();
    }

    fn pid(&self, program: &str) -> Pid {
        let pid = self.scene.world.fleet.pid(&self.id, program);
        Pid::from_raw(pid.unwrap_or_else(|| panic!("{program} does not run:\n{}", self.scene.timeline())))
    }
}
