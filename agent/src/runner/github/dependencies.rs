//! The native libraries that the runner needs, on machines that are ours.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::supervise::{self, CommandLine};

/// The runner's own script for it.
const SCRIPT: &str = "bin/installdependencies.sh";
/// The package manager may have to wait for the one that the machine starts at boot.
const BUDGET: Duration = Duration::from_mins(5);
/// Where libraries are.
const LIBRARIES: [&str; 6] = [
    "/usr/lib64",
    "/usr/lib",
    "/lib64",
    "/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// Installs them as root unless ICU, without which .NET does not start, is there. It only warns: whether they are missing is seen when the
/// runner is configured.
pub async fn install(dir: &Path) {
    let script = dir.join(SCRIPT);
    if !nix::unistd::Uid::effective().is_root() || has_icu() || !script.is_file() {
        return;
    }
    tracing::info!("installing the libraries that the runner needs");
    let env = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
    let command = CommandLine {
        program: "/bin/bash".into(),
        args: vec![script.display().to_string()],
        dir: dir.into(),
        env: [
            "PATH",
            "HOME",
            "http_proxy",
            "https_proxy",
            "no_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
        ]
        .into_iter()
        .filter_map(env)
        .chain([("DEBIAN_FRONTEND".into(), "noninteractive".into())])
        .collect(),
        ..CommandLine::default()
    };
    let why = match supervise::run(&command, BUDGET, |line| tracing::info!("{SCRIPT}: {line}")).await {
        Ok(Some(status)) if status.success() => return,
        Ok(Some(status)) => status.to_string(),
        Ok(None) => "it took too long".into(),
        Err(error) => format!("{error:#}"),
    };
    tracing::warn!(
        "the libraries that the runner needs could not be installed ({why}); install libicu in the image or in --cloud-startup-script"
    );
}

fn has_icu() -> bool {
    let names = |dir: &&str| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    LIBRARIES
        .iter()
        .flat_map(names)
        .any(|name| name.to_string_lossy().starts_with("libicuuc.so"))
}
