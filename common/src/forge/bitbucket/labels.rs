//! The labels of a runner: Bitbucket's own, and what it allows others to be.

use anyhow::Result;

use crate::error::{Class, Failure};

/// How many labels a runner may have besides Bitbucket's own.
/// Source: <https://support.atlassian.com/bitbucket-cloud/docs/runners/>
const MOST: usize = 10;
/// What Bitbucket's own web page adds: that it is no runner of Atlassian's, and what its steps run in.
const OWN: [&str; 2] = ["self.hosted", "linux.shell"];

/// All labels of a runner with these of the user's; an illegal one is refused by name.
pub fn all(given: &[String]) -> Result<Vec<String>> {
    let mut labels: Vec<String> = OWN.map(str::to_owned).into();
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
        if !labels.iter().any(|there| there == label) {
            labels.push(label.into());
        }
    }
    let own = labels.len() - OWN.len();
    if own > MOST {
        return Err(Failure::new(
            Class::Usage,
            format!("{own} labels are more than the {MOST} that a runner on Bitbucket may have"),
        )
        .hint("give fewer `--labels`")
        .into());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::all;

    fn with(labels: &str) -> anyhow::Result<Vec<String>> {
        all(&labels.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn bitbuckets_own_are_added_once() {
        assert_eq!(with("cml, gpu.a10,cml,").unwrap(), ["self.hosted", "linux.shell", "cml", "gpu.a10"]);
        assert_eq!(with("self.hosted,linux.shell").unwrap(), ["self.hosted", "linux.shell"]);
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
