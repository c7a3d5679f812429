#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::process::Process;
use super::{Child, CommandLine, Output, kill_leftovers};
use crate::user::User;

/// Nothing takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn sh(dir: &Path, script: &str) -> CommandLine {
    CommandLine {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        dir: dir.into(),
        env: vec![("PATH".into(), std::env::var("PATH").unwrap())],
        ..CommandLine::default()
    }
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn pid_in(dir: &Path, file: &str) -> Option<i32> {
    std::fs::read_to_string(dir.join(file)).ok()?.strip_suffix('\n')?.parse().ok()
}

fn lives(pid: i32) -> bool {
    Process::read(pid).is_some_and(|process| !process.dead)
}

/// Ends a child of a test that fails.
struct Cleanup(i32);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.0), nix::sys::signal::Signal::SIGKILL);
    }
}

async fn all(child: &mut Child) -> (Vec<String>, std::process::ExitStatus) {
    let mut lines = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, child.next()).await.expect("it ends") {
            Output::Line(line) => lines.push(line),
            Output::Exited(status) => return (lines, status),
        }
    }
}

#[tokio::test]
async fn both_streams_come_as_whole_lines_and_the_end_comes_last_and_again() {
    let dir = TempDir::new().unwrap();
    let mut child = Child::start(&sh(dir.path(), "printf 'one\\ntw'; printf 'o\\nlast'; echo err >&2; exit 7")).unwrap();
    let (mut lines, status) = all(&mut child).await;
    lines.sort();
    assert_eq!(lines, ["err", "last", "one", "two"]);
    assert_eq!(status.code(), Some(7));
    assert_eq!(child.next().await, Output::Exited(status));
}

#[tokio::test]
async fn the_environment_is_built_from_nothing() {
    let dir = TempDir::new().unwrap();
    let mut command = sh(dir.path(), "exec env");
    command.env.push(("KEPT".into(), "yes".into()));
    let (mut lines, _) = all(&mut Child::start(&command).unwrap()).await;
    // What the shell sets itself.
    lines.retain(|line| !["PWD=", "SHLVL=", "_=", "OLDPWD=", "PATH="].iter().any(|own| line.starts_with(own)));
    lines.sort();
    assert_eq!(
        lines,
        [
            "KEPT=yes".to_owned(),
            format!("SUPERVISED_BY=cml-agent:{}:exec env", dir.path().display())
        ]
    );
}

#[tokio::test]
async fn lines_are_not_lost_when_waiting_for_them_is_given_up() {
    let dir = TempDir::new().unwrap();
    let script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done";
    let mut child = Child::start(&sh(dir.path(), script)).unwrap();
    let mut lines = Vec::new();
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end);
        match tokio::time::timeout(Duration::from_micros(50), child.next()).await {
            Ok(Output::Line(line)) => lines.push(line),
            Ok(Output::Exited(_)) => break,
            Err(_) => {}
        }
    }
    assert_eq!(lines, (0..200).map(|number| format!("line {number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_daemon_that_holds_the_output_does_not_hide_the_end() {
    let dir = TempDir::new().unwrap();
    let mut child = Child::start(&sh(
        dir.path(),
        "setsid sh -c 'echo $$ >daemon; exec sleep 1000' & while [ ! -s daemon ]; do :; done; echo done",
    ))
    .unwrap();
    let (lines, status) = all(&mut child).await;
    assert_eq!((lines.as_slice(), status.code()), (["done".to_owned()].as_slice(), Some(0)));
    let daemon = pid_in(dir.path(), "daemon").unwrap();
    assert!(lives(daemon));
    child.stop(Duration::ZERO).await;
    assert!(!lives(daemon), "a stop after the end ends what was left");
}

#[tokio::test]
async fn a_gentle_stop_lets_it_finish_and_keeps_its_last_lines() {
    let dir = TempDir::new().unwrap();
    // As the agent does: what whoever started us ignores, a shell cannot trap, unless it is caught here.
    let _heard = signal(SignalKind::interrupt()).unwrap();
    // It starts nothing any more when it is told: dash loses a signal that comes while it starts a program.
    let script = "trap 'echo stopping; exit 3' INT; sleep 1000 & echo ready; wait";
    let mut child = Child::start(&sh(dir.path(), script)).unwrap();
    assert_eq!(child.next().await, Output::Line("ready".into()));
    assert_eq!(child.stop(PATIENCE).await.code(), Some(3));
    assert_eq!(child.next().await, Output::Line("stopping".into()));
    assert!(matches!(child.next().await, Output::Exited(_)));
}

/// Whether this is the test's own process; if not, the test has run in one of its own by now. An orphan without an environment belongs to whichever
/// program its process supervises, so the tests of one process would end each other's.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "CML_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("supervise::tests::{test}")])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && told.contains("1 passed"), "{told}");
    false
}

/// Ignores every polite signal, and has children in the group, in another session, doubly forked, and without its environment.
const STUBBORN: &str = r#"
trap '' INT TERM
sh -c 'echo $$ >group; exec sleep 1000' &
setsid sh -c 'echo $$ >session; exec sleep 1000' &
(setsid sh -c 'echo $$ >orphan; exec sleep 1000' &)
(env -i PATH="$PATH" setsid sh -c 'echo $$ >hidden; while :; do sleep 0.1; done' &)
while [ ! -s group ] || [ ! -s session ] || [ ! -s orphan ] || [ ! -s hidden ]; do sleep 0.01; done
echo ready
yes 'output that nobody reads while it is being stopped'
"#;
const STUBBORN_FILES: [&str; 4] = ["group", "session", "orphan", "hidden"];

#[tokio::test]
async fn nothing_survives_a_stop() {
    if !is_alone("nothing_survives_a_stop") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut child = Child::start(&sh(dir.path(), STUBBORN)).unwrap();
    assert_eq!(child.next().await, Output::Line("ready".into()));
    let pids = STUBBORN_FILES.map(|file| pid_in(dir.path(), file).unwrap());
    assert!(pids.iter().all(|pid| lives(*pid)));
    let status = child.stop(Duration::from_millis(100)).await;
    assert!(!status.success());
    for (file, pid) in STUBBORN_FILES.iter().zip(pids) {
        assert!(!lives(pid), "{file} survived");
    }
    assert!(!lives(child.pid()));
}

#[tokio::test]
async fn adopted_orphans_are_reaped_while_it_runs() {
    let dir = TempDir::new().unwrap();
    let script = "(setsid sh -c 'echo $$ >orphan' &); echo ready; while [ ! -e stop ]; do sleep 0.01; done";
    let mut child = Child::start(&sh(dir.path(), script)).unwrap();
    assert_eq!(child.next().await, Output::Line("ready".into()));
    let look = dir.path().to_owned();
    let reaped = until(move || pid_in(&look, "orphan").filter(|pid| Process::read(*pid).is_none()));
    tokio::select! {
        _ = reaped => {}
        output = child.next() => panic!("{output:?} instead of quiet"),
    }
    std::fs::write(dir.path().join("stop"), "").unwrap();
    assert!(all(&mut child).await.1.success());
}

#[tokio::test]
async fn what_an_earlier_life_left_is_ended_and_nothing_else() {
    if !is_alone("what_an_earlier_life_left_is_ended_and_nothing_else") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let child = Child::start(&sh(dir.path(), STUBBORN)).unwrap();
    let _cleanup = Cleanup(child.pid());
    let look = dir.path().to_owned();
    let pids = until(|| {
        STUBBORN_FILES
            .map(|file| pid_in(&look, file))
            .into_iter()
            .collect::<Option<Vec<_>>>()
    })
    .await;
    let (leader, start) = (child.pid(), child.start_time());
    kill_leftovers(leader, start + 1).await;
    assert!(lives(leader), "the id belongs to another process: it is not touched");
    // It ignores the polite signal that comes first; do not wait for the whole grace.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(leader), nix::sys::signal::Signal::SIGKILL).unwrap();
    let gone = until(|| (!lives(leader)).then_some(()));
    gone.await;
    kill_leftovers(leader, start).await;
    assert!(pids.iter().all(|pid| !lives(*pid)), "{pids:?}");
}

#[tokio::test]
async fn a_program_of_a_user_ends_with_everything_of_that_user() {
    if !nix::unistd::Uid::effective().is_root() {
        crate::user::skip("a_program_of_a_user_ends_with_everything_of_that_user", "needs root");
        return;
    }
    let dir = TempDir::new().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(61_234), Some(61_234)).unwrap();
    let mut command = sh(dir.path(), "id -u; id -G; setsid env -i sleep 1000 & echo $! >daemon; exit 0");
    command.user = Some(User {
        name: "nobody-has-this-name".into(),
        uid: 61_234,
        gid: 61_234,
        home: dir.path().into(),
    });
    let mut child = Child::start(&command).unwrap();
    let (lines, status) = all(&mut child).await;
    assert_eq!((lines, status.code()), (vec!["61234".to_owned(), "61234".to_owned()], Some(0)));
    let daemon = pid_in(dir.path(), "daemon").unwrap();
    child.stop(Duration::ZERO).await;
    assert!(!lives(daemon));
}

#[test]
fn a_user_of_other_groups_is_entered_with_them() {
    let user = User {
        name: "cml".into(),
        uid: 5,
        gid: 6,
        home: "/".into(),
    };
    assert_eq!(
        super::setpriv_args(&user, &[6, 7]),
        ["--reuid=5", "--regid=6", "--groups=6,7", "--"]
    );
}
