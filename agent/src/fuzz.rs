//! Fuzz targets: each gives any bytes to code that reads what others wrote, and panics where that code breaks a promise. `fuzz/` runs them for long, the
//! tests for a moment.

pub use crate::archive::fuzz::{archive, archive_entries};
pub use crate::host::fuzz::{aws_notice, azure_events, gcp_value, metadata_request};
pub use crate::runner::fuzz::{bitbucket_line, github_line, gitlab_line, hook_word};

#[cfg(test)]
mod tests {
    use super::{
        archive, archive_entries, aws_notice, azure_events, bitbucket_line, gcp_value, github_line, gitlab_line, hook_word,
        metadata_request,
    };

    #[test]
    fn no_target_finds_anything_in_a_moment() {
        let targets: [fuzzed::Target; 10] = [
            ("archive", archive),
            ("archive_entries", archive_entries),
            ("aws_notice", aws_notice),
            ("azure_events", azure_events),
            ("bitbucket_line", bitbucket_line),
            ("gcp_value", gcp_value),
            ("github_line", github_line),
            ("gitlab_line", gitlab_line),
            ("hook_word", hook_word),
            ("metadata_request", metadata_request),
        ];
        fuzzed::run("agent", &targets);
    }
}
