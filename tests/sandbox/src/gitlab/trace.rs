//! The log of a job, as its runner sends it: piece by piece.

use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::GitLab;
use super::protocol::{enter, headers};

/// A log so far.
#[derive(Default)]
pub struct Trace {
    bytes: Vec<u8>,
    /// How much of it was told, in whole lines.
    told: usize,
}

impl Trace {
    /// Adds a piece that begins at `from`: the lines that it completes, or how long the log is if that is another place.
    fn append(&mut self, from: usize, piece: &[u8]) -> Result<Vec<String>, usize> {
        if from != self.bytes.len() {
            return Err(self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        let whole = self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Ok(self.lines(whole))
    }

    /// The line that has no end.
    pub fn rest(&mut self) -> Vec<String> {
        self.lines(self.bytes.len())
    }

    fn lines(&mut self, end: usize) -> Vec<String> {
        let fresh = self.bytes.get(self.told..end).unwrap_or_default();
        let text = String::from_utf8_lossy(fresh).into_owned();
        self.told = self.told.max(end);
        text.lines().map(plain).filter(|line| !line.is_empty()).collect()
    }
}

/// A line without what only terminals and GitLab's pages understand: colours, sections, the time in front.
fn plain(line: &str) -> String {
    let line = stamped(line).unwrap_or(line);
    let mut text = String::new();
    let mut rest = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default().chars();
    while let Some(c) = rest.next() {
        match c {
            // An escape sequence ends with a letter.
            '\u{1b}' => _ = rest.by_ref().skip(1).find(char::is_ascii_alphabetic),
            c => text.push(c),
        }
    }
    text.trim_end().to_owned()
}

/// What follows the time and the stream, as in `2025-01-02T03:04:05.678901Z 00O text`.
fn stamped(line: &str) -> Option<&str> {
    const TIME: usize = "2025-01-02T03:04:05.678901Z".len();
    let (time, rest) = line.split_at_checked(TIME)?;
    let is_time = time.ends_with('Z') && time.as_bytes().get(10) == Some(&b'T');
    let (stream, text) = rest.split_at_checked(" 00O ".len())?;
    let is_stream = stream.starts_with(' ') && matches!(stream.as_bytes().get(3), Some(b'O' | b'E'));
    (is_time && is_stream).then_some(text)
}

/// Where a piece begins, as `10-19`.
fn begin(said: &HeaderMap) -> Option<usize> {
    let range = said.get("content-range")?.to_str().ok()?;
    range.split('-').next()?.trim().parse().ok()
}

pub async fn patch(Shared(gitlab): Shared<GitLab>, Path(id): Path<u64>, said: HeaderMap, piece: Bytes) -> Response {
    let job = match enter(&gitlab, id, &said, None) {
        Ok(job) => job,
        Err(refusal) => return refusal.into_response(),
    };
    let Some(from) = begin(&said) else {
        return (StatusCode::BAD_REQUEST, "400 Missing header Content-Range").into_response();
    };
    let (added, length) = gitlab.change(|state| {
        let trace = state.book.traces.entry(id).or_default();
        (trace.append(from, &piece), trace.bytes.len())
    });
    let range = [("range", format!("0-{length}"))];
    match added {
        Ok(lines) => {
            for line in lines {
                gitlab.tell_output(&job, &line);
            }
            (StatusCode::ACCEPTED, headers(&gitlab, id), range, "202").into_response()
        }
        Err(_) => (StatusCode::RANGE_NOT_SATISFIABLE, range, "416 Range Not Satisfiable").into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Trace, plain};

    #[test]
    fn lines_are_told_when_they_are_whole_and_pieces_must_fit() {
        let mut trace = Trace::default();
        assert!(trace.append(0, b"one\ntw").unwrap() == ["one"]);
        assert_eq!(trace.append(5, b"o\n"), Err(6));
        assert!(trace.append(6, b"o\nthree").unwrap() == ["two"]);
        assert_eq!(trace.rest(), ["three"]);
    }

    #[test]
    fn what_a_runner_decorates_is_plain() {
        assert_eq!(plain("\u{1b}[0Ksection_start:1:x\r\u{1b}[0K\u{1b}[32;1m$ true\u{1b}[0;m"), "$ true");
        assert_eq!(plain("2025-01-02T03:04:05.678901Z 01E text"), "text");
        assert_eq!(plain("text"), "text");
    }
}
