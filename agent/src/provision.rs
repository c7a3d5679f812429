//! The user's start-up script, before anything else on the machine.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::spec::Script;

use crate::console::Console;
use crate::script;
use crate::supervise::CommandLine;

/// How many of its last lines an error shows.
const LAST_LINES: usize = 5;
/// What a script finds programs with if the agent itself was started without.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Belongs to the agent's own service: a daemon that the script starts would speak in its name.
const NOT_INHERITED: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
];

/// Runs the script as the agent's own user (root on an instance), its output to the console and the log. Its own end counts: daemons that it
/// leaves may hold its output, and live on if it succeeded.
///
/// # Errors
/// It cannot be started, fails, or takes longer than the budget; then nothing that it started survives.
pub async fn run_startup_script(script: &Script, console: &Console, budget: Duration) -> Result<()> {
    let mut last = VecDeque::new();
    let ended = script::run(script, surroundings(), budget, |line| {
        console.text(&line);
        tracing::info!("start-up script: {line}");
        last.push_back(line);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    })
    .await
    .context("running the start-up script")?;
    let why = match ended {
        Some(status) if status.success() => return Ok(()),
        Some(status) => Failure::new(Class::NotOnline, format!("the start-up script failed: {status}")),
        None => Failure::new(
            Class::NotOnline,
            "the start-up script took longer than the time for provisioning: it was killed",
        )
        .hint("give it more time with --provisioning-timeout, or bake what it installs into an image"),
    };
    let said = match last.make_contiguous() {
        [] => "it said nothing".to_owned(),
        lines => format!("it said at last: {}", lines.join(" / ")),
    };
    Err(anyhow::anyhow!(said).context(why))
}

/// The agent's own, less what is its service's.
fn surroundings() -> CommandLine {
    let mut env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !NOT_INHERITED.contains(&name.as_str()))
        .collect();
    for (name, value) in [("PATH", PATH), ("HOME", "/root")] {
        if std::env::var_os(name).is_none() {
            env.push((name.into(), value.into()));
        }
    }
    CommandLine {
        dir: "/".into(),
        env,
        ..CommandLine::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::path::Path;
    use std::time::{Duration, Instant};

    use base64::Engine as _;
    use common::error::Report;
    use common::spec::Script;
    use tempfile::TempDir;

    use super::run_startup_script;
    use crate::console::Console;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn script(text: &str) -> Script {
        base64::engine::general_purpose::STANDARD.encode(text).parse().unwrap()
    }

    async fn run(text: &str, budget: Duration) -> anyhow::Result<()> {
        run_startup_script(&script(text), &Console::open(false), budget).await
    }

    fn pid(file: &Path) -> i32 {
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    fn lives(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    /// Whether a process lives whose arguments name the file.
    fn mentioned(file: &Path) -> bool {
        let name = file.to_str().unwrap();
        let arguments = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .any(|entry| arguments(entry).contains(name))
    }

    /// Starts a daemon that says its id in that file, in a session of its own, and deaf.
    const DAEMON: &str = r#"
        setsid sh -c 'trap "" TERM INT HUP; echo $$ >$0.new; mv $0.new $0; exec sleep 1000' FILE &
        while [ ! -e FILE ]; do sleep 0.01; done
    "#;

    #[tokio::test]
    async fn it_runs_under_its_own_interpreter_with_nothing_to_read() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("out");
        let text = format!(
            "#!/usr/bin/env bash\n[[ -n $BASH_VERSION ]] && {{ echo \"$(cat)$0\"; stat -c %a \"${{0%/*}}\" \"$0\"; }} >{}",
            file.display()
        );
        run(&text, PATIENCE).await.unwrap();
        let out = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[1..], ["700", "700"]);
        assert!(!Path::new(lines[0]).exists(), "the script is removed afterwards: {}", lines[0]);
    }

    #[tokio::test]
    async fn a_failure_tells_the_status_and_the_last_lines() {
        let error = run("for i in 1 2 3 4 5 6 7; do echo line $i; done; exit 7", PATIENCE)
            .await
            .unwrap_err();
        let report = Report(&error).to_string();
        assert!(
            report.contains("exit status: 7") && report.contains("line 3 / line 4 / line 5 / line 6 / line 7"),
            "{report}"
        );
        assert!(!report.contains("line 2"), "{report}");
        let error = run("kill -9 $$", PATIENCE).await.unwrap_err();
        assert!(format!("{error:#}").contains("SIGKILL"), "{error:#}");
        let error = run("#!/no/such/program\n", PATIENCE).await.unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/program"), "{error:#}");
    }

    #[tokio::test]
    async fn a_daemon_survives_success_even_if_it_writes_later_and_does_not_hold_us() {
        let dir = TempDir::new().unwrap();
        let (file, go, done) = (dir.path().join("pid"), dir.path().join("go"), dir.path().join("done"));
        let (go_path, done_path) = (go.display(), done.display());
        let daemon = format!(
            "(while [ ! -e {go_path} ]; do sleep 0.01; done; echo more; echo more; touch {done_path}; exec sleep 1000) & echo $! >{}",
            file.display()
        );
        run(&daemon, PATIENCE).await.unwrap();
        let daemon = pid(&file);
        assert!(lives(daemon));
        std::fs::write(&go, "").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !done.exists() {
            assert!(Instant::now() < deadline && lives(daemon), "its output killed it");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon), nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    #[tokio::test]
    async fn past_the_budget_and_after_a_failure_nothing_survives() {
        for (end, expected) in [
            ("echo waiting; sleep 1000", "--provisioning-timeout"),
            ("echo waiting; exit 1", "exit status: 1"),
        ] {
            let dir = TempDir::new().unwrap();
            let file = dir.path().join("pid");
            let text = DAEMON.replace("FILE", &file.display().to_string()) + end;
            // Long enough for the daemon to start, even on a busy machine; the failing script does not wait for it.
            let error = run(&text, Duration::from_secs(3)).await.unwrap_err();
            let report = Report(&error).to_string();
            assert!(report.contains(expected) && report.contains("waiting"), "{report}");
            assert!(!lives(pid(&file)), "the daemon survived");
        }
    }

    #[tokio::test]
    async fn given_up_it_is_killed() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("pid");
        let text = DAEMON.replace("FILE", &file.display().to_string())
            + &format!("for i in 1 2 3 4 5 6 7 8; do sh -c 'sleep 1000; : {}' & done; wait", file.display());
        let started = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = run(&text, PATIENCE) => panic!("{ended:?}"),
            () = started => {}
        }
        let deadline = Instant::now() + PATIENCE;
        while lives(pid(&file)) || mentioned(&file) {
            assert!(Instant::now() < deadline, "it survived");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
