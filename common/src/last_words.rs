//! What a machine leaves behind as tags, where its console goes with it: the job that could not be run again, as JSON. Pure.

use std::collections::BTreeMap;

/// The tags are called this and a number.
const TAG: &str = "cml-pending-";
/// The most that a tag's value holds, in characters: [Azure's limit][limits].
///
/// [limits]: https://learn.microsoft.com/en-us/azure/azure-resource-manager/management/tag-resources#limitations
const LONGEST: usize = 256;

/// The tags that hold this text.
pub fn split(text: &str) -> BTreeMap<String, String> {
    let characters: Vec<char> = text.chars().collect();
    let parts = characters.chunks(LONGEST).enumerate();
    parts.map(|(at, part)| (format!("{TAG}{at}"), part.iter().collect())).collect()
}

/// The text that tags hold; none where they hold none.
pub fn join(tags: &BTreeMap<String, String>) -> Option<String> {
    let parts = (0..).map_while(|at| tags.get(&format!("{TAG}{at}")));
    let text: String = parts.map(String::as_str).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{LONGEST, join, split};

    #[test]
    fn a_text_of_any_length_reads_back() {
        for length in [1, LONGEST, LONGEST + 1, 12 * LONGEST] {
            let text: String = "{\"run\":\"é\"}".chars().cycle().take(length).collect();
            let mut tags = split(&text);
            assert!(tags.values().all(|value| value.chars().count() <= LONGEST));
            tags.insert("team".into(), "ml".into());
            assert_eq!(join(&tags), Some(text));
        }
        assert_eq!(join(&BTreeMap::new()), None);
    }
}
