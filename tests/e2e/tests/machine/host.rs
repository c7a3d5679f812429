//! A user's own host, which is a whole machine: a runner is installed there, works, and is removed again.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use e2e::{Outcome, PATIENCE, Scene, until};
use sandbox::ci::RunId;
use tokio::process::Command;

/// The programs, where a person would put them.
const PROGRAMS: &str = "install -m 755 \"$1/cml\" \"$1/cml-agent\" /usr/local/bin";
/// What holds a job: it does not see the host's `/tmp`.
const GATE: &str = "/srv/gate";
/// How often something is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// All files of the host, but those that every machine writes by itself.
const FILES: &str = "find / -xdev \\( -path /proc -o -path /tmp -o -path /run -o -path /var/log -o -path '/var/lib/systemd/*' -o -path /var/lib/cloud \\
    -o -name '*-' -o -path /etc/.pwd.lock \\) -prune -o -printf '%y %p\\n' | sort; cut -d: -f1 /etc/passwd /etc/group";

/// A host that has booted, and on which nothing of ours runs.
pub struct Host {
    pub scene: Scene,
    id: String,
}

impl Host {
    /// Boots one.
    pub async fn boot(scene: Scene) -> Self {
        scene.world.cloud.foreign("host");
        let id = scene.first().id;
        let host = Self { scene, id };
        let booted = async {
            while host.run("systemctl is-system-running --wait").await.stdout.trim() != "running" {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, booted).await.expect("the host boots");
        host
    }

    /// The same with the programs in place.
    pub async fn with_programs(scene: Scene) -> Self {
        let host = Self::boot(scene).await;
        host.run(PROGRAMS).await.succeeded();
        host
    }

    /// Runs a script as root there; `$1` is a folder with the programs. Nothing where the host is not up.
    pub async fn run(&self, script: &str) -> Outcome {
        let Some(first) = self.scene.world.fleet.pid(&self.id, "systemd") else {
            return Outcome {
                code: None,
                stdout: String::new(),
                stderr: String::new(),
            };
        };
        let programs = self.scene.world.dir().join("programs");
        if !programs.exists() {
            std::fs::create_dir(&programs).unwrap();
            for name in ["cml", "cml-agent"] {
                std::fs::copy(sandbox::standin::program(name).unwrap(), programs.join(name)).unwrap();
            }
        }
        let mut command = Command::new("nsenter");
        command.args([
            "--all",
            "--root",
            "--wd",
            "--target",
            &first.to_string(),
            "bash",
            "-c",
            script,
            "bash",
        ]);
        command.arg(programs).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        // Whoever runs there does not outlive the test.
        command.kill_on_drop(true).output().await.expect("nsenter starts").into()
    }

    /// Installs a runner.
    pub async fn install(&self, more: &str) -> Outcome {
        let (repo, token) = (self.scene.world.forge.repo_url(), self.scene.world.forge.token());
        self.run(&format!(
            "cml-agent install --repo={repo} --driver=github --labels=gpu --name=here --token-file=- {more} <<<'{token}'"
        ))
        .await
    }

    /// A run whose job holds the runner until the gate opens.
    pub async fn busy(&self) -> RunId {
        let run = self.scene.job(&until(Path::new(GATE)));
        self.scene.working().await;
        run
    }

    /// Opens it, as soon as the host is up.
    pub async fn open(&self) {
        let open = async {
            while self.run(&format!("touch {GATE}")).await.code != Some(0) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, open).await.expect("the host is up");
    }

    /// Its first process is another one, or the same.
    pub async fn main_pid(&self) -> String {
        self.run("systemctl show --property=MainPID --value cml-runner-here").await.stdout
    }

    /// Waits until the host's runner is online, as `cml-agent status` says.
    pub async fn online(&self) {
        let online = async {
            while self.run("cml-agent status").await.code != Some(0) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, online).await.expect("the runner is online");
    }

    /// Nothing is on it that was not there before, but the gate of its jobs.
    pub async fn is_as(&self, before: &str) {
        let left = self.run(&format!("rm -f {GATE}; {FILES}")).await.stdout;
        // An rpm owns no folders, and Debian's rpm keeps what it knows at home.
        let is_rpms = |line: &str| line.starts_with("d /usr/share/") || line.contains("/root/.rpmdb");
        let is_new = |line: &&str| !is_rpms(line) && !before.lines().any(|known| known == *line);
        let more: Vec<&str> = left.lines().filter(is_new).collect();
        assert!(more.is_empty() && !left.is_empty(), "{more:?}");
    }

    /// The host is still there; now it goes.
    pub async fn end(self) {
        assert!(self.scene.world.fleet.pid(&self.id, "systemd").is_some(), "the host is gone");
        self.scene.world.fleet.end(&self.id, "the test is over");
        self.scene.end().await;
    }
}

pub async fn a_runner_is_installed_works_is_drained_and_leaves_nothing(scene: Scene) {
    let host = Host::with_programs(scene).await;
    assert_eq!(host.run("cml-agent status").await.code, Some(4));
    let before = host.run(FILES).await.stdout;
    let installed = host.install("").await;
    installed.succeeded();
    assert!(installed.stdout.contains("online"), "{installed:?}");
    let (head, tail) = host.scene.world.forge.token().split_at(8);
    let modes = "stat -c '%a %U' /etc/cml/here /etc/cml/here/* /var/lib/cml/here/spec.json /var/lib/cml/here/home";
    let modes = host.run(modes).await.stdout;
    assert_eq!(modes, "700 root\n600 root\n600 root\n600 root\n700 cml-here\n");
    let look = format!(
        "head={head} tail={tail}; grep -ls \"$head$tail\" /proc/[0-9]*/cmdline /etc/systemd/system/cml-* /etc/cml/here/*; \
         systemctl show cml-runner-here | grep \"$head$tail\""
    );
    assert_eq!(host.run(&look).await.stdout, "/etc/cml/here/token\n");

    let run = host.scene.job("id -un; if cat /etc/cml/here/token || cat /var/lib/cml/here/spec.json || sudo -n true; then exit 1; fi; env | grep CML_ && exit 1; :");
    assert_eq!(host.scene.conclusion(run).await, "success", "{}", host.scene.timeline());

    // In the middle of a job: it is finished, and then another process takes over.
    let run = host.busy().await;
    let old = host.main_pid().await;
    host.run("systemctl reload cml-runner-here").await.succeeded();
    assert_eq!(host.main_pid().await, old);
    host.open().await;
    assert_eq!(host.scene.conclusion(run).await, "success");
    host.scene.events("runner-online", 2).await;
    host.online().await;
    assert_ne!(host.main_pid().await, old);
    assert_eq!(host.scene.world.forge.run(run).unwrap().attempt, 1);

    host.run("cml-agent uninstall").await.succeeded();
    host.is_as(&before).await;
    assert_eq!(host.run("cml-agent status").await.code, Some(4));
    host.end().await;
}

pub async fn a_host_that_restarts_has_its_job_run_again_and_its_runner_back(scene: Scene) {
    let host = runs_again_here(scene, "systemctl reboot").await;
    assert_eq!(host.scene.world.events.count("rebooted"), 1);
    host.run("cml-agent uninstall").await.succeeded();
    host.end().await;
}

pub async fn an_agent_that_is_killed_on_a_host_clears_up_and_begins_anew(scene: Scene) {
    let host = runs_again_here(scene, "kill -KILL $(systemctl show --property=MainPID --value cml-runner-here)").await;
    assert_eq!(host.scene.world.events.count("rebooted"), 0);
    host.run("cml-agent uninstall").await.succeeded();
    host.end().await;
}

/// A job is interrupted by this command, and done again by the same host: nobody launches anything.
async fn runs_again_here(scene: Scene, command: &str) -> Host {
    let host = Host::with_programs(scene).await;
    host.install("").await.succeeded();
    let run = host.busy().await;
    host.run(command).await;
    host.scene.event("run-rerun").await;
    host.open().await;
    assert_eq!(host.scene.conclusion(run).await, "success");
    assert_eq!(host.scene.world.forge.run(run).unwrap().attempt, 2);
    host.online().await;
    host
}

pub async fn a_user_that_was_there_before_stays(scene: Scene) {
    let host = Host::with_programs(scene).await;
    host.run("useradd --create-home cml-here").await.succeeded();
    let before = host.run(FILES).await.stdout;
    host.install("--job-user=cml-here").await.succeeded();
    let run = host.scene.job("[ \"$(id -un)\" = cml-here ]");
    assert_eq!(host.scene.conclusion(run).await, "success");
    host.run("cml-agent uninstall").await.succeeded();
    host.run("id cml-here && [ -e ~cml-here/.bashrc ]").await.succeeded();
    host.is_as(&before).await;
    host.end().await;
}

pub async fn what_is_refused_installs_nothing(scene: Scene) {
    let host = Host::with_programs(scene).await;
    let before = host.run(FILES).await.stdout;
    for (more, code) in [
        ("--cloud=aws", 2),
        ("--idle-timeout=5m", 2),
        ("--lables=x", 2),
        ("--token=wrong", 3),
    ] {
        let token = host.scene.world.forge.token();
        let given = if more.contains("token") { "" } else { token };
        let repo = host.scene.world.forge.repo_url();
        let refused = host
            .run(&format!(
                "REPO_TOKEN='{given}' cml-agent install --repo={repo} --driver=github --name=here {more}"
            ))
            .await;
        assert_eq!(refused.code, Some(code), "{more}: {refused:?}");
    }
    assert_eq!(host.run(FILES).await.stdout, before);
    host.end().await;
}

pub async fn a_debian_package_is_installed_upgraded_in_mid_job_and_removed(scene: Scene) {
    packaged(
        scene,
        "a_debian_package_is_installed_upgraded_in_mid_job_and_removed",
        "cml_*.deb",
        "dpkg -i",
        "dpkg -i",
        "dpkg -r cml",
    )
    .await;
}

pub async fn an_rpm_is_installed_upgraded_in_mid_job_and_removed(scene: Scene) {
    // What it needs is there, but not as packages of rpm's own.
    packaged(
        scene,
        "an_rpm_is_installed_upgraded_in_mid_job_and_removed",
        "cml-*.rpm",
        "rpm -i --nodeps",
        "rpm -U --nodeps --force",
        "rpm -e cml",
    )
    .await;
}

/// A package by these commands: an upgrade lets a job end, and a removal takes the runner along.
async fn packaged(scene: Scene, test: &str, file: &str, install: &str, upgrade: &str, remove: &str) {
    let Some(folder) = std::env::var_os("CML_TEST_PACKAGES") else {
        e2e::skip(test, "there are no packages: `make packages` once, which installs what makes them");
        return scene.end().await;
    };
    let own = scene.world.dir().join("packages");
    let copied = std::process::Command::new("cp").arg("-r").arg(folder).arg(&own).status().unwrap();
    assert!(copied.success());
    let host = Host::boot(scene).await;
    let before = host.run(FILES).await.stdout;
    let file = format!("{}/{file}", own.display());
    host.run(&format!("{install} {file}")).await.succeeded();
    host.install("").await.succeeded();
    let run = host.busy().await;
    let old = host.main_pid().await;
    host.run(&format!("{upgrade} {file}")).await.succeeded();
    assert_eq!(host.main_pid().await, old);
    host.open().await;
    assert_eq!(host.scene.conclusion(run).await, "success");
    assert_eq!(host.scene.world.forge.run(run).unwrap().attempt, 1);
    host.scene.events("runner-online", 2).await;
    host.online().await;
    let runs = host
        .run("readlink /proc/$(systemctl show --property=MainPID --value cml-runner-here)/exe")
        .await
        .stdout;
    assert_eq!(runs, "/usr/bin/cml-agent\n");
    host.run(remove).await.succeeded();
    host.is_as(&before).await;
    host.end().await;
}
