//! What jobs inherit: a runner hands its whole environment to every job, so that it is an allow-list.

use std::ffi::OsString;

use common::network;

use crate::user::User;

/// What a job finds programs with if the agent itself was started without.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables besides those of the network that a machine's owner sets for the jobs on it. No prefix like `RUNNER_`, `GITHUB_` or `ACTIONS_`: tokens have such names.
const ALLOWED: [&str; 28] = [
    "PATH",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "GITHUB_ACTIONS_RUNNER_TLS_NO_VERIFY",
    // What config.sh itself keeps for jobs (env.sh).
    "JAVA_HOME",
    "ANT_HOME",
    "M2_HOME",
    "ANDROID_HOME",
    "ANDROID_SDK_ROOT",
    "GRADLE_HOME",
    "NVM_BIN",
    "NVM_PATH",
    "LD_LIBRARY_PATH",
    "PERL5LIB",
    // Containers and the tool cache.
    "DOCKER_HOST",
    "XDG_RUNTIME_DIR",
    "RUNNER_TOOL_CACHE",
    "AGENT_TOOLSDIRECTORY",
    "RUNNER_WAIT_FOR_DOCKER_IN_SECONDS",
    "RUNNER_UPDATE_CA_CERTS",
    "ACTIONS_RUNNER_CONTAINER_HOOKS",
    "ACTIONS_RUNNER_REQUIRE_JOB_CONTAINER",
    // .NET itself.
    "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT",
    "DOTNET_GCHeapHardLimit",
    "DOTNET_ROOT",
    "PIPELINE_JOB_OOMSCOREADJ",
];

/// Their names begin like this: locales and accelerators.
const ALLOWED_PREFIXES: [&str; 3] = ["LC_", "NVIDIA_", "CUDA_"];

/// Who the agent is; a job user is another one.
const IDENTITY: [&str; 4] = ["HOME", "USER", "LOGNAME", "SHELL"];

/// Builds it from the agent's own environment, for the job user or, without one, for who we are.
pub fn build(own: impl Iterator<Item = (OsString, OsString)>, user: Option<&User>) -> Vec<(String, String)> {
    let allowed = |name: &str| {
        network::VARIABLES.contains(&name)
            || ALLOWED.contains(&name)
            || ALLOWED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || (user.is_none() && IDENTITY.contains(&name))
    };
    let mut env: Vec<(String, String)> = own
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| allowed(name))
        .collect();
    let who = user.cloned().or_else(User::current);
    let mut add = |name: &str, value: String| {
        if !env.iter().any(|(there, _)| there == name) {
            env.push((name.into(), value));
        }
    };
    add("PATH", PATH.into());
    if let Some(who) = who {
        // .NET does not start without a home.
        add("HOME", who.home.display().to_string());
        add("USER", who.name.clone());
        add("LOGNAME", who.name.clone());
    }
    network::spare_loopback(&mut env);
    env
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::build;
    use crate::user::User;

    fn built(own: &[(&str, &str)], user: Option<&User>) -> Vec<(String, String)> {
        build(own.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))), user)
    }

    #[test]
    fn only_what_is_allowed_reaches_jobs() {
        let secrets = [
            "CML_RUNNER_TOKEN",
            "CML_CONSOLE",
            "REPO_TOKEN",
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "RUNNER_CFG_PAT",
            "ACTIONS_RUNNER_INPUT_TOKEN",
            "ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT",
            "NOTIFY_SOCKET",
            "LD_PRELOAD",
            "BASH_ENV",
        ];
        let mut own: Vec<(&str, &str)> = secrets.map(|name| (name, "canary")).into();
        own.extend([
            ("LC_ALL", "C"),
            ("https_proxy", "http://proxy"),
            ("CUDA_HOME", "/cuda"),
            ("HOME", "/root"),
            ("USER", "root"),
            ("SHELL", "/bin/zsh"),
        ]);
        let user = User {
            name: "cml".into(),
            uid: 1001,
            gid: 1001,
            home: "/home/cml".into(),
        };
        let mut env: Vec<String> = built(&own, Some(&user))
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        env.sort();
        assert_eq!(
            env,
            [
                "CUDA_HOME=/cuda",
                "HOME=/home/cml",
                "LC_ALL=C",
                "LOGNAME=cml",
                "NO_PROXY=localhost,127.0.0.1,::1",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "USER=cml",
                "https_proxy=http://proxy",
                "no_proxy=localhost,127.0.0.1,::1",
            ]
        );
    }

    #[test]
    fn without_a_job_user_it_is_who_we_are() {
        let env = built(&[("HOME", "/home/me"), ("PATH", "/bin")], None);
        let get = |name: &str| env.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str());
        assert_eq!((get("HOME"), get("PATH")), (Some("/home/me"), Some("/bin")));
    }
}
