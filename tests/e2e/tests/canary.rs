//! Every secret of a launch is looked for, wherever a job or a reader of logs could find it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use e2e::{NOTICE, Scene, startup_script, until};
use sandbox::cloud;
use sandbox::faults::{Effect, Fault, Gate};
use sandbox::forge::Kind;
use sandbox::github::app::{CLIENT_ID, KEY};
use sandbox::standin;
use sandbox::world::Options;

/// A world whose token is nowhere but in it: not even in our own programs and their source.
async fn scene(forge: Kind, cloud: cloud::Kind) -> Scene {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let random = standin::sha256(format!("{now:?} {}", std::process::id()).as_bytes());
    let forge = match forge {
        Kind::GitHub => sandbox::github::Options {
            token: format!("ghp_{}", &random[..36]),
            ..sandbox::github::Options::default()
        }
        .into(),
        Kind::GitLab => sandbox::gitlab::Options {
            token: format!("glpat-{}", &random[..20]),
            ..sandbox::gitlab::Options::default()
        }
        .into(),
        Kind::Bitbucket => sandbox::bitbucket::Options {
            token: format!("ATCTT3{}", &random[..40]),
            waits: true,
            ..sandbox::bitbucket::Options::default()
        }
        .into(),
    };
    Scene::with(Options {
        forge,
        cloud,
        notice: (cloud != cloud::Kind::Aws).then_some(NOTICE),
        ..Options::default()
    })
    .await
}

/// Where these tests are built and keep their records of what was said: no machine has it. It may lie where a job looks.
fn checkout() -> std::path::Display<'static> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap().display()
}

/// A script that fails where what its user may read holds a text of this run. It names the text in two halves, so that it does not find itself.
fn search(text: &str) -> String {
    let (head, tail) = text.split_at(text.len() / 2);
    // No file that is older than the text can hold it, and a disk may be large.
    let since = SystemTime::now() - Duration::from_mins(1);
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!(
        "files() {{
           find /etc /home /opt /root /run /tmp /usr/local /var /dev/shm -path '{checkout}' -prune -o -type f -newerct @{since} -print0
           printf '%s\\0' /proc/[0-9]*/environ /proc/[0-9]*/cmdline
         }}
         found=$(files 2>/dev/null | xargs -0 sh -c 'printf %s%s \"{head}\" \"{tail}\" | grep -lsF -f - \"$@\"' search 2>/dev/null || :)
         echo \"searched as $(id -un)\"
         if [ -n \"$found\" ]; then echo \"found in $found\"; exit 1; fi
         if env | grep -q '{tail}'; then echo 'found in the environment'; exit 1; fi",
        checkout = checkout(),
        since = since.as_secs()
    )
}

#[tokio::test]
async fn a_job_finds_no_secret_on_its_machine_and_no_log_tells_one() {
    if !e2e::is_isolated("a_job_finds_no_secret_on_its_machine_and_no_log_tells_one") {
        return;
    }
    for forge in Kind::ALL {
        finds_no_secret(scene(forge, cloud::Kind::Aws).await).await;
    }
    for cloud in [cloud::Kind::Azure, cloud::Kind::Gcp, cloud::Kind::Kubernetes] {
        finds_no_secret(scene(Kind::GitHub, cloud).await).await;
    }
}

async fn finds_no_secret(scene: Scene) {
    let token = scene.world.forge.token().to_owned();
    let key = scene.world.cloud_secret();
    assert!(
        scene.world.env().iter().any(|(_, value)| value.contains(&key)),
        "the launcher has it"
    );
    let run = scene.job(&format!("{}\n{}", search(&token), search(&key)));
    let launched = scene.launch(&["--log=debug", &startup_script("echo prepared")]).await;
    launched.succeeded();
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    scene.all_gone().await;
    assert!(scene.timeline().contains("searched as cml"));
    for secret in [&token, &key] {
        assert!(!scene.timeline().contains(secret), "on the console, or in the job's log");
        assert!(
            !launched.stderr.contains(secret) && !launched.stdout.contains(secret),
            "told by the launcher"
        );
    }
    if scene.world.cloud.kind() == cloud::Kind::Aws {
        for (action, form) in &scene.world.ec2().requests() {
            assert!(
                form.iter().all(|(name, value)| name == "UserData" || !value.contains(&token)),
                "{action} sends the token in clear"
            );
        }
    }
    let data = scene.world.fleet.script(&scene.world.fleet.instances()[0].id).unwrap();
    // A pod has it in a Secret of its own.
    let is_pod = scene.world.cloud.kind() == cloud::Kind::Kubernetes;
    assert_eq!(
        data.contains(&token),
        !is_pod,
        "in this mode the machine needs it: {:?}",
        scene.world.cloud.kind()
    );
    assert!(!data.contains(&key), "no cloud credential goes to the machine");
    scene.end().await;
}

#[tokio::test]
async fn the_search_finds_what_is_there_to_be_found() {
    if !e2e::is_isolated("the_search_finds_what_is_there_to_be_found") {
        return;
    }
    let scene = scene(Kind::GitHub, cloud::Kind::Aws).await;
    let token = scene.world.forge.token().to_owned();
    let run = scene.job(&search(&token));
    let leak = startup_script(&format!("umask 022; echo '{token}' >/etc/leak"));
    scene.launch(&[&leak]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "failure");
    assert!(scene.timeline().contains("found in /etc/leak"), "{}", scene.timeline());
    scene.end().await;
}

#[tokio::test]
async fn no_argument_of_any_process_is_a_secret() {
    for forge in Kind::ALL {
        shows_no_argument(scene(forge, cloud::Kind::Aws).await).await;
    }
}

async fn shows_no_argument(scene: Scene) {
    let token = scene.world.forge.token().to_owned();
    // What holds a secret while the request stands, what runs a job, and what the runner's own secrets begin with.
    let (request, registering, working, own) = match scene.world.forge.kind() {
        Kind::GitHub => ("POST /_runner/register", "Runner.Listener configure", "Runner.Worker", "AREG"),
        Kind::GitLab => ("POST /user/runners", "cml-agent run", "gitlab-runner", "glrt-"),
        Kind::Bitbucket => (
            "POST /repositories/*/pipelines-config/runners",
            "cml-agent run",
            "runner.jar",
            "oauth-",
        ),
    };
    let registers = Gate::default();
    scene.world.forge.faults().add(Fault {
        request: request.into(),
        skip: 0,
        times: 1,
        effect: Effect::Hold(registers.clone()),
    });
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    let launcher = scene.start(&[]);
    registers.reached().await;
    let while_registering = arguments();
    assert_eq!(dumps(launcher.id().unwrap()), "0", "the launcher would dump its memory");
    registers.open();
    Scene::finish(launcher).await.succeeded();
    scene.working().await;
    let while_working = arguments();
    let agent = scene.world.fleet.agent_pid(&scene.first().id).unwrap();
    assert_eq!(dumps(agent), "0", "the agent would dump its memory, or a job its own");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(scene.conclusion(run).await, "success");
    assert!(
        while_registering.contains(registering) && while_working.contains(working),
        "{while_registering}"
    );
    for seen in [while_registering, while_working] {
        assert!(!seen.contains(&token), "the token is an argument");
        assert!(!seen.contains(own), "a runner's own token is an argument");
    }
    scene.end().await;
}

#[tokio::test]
async fn the_key_of_an_app_and_its_tokens_stay_with_the_launcher() {
    if !e2e::is_isolated("the_key_of_an_app_and_its_tokens_stay_with_the_launcher") {
        return;
    }
    let scene = Scene::new().await;
    let key = KEY.lines().nth(3).unwrap();
    let registers = Gate::default();
    scene.world.forge.faults().add(Fault {
        request: "POST /repos/*/generate-jitconfig".into(),
        skip: 0,
        times: 1,
        effect: Effect::Hold(registers.clone()),
    });
    let line = ["runner", "--cloud=aws", "--labels=gpu", "--single", "--no-retry", "--log=debug"];
    let mut command = scene.world.launcher(&line);
    command.env("CML_RUNNER_APP_ID", CLIENT_ID).env("CML_RUNNER_APP_PRIVATE_KEY", KEY);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    registers.reached().await;
    let mut seen = arguments();
    registers.open();
    let launched = Scene::finish(child).await;
    launched.succeeded();
    let minted = scene.world.github().minted();
    // By now its token is known, and a job can look for it.
    let run = scene.job(&minted.iter().map(|minted| search(&minted.token) + "\n").collect::<String>());
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    scene.all_gone().await;
    assert!(seen.contains("--single --no-retry"), "{seen}");
    seen += &(scene.timeline() + &launched.stderr + &launched.stdout);
    seen += &scene.world.fleet.script(&scene.world.fleet.instances()[0].id).unwrap();
    for secret in minted
        .iter()
        .map(|minted| minted.token.as_str())
        .chain([key, scene.world.forge.token()])
    {
        assert!(!seen.contains(secret), "an argument, a log or the user data tells a secret");
    }
    scene.end().await;
}

/// How much of its memory a process may leave behind when it crashes, at most. Source: proc(5), `/proc/pid/limits`.
fn dumps(pid: impl std::fmt::Display) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// Of every process here, those of instances too.
fn arguments() -> String {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    arguments
        .map(|words| String::from_utf8_lossy(&words).replace('\0', " ") + "\n")
        .collect()
}
