//! What the moments and the programs are called on each forge.

use sandbox::forge::Kind;

/// Of one forge.
pub struct Names {
    /// The program that listens for jobs.
    pub runner: &'static str,
    /// The request that registers a runner.
    pub registers: &'static str,
    /// The first request of a re-run: nothing has been asked for yet.
    pub reruns: &'static str,
    /// All requests that the token goes with.
    pub api: &'static [&'static str],
    /// The requests of the runner itself.
    pub protocol: &'static str,
}

/// Of this forge.
pub const fn of(forge: Kind) -> Names {
    match forge {
        Kind::GitHub => Names {
            runner: "Runner.Listener",
            registers: "POST /_runner/register",
            reruns: "GET /repos/*/actions/runs/*",
            api: &["GET /repos/*", "POST /repos/*", "DELETE /repos/*"],
            protocol: "POST /_runner/*",
        },
        Kind::GitLab => Names {
            runner: "gitlab-runner",
            registers: "POST /user/runners",
            reruns: "GET /projects/*/jobs/*",
            api: &[
                "GET /projects/*",
                "POST /projects/*",
                "POST /user/runners",
                "GET /runners/*",
                "PUT /runners/*",
                "DELETE /runners/*",
                "GET /version",
            ],
            protocol: "POST /jobs/request",
        },
        Kind::Bitbucket => Names {
            runner: "runner.jar",
            registers: "POST /repositories/*/pipelines-config/runners",
            reruns: "GET /repositories/*/pipelines/*",
            api: &[
                "GET /repositories/*",
                "POST /repositories/*",
                "PUT /repositories/*",
                "DELETE /repositories/*",
            ],
            protocol: "PUT /internal/runners/*",
        },
    }
}
