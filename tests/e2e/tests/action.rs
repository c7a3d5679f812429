//! The action: what a workflow's `uses:` runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use e2e::{Outcome, Scene, skip};
use tokio::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// What a workflow would give as inputs.
const INPUTS: [(&str, &str); 4] = [
    ("cloud", "aws"),
    ("labels", "gpu"),
    ("idle-timeout", "1s"),
    ("provisioning-timeout", "40s"),
];

/// A folder as `make dist` makes it, with our own launcher in it.
fn mirror(scene: &Scene) -> PathBuf {
    let folder = scene.world.dir().join("mirror");
    std::fs::create_dir(&folder).unwrap();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let name = format!("cml-{}-linux-{arch}", env!("CARGO_PKG_VERSION"));
    let launcher = scene.world.launcher(&[]);
    std::fs::copy(launcher.as_std().get_program(), folder.join(&name)).unwrap();
    let sums = format!("cd '{}' && sha256sum {name} >SHA256SUMS", folder.display());
    assert!(std::process::Command::new("sh").args(["-c", &sums]).status().unwrap().success());
    folder
}

/// Runs the action's own step, as a runner would that has read action.yml.
async fn step(scene: &Scene, mirror: &Path) -> Outcome {
    let mut command = Command::new(Path::new(ROOT).join("tools/action"));
    command.env_clear().envs(scene.world.env()).current_dir(scene.world.dir());
    for (name, value) in INPUTS {
        command.env(format!("CML_INPUT_{}", name.to_uppercase().replace('-', "_")), value);
    }
    // One that is not given hides nothing.
    command.env("CML_INPUT_AGENT_URL", "");
    command.env("CML_ACTION_VERSION", env!("CARGO_PKG_VERSION"));
    command.env("CML_ACTION_URL", format!("file://{}", mirror.display()));
    command.env("RUNNER_TOOL_CACHE", scene.world.dir().join("tools"));
    command.env("GITHUB_OUTPUT", scene.world.dir().join("output"));
    command.stdin(Stdio::null()).output().await.expect("the action starts").into()
}

#[tokio::test]
async fn the_action_launches_a_machine_and_tells_its_outputs() {
    let scene = Scene::new().await;
    let mirror = mirror(&scene);
    let run = scene.job("echo hello");
    step(&scene, &mirror).await.succeeded();
    let told = std::fs::read_to_string(scene.world.dir().join("output")).unwrap();
    let id = scene.first().id;
    assert!(
        told.contains(&format!("instance-id={id}\n")) && told.contains("labels=gpu\n"),
        "{told}"
    );
    assert_eq!(scene.conclusion(run).await, "success");
    scene.all_gone().await;
    // The second time nothing is downloaded.
    std::fs::remove_dir_all(&mirror).unwrap();
    step(&scene, &mirror).await.succeeded();
    scene.end().await;
}

#[tokio::test]
async fn a_launcher_that_is_not_the_published_one_is_not_run() {
    let scene = Scene::new().await;
    let mirror = mirror(&scene);
    let wrong = format!("for file in '{}'/cml-*; do echo >>\"$file\"; done", mirror.display());
    assert!(std::process::Command::new("sh").args(["-c", &wrong]).status().unwrap().success());
    let out = step(&scene, &mirror).await;
    assert_ne!(out.code, Some(0));
    assert!(out.stdout.contains("is not what SHA256SUMS"), "{out:?}");
    assert!(scene.world.cloud.calls().is_empty());
    scene.end().await;
}

#[tokio::test]
async fn a_workflow_that_uses_the_action_runs_in_a_local_workflow_runner() {
    let test = "a_workflow_that_uses_the_action_runs_in_a_local_workflow_runner";
    let Some(act) = std::env::var_os("CML_TEST_ACT") else {
        return skip(test, "CML_TEST_ACT does not name an act (github.com/nektos/act)");
    };
    let scene = Scene::new().await;
    let mirror = mirror(&scene);
    let repository = scene.world.dir().join("repository");
    let inputs = INPUTS.map(|(name, value)| format!("          {name}: {value}\n")).concat();
    let workflow = format!(
        "on: push\njobs:\n  launch:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - id: it\n        uses: ./cml\n        with:\n          cml-url: file://{}\n{inputs}      \
         - run: echo \"launched <${{{{ steps.it.outputs.instance-id }}}}>\"\n",
        mirror.display()
    );
    std::fs::create_dir_all(repository.join(".github/workflows")).unwrap();
    std::fs::create_dir_all(repository.join("cml/tools")).unwrap();
    std::fs::write(repository.join(".github/workflows/ci.yml"), workflow).unwrap();
    for file in ["action.yml", "tools/action"] {
        std::fs::copy(Path::new(ROOT).join(file), repository.join("cml").join(file)).unwrap();
    }
    let git = "git init -q && git -c user.name=us -c user.email=us@example.com commit -q --allow-empty -m first";
    assert!(
        std::process::Command::new("sh")
            .args(["-c", git])
            .current_dir(&repository)
            .status()
            .unwrap()
            .success()
    );
    let mut command = Command::new(act);
    command.args(["push", "-P", "ubuntu-latest=-self-hosted"]).current_dir(&repository);
    command.env_clear().envs(scene.world.env());
    for (name, value) in scene.world.env() {
        command.args(["--env", &format!("{name}={value}")]);
    }
    let out: Outcome = command.stdin(Stdio::null()).output().await.expect("act starts").into();
    out.succeeded();
    assert!(out.stdout.contains(&format!("launched <{}>", scene.first().id)), "{out:?}");
    scene.end().await;
}
