//! What the runner is told: a file of arguments, which a Java program reads itself (`java @FILE`). Its own start.sh puts the secret among the
//! arguments of the process, where every user of the machine sees it; in the environment every step would inherit it.
//!
//! A step is the same user as the runner and can read the file. What it finds there takes steps as this runner, and nothing else.

use common::forge::bitbucket::RunnerConfig;

use crate::runner::program::Program;

/// The file, in the runner's directory.
pub const NAME: &str = ".cml-arguments";
/// Where steps work, in the runner's directory. It is emptied after each.
const WORK: &str = "temp";

/// Its text: one argument a line. The properties are those that bin/start.sh of the archive sets.
/// Syntax: <https://docs.oracle.com/en/java/javase/17/docs/specs/man/java.html#java-command-line-argument-files>
pub fn text(program: &Program, config: &RunnerConfig) -> String {
    let work = program.dir.join(WORK).display().to_string();
    let properties = [
        ("account.uuid", config.account_uuid.as_str()),
        ("repository.uuid", config.repository_uuid.as_deref().unwrap_or_default()),
        ("uuid", &config.runner_uuid),
        ("oauth.client.id", &config.oauth_client_id),
        ("oauth.client.secret", config.oauth_client_secret.expose()),
        ("directory.working", &work),
        ("environment", "PRODUCTION"),
        ("runtime", "linux-shell"),
        ("docker.uri", ""),
        ("scheduled.state.update.initial.delay.seconds", "0"),
        ("scheduled.state.update.period.seconds", "30"),
        ("cleanup.previous.folders", "false"),
    ];
    let own = properties.map(|(name, value)| format!("-Dbitbucket.pipelines.runner.{name}={value}"));
    let rest = ["-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8"].map(str::to_owned);
    let lines = own.iter().chain(&rest).map(|argument| quoted(argument) + "\n");
    lines.collect()
}

/// One argument, whatever is in it.
fn quoted(argument: &str) -> String {
    format!("\"{}\"", argument.replace('\\', "\\\\").replace('"', "\\\""))
}
