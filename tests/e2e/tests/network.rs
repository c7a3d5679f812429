//! Behind a proxy, and with authorities that only a private network trusts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Stdio;

use e2e::{Outcome, Scene, startup_script};
use sandbox::proxy::Proxy;

e2e::everywhere! {
    every_client_of_the_launcher_goes_through_the_proxy_of_its_environment,
}

/// The variables that name a proxy, spelled in one of both ways.
fn proxied(proxy: &Proxy, is_upper: bool) -> Vec<(String, String)> {
    let names = ["http_proxy", "https_proxy"].map(|name| if is_upper { name.to_uppercase() } else { name.to_owned() });
    names.map(|name| (name, proxy.url())).into()
}

/// Runs a launcher with more variables.
async fn run(scene: &Scene, args: &[&str], env: &[(String, String)]) -> Outcome {
    let mut command = scene.world.launcher(args);
    command.envs(env.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Scene::finish(command.kill_on_drop(true).spawn().unwrap()).await
}

/// Whom the launcher speaks to: its forge, and whatever its cloud consists of.
fn servers(scene: &Scene) -> Vec<String> {
    let env = scene.world.env();
    let of_cloud = [
        "AWS_ENDPOINT_URL_EC2",
        "AZURE_RESOURCE_MANAGER_ENDPOINT",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE",
    ];
    let mut found: Vec<String> = env
        .iter()
        .filter(|(name, _)| of_cloud.contains(&name.as_str()))
        .map(|(_, url)| url.split('/').nth(2).unwrap().to_owned())
        .collect();
    if let Some((_, text)) = env.iter().find(|(name, _)| name == "KUBERNETES_CONFIGURATION") {
        let (_, rest) = text.split_once("http://").unwrap();
        found.push(rest.split(['"', '/', '\'']).next().unwrap().to_owned());
    }
    found.push(scene.world.forge.address().to_string());
    found
}

async fn every_client_of_the_launcher_goes_through_the_proxy_of_its_environment(scene: Scene) {
    // The machine's network is another one: what is not said by an option is not passed on.
    let job = scene.job("test -z \"$http_proxy$https_proxy$HTTP_PROXY$HTTPS_PROXY\"");
    let line = scene.command_line(&[]);
    let launch: Vec<&str> = line.split(' ').skip(1).filter(|word| !word.is_empty()).collect();
    let proxy = Proxy::start(Some("me:canary"), &[]).await.unwrap();
    let launched = run(&scene, &launch, &proxied(&proxy, true)).await;
    launched.succeeded();
    assert!(!launched.stderr.contains("canary"), "{launched:?}");
    let seen = proxy.seen();
    for server in servers(&scene) {
        assert!(seen.iter().any(|line| line.contains(&server)), "{server} {seen:#?}");
    }
    assert!(!seen.iter().any(|line| line.starts_with("refused")), "{seen:#?}");
    assert_eq!(scene.conclusion(job).await, "success");

    let cloud = scene.cloud();
    let list = ["runner", "list", &cloud];
    let (lower, none) = (Proxy::start(None, &[]).await.unwrap(), Proxy::start(None, &[]).await.unwrap());
    run(&scene, &list, &proxied(&lower, false)).await.succeeded();
    assert!(!lower.seen().is_empty());
    for name in ["NO_PROXY", "no_proxy"] {
        let mut env = proxied(&none, false);
        env.push((name.to_owned(), "example.com,127.0.0.1".to_owned()));
        run(&scene, &list, &env).await.succeeded();
        assert!(none.seen().is_empty(), "{name} {:#?}", none.seen());
    }
    scene.end().await;
}

/// A network that nothing leaves but through a proxy, which opens what is encrypted.
struct Private {
    proxy: Proxy,
    /// The certificate of its authority.
    file: String,
}

/// What only the proxy can find.
const DOWNLOADS: &str = "downloads.example.com";
const FORGE: &str = "git.example.com";

impl Private {
    async fn of(scene: &Scene) -> Self {
        let env = scene.world.env();
        let (_, agent) = env.iter().find(|(name, _)| name == "CML_RUNNER_AGENT_URL").unwrap();
        let hosts = [
            (DOWNLOADS, agent.split('/').nth(2).unwrap().parse().unwrap()),
            (FORGE, scene.world.forge.address()),
        ];
        let proxy = Proxy::start(Some("me:canary"), &hosts).await.unwrap();
        let file = scene.world.dir().join("corporate.pem");
        std::fs::write(&file, proxy.certificate()).unwrap();
        Self {
            proxy,
            file: file.display().to_string(),
        }
    }

    /// The options of a machine in it.
    fn options(&self) -> [String; 3] {
        [
            format!("--proxy={}", self.proxy.url()),
            "--no-proxy=intranet.example.com".to_owned(),
            format!("--ca-certificates={}", self.file),
        ]
    }

    fn times(&self, request: &str) -> usize {
        self.proxy.seen().iter().filter(|line| *line == request).count()
    }
}

/// Gets a file that only the proxy can find, whose certificate only the given authority vouches for.
const GET: &str = "curl -fsS https://downloads.example.com/cml-agent -o /dev/null";

/// What a job in it finds: each spelling of the same, its own machine and the cloud's services without the proxy, everybody who is trusted.
const JOB: &str = "test -n \"$http_proxy\" && for other in \"$https_proxy\" \"$HTTP_PROXY\" \"$HTTPS_PROXY\"; do test \"$other\" = \"$http_proxy\" || exit 1; done
    case $no_proxy in intranet.example.com,169.254.169.254,*,localhost,127.0.0.1,::1) ;; *) exit 2 ;; esac
    test \"$NO_PROXY\" = \"$no_proxy\" && test \"$(grep -c BEGIN \"$SSL_CERT_FILE\")\" -ge 1 || exit 3
    for other in \"$CURL_CA_BUNDLE\" \"$GIT_SSL_CAINFO\" \"$REQUESTS_CA_BUNDLE\" \"$AWS_CA_BUNDLE\" \"$NODE_EXTRA_CA_CERTS\"; do test \"$other\" = \"$SSL_CERT_FILE\" || exit 4; done
    ";

#[tokio::test]
async fn a_whole_life_behind_a_proxy_that_opens_what_is_encrypted() {
    let scene = Scene::new().await;
    let private = Private::of(&scene).await;
    let job = scene.job(&format!("{JOB}{GET}"));
    let [proxy, direct, certificates] = private.options();
    let script = startup_script(&format!("#!/bin/sh\ntest -n \"$HTTPS_PROXY\" && {GET}"));
    let agent = format!("--agent-url=https://{DOWNLOADS}/cml-agent");
    let outcome = scene.launch(&[&proxy, &direct, &certificates, &agent, &script]).await;
    outcome.succeeded();
    assert_eq!(scene.conclusion(job).await, "success", "{}", scene.timeline());
    // The bootstrap, the start-up script, and the job.
    assert_eq!(
        private.times(&format!("GET https://{DOWNLOADS}/cml-agent")),
        3,
        "{:#?}",
        private.proxy.seen()
    );
    let seen = private.proxy.seen();
    for part in [
        "/actions/runners/downloads",
        "/_assets/",
        "/registration-token",
        "/actions/runners/",
    ] {
        assert!(seen.iter().any(|line| line.contains(part)), "{part} {seen:#?}");
    }
    assert!(
        !seen.iter().any(|line| line.starts_with("refused") || line.contains("/latest/")),
        "{seen:#?}"
    );
    assert!(!format!("{outcome:?}{}", scene.timeline()).contains("canary"));
    scene.end().await;
}

#[tokio::test]
async fn a_host_of_ones_own_in_such_a_network() {
    let scene = Scene::new().await;
    let private = Private::of(&scene).await;
    let job = scene.job(&format!("{JOB}{GET}"));
    let options = private.options();
    let args: Vec<&str> = ["runner", "--labels=gpu", "--name=here", "--idle-timeout=1s"]
        .into_iter()
        .chain(options.iter().map(String::as_str))
        .collect();
    let temporary = scene.world.dir().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let outcome = run(&scene, &args, &[("TMPDIR".into(), temporary.display().to_string())]).await;
    outcome.succeeded();
    assert_eq!(scene.conclusion(job).await, "success", "{outcome:?}");
    assert_eq!(private.times(&format!("GET https://{DOWNLOADS}/cml-agent")), 1);
    assert!(private.proxy.seen().iter().any(|line| line.contains("/registration-token")));
    assert!(!format!("{outcome:?}").contains("canary"), "{outcome:?}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "a bundle was left");
    scene.end().await;
}

#[tokio::test]
async fn a_forge_whose_authority_is_private_is_spoken_to_once_that_is_trusted() {
    let scene = Scene::new().await;
    let private = Private::of(&scene).await;
    let export = scene.world.dir().join("exported").display().to_string();
    let export = format!("--export={export}");
    let repo = format!("--repo=https://{FORGE}/octo/train");
    let check = ["runner", &export, &repo, "--driver=github"];
    let proxied = proxied(&private.proxy, false);
    let with = |name: &str, value: &str| [&proxied[..], &[(name.to_owned(), value.to_owned())]].concat();

    let refused = run(&scene, &check, &proxied).await;
    refused.failed_with(1, &["is of an authority that is not trusted here", "--ca-certificates=FILE"]);
    let given = format!("--ca-certificates={}", private.file);
    run(&scene, &[&check[..], &[&given]].concat(), &proxied).await.succeeded();
    run(&scene, &check, &with("CML_RUNNER_CA_CERTIFICATES", &private.file))
        .await
        .succeeded();
    run(&scene, &check, &with("SSL_CERT_FILE", &private.file)).await.succeeded();
    assert!(
        private
            .proxy
            .seen()
            .iter()
            .any(|line| line.contains(&format!("https://{FORGE}/api/v3/")))
    );

    let no_file = scene.world.dir().join("none.pem").display().to_string();
    std::fs::write(scene.world.dir().join("empty.pem"), "canary").unwrap();
    for (file, what) in [(no_file.as_str(), "cannot be read"), ("empty.pem", "holds no certificate")] {
        let outcome = run(&scene, &[&check[..], &[&format!("--ca-certificates={file}")]].concat(), &proxied).await;
        outcome.failed_with(2, &["--ca-certificates", what, "PEM"]);
        assert!(!outcome.stderr.contains("canary"), "{outcome:?}");
    }
    scene.end().await;
}

#[tokio::test]
async fn a_machine_that_is_not_told_whom_to_trust_says_which_option_does() {
    let scene = Scene::new().await;
    let private = Private::of(&scene).await;
    let [proxy, ..] = private.options();
    let runner = format!("--runner-url=https://{DOWNLOADS}/runner.tar.gz");
    let outcome = scene.launch(&[&proxy, &runner]).await;
    outcome.failed_with(
        5,
        &[
            "`install-runner` failed",
            "is of an authority that is not trusted here",
            "--ca-certificates=FILE",
        ],
    );
    scene.end().await;
}

#[tokio::test]
async fn what_would_be_done_shows_no_password_of_a_proxy() {
    let scene = Scene::new().await;
    let cloud = scene.cloud();
    for more in [&[][..], &[cloud.as_str()]] {
        let args = [
            &["runner", "--dry-run", "--proxy=http://me:canary@proxy.example.com:3128"][..],
            more,
        ]
        .concat();
        let plan = run(&scene, &args, &[]).await;
        plan.succeeded();
        assert!(plan.stdout.contains("http://****@proxy.example.com:3128"), "{plan:?}");
        assert!(!format!("{plan:?}").contains("canary"), "{plan:?}");
    }
    let args = ["runner", "--dry-run", "--proxy=proxy.example.com/canary"];
    let refused = run(&scene, &args, &[]).await;
    refused.failed_with(2, &["invalid value for `--proxy`", "http://HOST:PORT"]);
    assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
    let args = ["runner", "--dry-run", "--no-proxy=example.com"];
    run(&scene, &args, &[]).await.failed_with(2, &["--proxy"]);
    scene.end().await;
}

#[tokio::test]
async fn a_proxy_that_knows_nobody_of_this_password_is_named_at_once() {
    let scene = Scene::new().await;
    let private = Private::of(&scene).await;
    let wrong = private.proxy.url().replace("canary", "wrong-canary");
    let env = ["http_proxy", "https_proxy"].map(|name| (name.to_owned(), wrong.clone()));
    let export = format!("--export={}", scene.world.dir().join("exported").display());
    let encrypted = format!("--repo=https://{FORGE}/octo/train");
    for more in [&[][..], &[encrypted.as_str(), "--driver=github"]] {
        let outcome = run(&scene, &[&["runner", &export][..], more].concat(), &env).await;
        outcome.failed_with(3, &["the proxy refuses", "USER:PASSWORD@HOST:PORT"]);
        assert!(!outcome.stderr.contains("canary"), "{outcome:?}");
    }
    assert_eq!(private.proxy.seen().len(), 2, "{:#?}", private.proxy.seen());
    scene.end().await;
}
