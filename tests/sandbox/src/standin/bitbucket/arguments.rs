//! The arguments, as Java reads them: properties, some of them in a file.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

/// What all of the runner's properties begin with.
const PREFIX: &str = "bitbucket.pipelines.runner.";
/// What it does not start without.
const NEEDED: [&str; 6] = [
    "account.uuid",
    "uuid",
    "oauth.client.id",
    "oauth.client.secret",
    "directory.working",
    "runtime",
];

/// The runtime of a runner that is a container.
pub const DOCKER: &str = "linux-docker";
/// How the same are told to it.
/// Source: <https://support.atlassian.com/bitbucket-cloud/docs/use-your-docker-images-in-self-hosted-runners/>
const VARIABLES: [(&str, &str); 6] = [
    ("ACCOUNT_UUID", "account.uuid"),
    ("REPOSITORY_UUID", "repository.uuid"),
    ("RUNNER_UUID", "uuid"),
    ("OAUTH_CLIENT_ID", "oauth.client.id"),
    ("OAUTH_CLIENT_SECRET", "oauth.client.secret"),
    ("WORKING_DIRECTORY", "directory.working"),
];

/// The runner's properties, without what all of them begin with.
pub struct Arguments(BTreeMap<String, String>);

impl Arguments {
    /// Reads them.
    pub fn read(words: &[String]) -> Result<Self> {
        let mut all = Vec::new();
        for word in words {
            match word.strip_prefix('@') {
                Some(file) => all.extend(split(&std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?)),
                None => all.push(word.clone()),
            }
        }
        let properties = all
            .iter()
            .filter_map(|word| word.strip_prefix("-D")?.strip_prefix(PREFIX)?.split_once('='));
        let found = Self(properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        found.check()
    }

    /// Those of a runner that is a container.
    pub fn from_environment() -> Result<Self> {
        let found = VARIABLES.iter().filter_map(|(variable, name)| {
            let value = std::env::var(variable).ok()?;
            Some(((*name).to_owned(), value))
        });
        let runtime = ("runtime".to_owned(), DOCKER.to_owned());
        Self(found.chain([runtime]).collect()).check()
    }

    fn check(self) -> Result<Self> {
        if let Some(missing) = NEEDED.iter().find(|name| self.get(name).is_empty()) {
            bail!("{PREFIX}{missing} is required");
        }
        match self.get("runtime") {
            "linux-shell" | "linux-bash" | DOCKER => Ok(self),
            other => bail!("unknown runtime {other}"),
        }
    }

    /// A property; nothing where it is not set.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// The words of a file: white space separates them, quotes hold them together, a backslash in quotes takes the next character as it is.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), '\\') => word.get_or_insert_default().extend(rest.next()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
