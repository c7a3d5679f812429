//! Which cluster, and how patiently it is asked.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result};
use backon::{ExponentialBuilder, Retryable as _};
use common::error::{Class, Failure};
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::time::Instant;

use super::refusal;

/// The contents of a kubeconfig file: the old tool's only way.
const CONFIGURATION: &str = "KUBERNETES_CONFIGURATION";

/// A connection that is not made in this time will not be made.
const CONNECT: Duration = Duration::from_secs(10);
/// An API server that says nothing for this long has gone.
const READ: Duration = Duration::from_secs(30);

/// What kube reads in the environment, in its order.
const HTTPS_PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The first and the longest pause between two tries, and all that they may take together.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
const BUDGET: Duration = Duration::from_mins(1);

/// A cluster and a namespace of it: those of `KUBERNETES_CONFIGURATION`, else as kubectl finds them (`KUBECONFIG`, `~/.kube/config`), else those of
/// the pod that this runs in. Nothing is asked of the cluster yet, but the program of the user's own that a kubeconfig may name is run.
pub async fn connect() -> Result<Client> {
    let given = std::env::var(CONFIGURATION).ok().filter(|text| !text.trim().is_empty());
    let mut config = match given {
        Some(text) => read(&text).await?,
        None => Config::infer().await.map_err(|error| {
            anyhow::Error::new(error).context(
                Failure::new(Class::Access, "no cluster is configured").hint(format!(
                    "put the contents of a kubeconfig file into {CONFIGURATION}, or name one by KUBECONFIG; `kubectl config view --raw --minify --flatten` prints it"
                )),
            )
        })?,
    };
    direct(&mut config, |name| std::env::var(name).ok());
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    config.reset_reader_on_write = true;
    // Its own way asks for minutes, and does not know a connection that broke.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| refusal::of("take the kubeconfig's credentials", error))
}

/// Goes without the environment's proxy where `NO_PROXY` says so: kube compares that with the proxy's own name. A kubeconfig's `proxy-url` stays.
fn direct(config: &mut Config, var: impl Fn(&str) -> Option<String>) {
    let value = |names: [&str; 2]| names.into_iter().find_map(&var).unwrap_or_default();
    let proxy = value(HTTPS_PROXY);
    let is_the_environments = config.proxy_url.as_ref().is_some_and(|taken| *taken == *proxy);
    let matcher = Matcher::builder().all(proxy).no(value(NO_PROXY)).build();
    if is_the_environments && matcher.intercept(&config.cluster_url).is_none() {
        config.proxy_url = None;
    }
}

/// The text may hold a token or a key: no error shows any of it.
async fn read(text: &str) -> Result<Config> {
    let refuse = || {
        Failure::new(Class::Usage, format!("{CONFIGURATION} is no kubeconfig that can be used")).hint(
            "it takes the file's contents, not its name, with certificates and keys in it: what `kubectl config view --raw --minify --flatten` prints",
        )
    };
    let file = Kubeconfig::from_yaml(text).map_err(|_| refuse())?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(refuse)
}

/// Asks until there is an answer worth having: what broke, and what the server had no time for, is asked for again. So everything that is asked for in
/// this way must be harmless to ask for twice.
pub async fn patiently<T, F>(call: &str, ask: impl FnMut() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let end = Instant::now() + BUDGET;
    let backoff = ExponentialBuilder::new()
        .with_min_delay(PAUSE.0)
        .with_max_delay(PAUSE.1)
        .without_max_times()
        .with_jitter();
    ask.retry(backoff)
        .sleep(tokio::time::sleep)
        .when(refusal::passes)
        .adjust(|error, pause| {
            let pause = pause?.max(refusal::asked_to_wait(error));
            (pause < end.saturating_duration_since(Instant::now())).then_some(pause)
        })
        .notify(|error, pause| tracing::info!("trying again in {:.1} s: {call}: {error}", pause.as_secs_f64()))
        .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use common::error::{Class, Report};

    use super::{direct, read};

    #[tokio::test]
    async fn a_configuration_that_cannot_be_used_is_named_and_not_shown() {
        let broken = "apiVersion: v1\nusers:\n- name: me\n  user: {token: canary\n";
        let empty = "apiVersion: v1\nkind: Config\nusers: [{name: me, user: {token: canary}}]\n";
        for text in ["/home/me/.kube/config", broken, empty] {
            let error = read(text).await.unwrap_err();
            assert_eq!(Report(&error).class(), Class::Usage, "{text}");
            assert!(format!("{error:#}").contains("KUBERNETES_CONFIGURATION"), "{error:#}");
            assert!(!format!("{error:#}").contains("canary"), "{error:#}");
        }
    }

    #[tokio::test]
    async fn no_proxy_means_the_cluster_and_not_the_proxy() {
        let text =
            "{apiVersion: v1, kind: Config, current-context: it, clusters: [{name: it, cluster: {server: 'https://k8s.example.com'}}],
            users: [{name: me, user: {token: canary}}], contexts: [{name: it, context: {cluster: it, user: me}}]}";
        let environments = "http://me:canary@proxy.corp:3128";
        for (taken, no_proxy, stays) in [
            (environments, ".example.com", false),
            (environments, "*", false),
            (environments, "proxy.corp", true),
            (environments, "", true),
            ("http://the-kubeconfigs:1", ".example.com", true),
        ] {
            let mut config = read(text).await.unwrap();
            config.proxy_url = Some(taken.parse().unwrap());
            direct(&mut config, |name| match name {
                "https_proxy" => Some(environments.to_owned()),
                "NO_PROXY" => Some(no_proxy.to_owned()),
                _ => None,
            });
            assert_eq!(config.proxy_url.is_some(), stays, "{taken} {no_proxy}");
        }
    }

    #[tokio::test]
    async fn the_namespace_is_that_of_the_context() {
        let text = "{apiVersion: v1, kind: Config, current-context: it, clusters: [{name: it, cluster: {server: 'http://127.0.0.1:1'}}],
            users: [{name: me, user: {token: canary}}], contexts: [{name: it, context: {cluster: it, user: me, namespace: ci}}]}";
        assert_eq!(read(text).await.unwrap().default_namespace, "ci");
    }
}
