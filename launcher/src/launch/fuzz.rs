//! Any console.
#![allow(clippy::missing_panics_doc)]

use std::time::Duration;

use common::error::Report;
use common::log::escape;
use common::secret::Secret;

use super::diagnosis::{Diagnosis, late};

/// Stands for it in the seeds.
const MARK: char = '$';
const CANARY: &str = "canary-c9a1d2";

/// A console, in which `$` stands for a secret: what is shown of it has no secret in it, and does nothing to a terminal.
pub fn console(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace(MARK, CANARY);
    let diagnosis = Diagnosis::read(&text, &[Secret::new(CANARY)]);
    let error = diagnosis.explain(late(Duration::from_mins(10), &diagnosis.stage()));
    let report = Report(&error).to_string();
    let shown = diagnosis.lines.iter().map(String::as_str).chain(report.lines());
    for line in shown {
        assert!(!line.contains(CANARY) && escape(line) == line, "{line:?}");
    }
    assert!(diagnosis.lines.len() <= 30 && report.lines().count() <= 4, "{report}");
}
