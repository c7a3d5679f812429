#![allow(clippy::unwrap_used, clippy::expect_used)]

use common::error::Report;
use common::log::Level;
use common::secret::Secret;
use common::spec::{ForgeKind, LaunchJob};

use super::{Surroundings, Target, name, page, target};
use crate::options::GenericOptions;

fn around(remote: Option<&str>, vars: &[(&str, &str)]) -> Surroundings {
    Surroundings {
        vars: vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        remote: remote.map(str::to_owned),
    }
}

fn options(repo: Option<&str>, driver: Option<ForgeKind>) -> GenericOptions {
    GenericOptions {
        token: Some(Secret::new("t")),
        token_file: None,
        app_id: None,
        app_private_key: None,
        repo: repo.map(str::to_owned),
        driver,
        log: Level::Info,
    }
}

fn infer(options: &GenericOptions, around: &Surroundings) -> Result<Target, String> {
    target(options, None, around).map_err(|error| Report(&error).to_string())
}

#[test]
fn the_addresses_of_a_repository() {
    for (address, expected) in [
        ("https://github.com/octo/train", "https://github.com/octo/train"),
        ("https://github.com/octo/train.git/", "https://github.com/octo/train"),
        (
            "https://user:canary@github.com/octo/train.git?x=1#y",
            "https://github.com/octo/train",
        ),
        ("http://github.com/octo/train", "https://github.com/octo/train"),
        ("git@github.com:octo/train.git", "https://github.com/octo/train"),
        ("github.com:octo/train", "https://github.com/octo/train"),
        (
            "ssh://git@ghe.example.com:2222/octo/train.git",
            "https://ghe.example.com/octo/train",
        ),
        ("git://github.com/octo/train", "https://github.com/octo/train"),
        ("https://ghe.example.com:8443/octo", "https://ghe.example.com:8443/octo"),
        ("http://127.0.0.1:9000/octo/train", "http://127.0.0.1:9000/octo/train"),
        ("http://localhost:9000/octo/train", "http://localhost:9000/octo/train"),
        ("https://gitlab.com/group/sub/project.git", "https://gitlab.com/group/sub/project"),
        ("octo/train", "https://slug.example/octo/train"),
        ("/octo/train/", "https://slug.example/octo/train"),
        ("octo", "https://slug.example/octo"),
        ("my.group/project", "https://slug.example/my.group/project"),
        ("github.com/octo/train", "https://github.com/octo/train"),
    ] {
        assert_eq!(
            page(address, Some("https://slug.example/")).unwrap().as_str(),
            expected,
            "{address}"
        );
    }
    for address in ["", "ftp://github.com/octo/train", "https://", "file:///srv/train"] {
        let error = page(address, None).map(|url| url.to_string());
        assert!(error.is_err(), "{address}: {error:?}");
    }
    for path in ["/srv/git/train", "../train"] {
        assert!(page(path, None).is_err(), "a remote that is a path: {path}");
    }
}

/// `--repo`, `--driver`, the git remote, the environment; and what follows from them.
type Case<'a> = (
    Option<&'a str>,
    Option<ForgeKind>,
    Option<&'a str>,
    &'a [(&'a str, &'a str)],
    (ForgeKind, &'a str),
);

#[test]
fn the_repository_and_the_forge() {
    use ForgeKind::{Bitbucket, GitHub, GitLab};
    let actions = [("GITHUB_REPOSITORY", "octo/train")];
    let enterprise = [
        ("GITHUB_REPOSITORY", "octo/train"),
        ("GITHUB_SERVER_URL", "https://ghe.example.com"),
    ];
    let gitlab = [
        ("CI_PROJECT_URL", "https://git.example.com/g/p"),
        ("CI_SERVER_URL", "https://git.example.com"),
    ];
    let bitbucket = [
        ("BITBUCKET_GIT_HTTP_ORIGIN", "http://bitbucket.org/w/r"),
        ("BITBUCKET_REPO_UUID", "{1}"),
    ];
    let both = [actions[0], gitlab[0]];
    let cases: &[Case<'_>] = &[
        (
            Some("https://gitlab.com/a/b"),
            None,
            Some("git@github.com:c/d"),
            &actions,
            (GitLab, "https://gitlab.com/a/b"),
        ),
        (
            None,
            None,
            Some("git@github.com:c/d.git"),
            &gitlab,
            (GitHub, "https://github.com/c/d"),
        ),
        (None, None, None, &actions, (GitHub, "https://github.com/octo/train")),
        (None, None, None, &enterprise, (GitHub, "https://ghe.example.com/octo/train")),
        (None, None, None, &gitlab, (GitLab, "https://git.example.com/g/p")),
        (None, None, None, &bitbucket, (Bitbucket, "https://bitbucket.org/w/r")),
        (None, None, None, &both, (GitHub, "https://github.com/octo/train")),
        (None, Some(GitLab), None, &both, (GitLab, "https://git.example.com/g/p")),
        (Some("a/b"), None, None, &[], (GitHub, "https://github.com/a/b")),
        (Some("a/b"), None, None, &enterprise, (GitHub, "https://ghe.example.com/a/b")),
        (Some("a/b"), None, None, &gitlab, (GitLab, "https://git.example.com/a/b")),
        (Some("a/b"), Some(GitLab), None, &actions, (GitLab, "https://gitlab.com/a/b")),
        (
            Some("a/b"),
            None,
            None,
            &[("BITBUCKET_REPO_UUID", "{1}")],
            (Bitbucket, "https://bitbucket.org/a/b"),
        ),
        (
            Some("https://acme.ghe.com/a/b"),
            None,
            None,
            &gitlab,
            (GitHub, "https://acme.ghe.com/a/b"),
        ),
        (
            Some("http://127.0.0.1:9/octo/train"),
            None,
            None,
            &actions,
            (GitHub, "http://127.0.0.1:9/octo/train"),
        ),
        (
            Some("https://git.example.com/a/b/c"),
            Some(GitLab),
            None,
            &[],
            (GitLab, "https://git.example.com/a/b/c"),
        ),
    ];
    for (repo, driver, remote, vars, (forge, url)) in cases {
        let found = infer(&options(*repo, *driver), &around(*remote, vars)).unwrap();
        assert_eq!(
            (found.forge, found.repo.as_str()),
            (*forge, *url),
            "{repo:?} {driver:?} {remote:?} {vars:?}"
        );
    }
}

#[test]
fn what_cannot_be_inferred_is_said() {
    let error = infer(&options(None, None), &around(None, &[])).unwrap_err();
    assert!(error.contains("no repository is known"), "{error}");
    let error = infer(&options(Some("https://git.example.com/a/b"), None), &around(None, &[])).unwrap_err();
    assert!(error.contains("which forge serves git.example.com is not known"), "{error}");
    let error = infer(&options(Some("https://github.com/a/b/tree/main"), None), &around(None, &[])).unwrap_err();
    assert!(error.contains("neither a repository nor an organisation"), "{error}");
    let error = infer(&options(None, None), &around(Some("/srv/git/train"), &[])).unwrap_err();
    assert!(error.contains("the git remote `origin` does not name a repository"), "{error}");
}

#[test]
fn the_token_of_another_forge_is_never_taken() {
    let token = |given: Option<&str>, vars: &[(&str, &str)]| {
        let found = around(None, vars).token(given.map(Secret::new).as_ref(), ForgeKind::GitLab);
        found.map(|token| token.expose().to_owned())
    };
    let all = [
        ("REPO_TOKEN", "repo"),
        ("repo_token", "lower"),
        ("GITHUB_TOKEN", "hub"),
        ("GITLAB_TOKEN", "lab"),
    ];
    assert_eq!(token(Some("flag"), &all).unwrap(), "flag");
    assert_eq!(token(Some(""), &all).unwrap(), "repo");
    assert_eq!(token(None, &all[1..]).unwrap(), "lower");
    assert_eq!(token(None, &all[2..]).unwrap(), "lab");
    let error = token(None, &all[2..3]).unwrap_err();
    assert!(Report(&error).to_string().contains("GITLAB_TOKEN"), "{error}");
}

#[test]
fn the_job_that_launches_counts_only_in_its_own_repository() {
    let vars = [
        ("GITHUB_REPOSITORY", "Octo/Train"),
        ("GITHUB_SERVER_URL", "https://github.com"),
        ("GITHUB_RUN_ID", "17"),
        ("GITHUB_RUN_ATTEMPT", "2"),
        ("RUNNER_NAME", "GitHub Actions 3"),
    ];
    let job = |repo: &str, vars: &[(&str, &str)]| {
        infer(&options(Some(repo), Some(ForgeKind::GitHub)), &around(None, vars))
            .unwrap()
            .launch_job
    };
    let expected = LaunchJob {
        run: "17".into(),
        attempt: 2,
        runner: "GitHub Actions 3".into(),
    };
    assert_eq!(job("octo/train", &vars), Some(expected));
    assert_eq!(job("octo/other", &vars), None);
    assert_eq!(job("https://ghe.example.com/octo/train", &vars), None);
    assert_eq!(job("octo", &vars), None);
    assert_eq!(job("octo/train", &vars[..4]), None);
}

#[test]
fn the_step_that_launches_is_known_on_bitbucket() {
    let vars = [
        ("BITBUCKET_GIT_HTTP_ORIGIN", "http://bitbucket.org/octo/train"),
        ("BITBUCKET_PIPELINE_UUID", "{pipeline}"),
        ("BITBUCKET_STEP_UUID", "{step}"),
    ];
    let job = |repo: &str| infer(&options(Some(repo), None), &around(None, &vars)).unwrap().launch_job;
    let expected = LaunchJob {
        run: "{pipeline}".into(),
        attempt: 1,
        runner: "{step}".into(),
    };
    assert_eq!(job("https://bitbucket.org/octo/train"), Some(expected));
    assert_eq!(job("https://bitbucket.org/octo/other"), None);
}

#[test]
fn only_a_whole_gitlab_is_a_page_without_a_path() {
    for (address, is_one) in [
        ("https://gitlab.com", true),
        ("https://gitlab.com/.git", true),
        ("https://github.com", false),
        ("https://github.com/.git", false),
        ("https://bitbucket.org/", false),
    ] {
        let inferred = infer(&options(Some(address), None), &around(None, &[("REPO_TOKEN", "t")]));
        assert_eq!(inferred.is_ok(), is_one, "{address}");
    }
}

#[test]
fn names() {
    assert_eq!(name(Some("gpu-1_a.b")).unwrap(), "gpu-1_a.b");
    for bad in ["", "-x", ".x", "a b", "a/b", "é", &"x".repeat(65)] {
        assert!(name(Some(bad)).is_err(), "{bad}");
    }
    let made = name(None).unwrap();
    let id = made.strip_prefix("cml-").unwrap();
    assert!(
        id.len() == 10 && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()),
        "{made}"
    );
    assert_ne!(made, name(None).unwrap());
    assert_eq!(name(Some(&made)).unwrap(), made);
}

proptest::proptest! {
    /// What comes out can be shown and spoken to: no credentials, no query, in clear only on this host.
    #[test]
    fn any_address_is_made_safe(address in "(https?://|ssh://|git@)?[a-z0-9@:./%?#\\[\\]-]{0,30}") {
        if let Ok(page) = page(&address, Some("https://slug.example")) {
            let clear = page.scheme() == "http" && !matches!(page.host_str(), Some(host) if host == "localhost" || host.starts_with("127.") || host == "[::1]");
            proptest::prop_assert!(page.username().is_empty() && page.password().is_none() && page.query().is_none() && !clear, "{page}");
        }
    }
}
