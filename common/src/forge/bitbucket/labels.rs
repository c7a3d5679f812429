//! The labels of a runner: Bitbucket's own, and what it allows others to be.

use anyhow::Result;

use crate::error::{Class, Failure};

/// How many labels a runner may have besides Bitbucket's own.
/// Source: <https://support.atlassian.com/bitbucket-cloud/docs/runners/>
const MOST: usize = 10;
/// What Bitbucket's own web page adds: that it is no runner of Atlassian's, and what its steps run in.
const HOSTED: &str = "self.hosted";
/// Source: <https://support.atlassian.com/bitbucket-cloud/docs/configure-your-runner-in-bitbucket-pipelines-yml/>
const CONTAINERS: &str = "linux";
const SHELL: &str = "linux.shell";

/// All labels of a runner with these of the user's; an illegal one is refused by name.
pub fn all(given: &[String], containers: bool) -> Result<Vec<String>> {
    let (place, elsewhere) = if containers { (CONTAINERS, SHELL) } else { (SHELL, CONTAINERS) };
    let own = [HOSTED, place];
    let mut labels: Vec<String> = own.map(str::to_owned).into();
    for label in given.iter().map(|label| label.trim()).filter(|label| !label.is_empty()) {
        let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
        if !label.chars().all(is_legal) {
            return Err(Failure::new(
                Class::Usage,
                format!("`{label}` cannot be a label on Bitbucket: lower-case letters, digits and dots only"),
            )
            .hint("change `--labels`, and `runs-on` in bitbucket-pipelines.yml")
            .into());
        }
        if label == elsewhere {
            let (inside, option) = if containers {
                ("containers", "shell")
            } else {
                ("a shell", "docker")
            };
            return Err(Failure::new(
                Class::Usage,
                format!("`{label}` cannot be a label of this runner: its steps run in {inside}"),
            )
            .hint(format!("leave it out of `--labels`, or give `--executor={option}`"))
            .into());
        }
        if !labels.iter().any(|there| there == label) {
            labels.push(label.into());
        }
    }
    let more = labels.len() - own.len();
    if more > MOST {
        return Err(Failure::new(
            Class::Usage,
            format!("{more} labels are more than the {MOST} that a runner on Bitbucket may have"),
        )
        .hint("give fewer `--labels`")
        .into());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::all;
    use crate::error::Report;

    fn of(labels: &str, containers: bool) -> anyhow::Result<Vec<String>> {
        all(&labels.split(',').map(str::to_owned).collect::<Vec<_>>(), containers)
    }

    fn with(labels: &str) -> anyhow::Result<Vec<String>> {
        of(labels, false)
    }

    #[test]
    fn bitbuckets_own_are_added_once() {
        assert_eq!(with("cml, gpu.a10,cml,").unwrap(), ["self.hosted", "linux.shell", "cml", "gpu.a10"]);
        assert_eq!(with("self.hosted,linux.shell").unwrap(), ["self.hosted", "linux.shell"]);
    }

    #[test]
    fn they_say_where_steps_run_and_nothing_else_may() {
        assert_eq!(of("cml,linux", true).unwrap(), ["self.hosted", "linux", "cml"]);
        for (labels, containers, option) in [("cml,linux", false, "--executor=docker"), ("linux.shell", true, "--executor=shell")] {
            let error = of(labels, containers).unwrap_err();
            assert!(Report(&error).hint().unwrap().contains(option), "{error}");
        }
    }

    #[test]
    fn an_illegal_one_is_named() {
        for label in ["GPU", "gpu_a10", "gpu-a10", "gr\u{f6}\u{df}e", "a b"] {
            let error = with(&format!("cml,{label}")).unwrap_err().to_string();
            assert!(error.contains(&format!("`{label}`")), "{error}");
        }
        assert!(with("a,b,c,d,e,f,g,h,i,j").is_ok());
        assert!(with("a,b,c,d,e,f,g,h,i,j,k").is_err());
    }
}
