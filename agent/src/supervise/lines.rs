//! Whole lines out of a stream of bytes.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longer lines are cut: more than any job name, less than a program could fill our memory with.
const MAX_LINE: usize = 128 << 10;
/// How much is read at once.
const CHUNK: usize = 8 << 10;
/// Ends a cut line, so that its beginning is not taken for a line that the program wrote.
const CUT: &str = "…";

/// One output stream of a program.
#[derive(Debug)]
pub struct Lines<R> {
    /// None once it has ended.
    stream: Option<R>,
    /// Where the next bytes go.
    chunk: Box<[u8]>,
    line: Vec<u8>,
    /// The rest of the line, up to its end, is too much.
    cut: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(stream: Option<R>) -> Self {
        Self {
            stream,
            chunk: vec![0; CHUNK].into(),
            line: Vec::new(),
            cut: false,
        }
    }

    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Waits for output and returns the lines that it completed: none, one or several. Cancel-safe.
    pub async fn read(&mut self) -> Vec<String> {
        let Some(stream) = &mut self.stream else {
            return Vec::new();
        };
        match stream.read(&mut self.chunk).await {
            Ok(0) => self.stream = None,
            Ok(length) => {
                let chunk = std::mem::take(&mut self.chunk);
                let lines = self.take(chunk.get(..length).unwrap_or_default());
                self.chunk = chunk;
                return lines;
            }
            Err(error) => {
                tracing::debug!("output cannot be read: {error}");
                self.stream = None;
            }
        }
        Vec::new()
    }

    fn take(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let end = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n');
        while let Some((line, rest)) = end(bytes).and_then(|end| Some((bytes.get(..end)?, bytes.get(end + 1..)?))) {
            self.extend(line);
            lines.push(self.finish());
            bytes = rest;
        }
        self.extend(bytes);
        lines
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.line.len());
        self.cut |= bytes.len() > room;
        self.line.extend(bytes.iter().take(room));
    }

    fn finish(&mut self) -> String {
        let mut line = String::from_utf8_lossy(&self.line).into_owned();
        if std::mem::take(&mut self.cut) {
            line.push_str(CUT);
        }
        self.line.clear();
        self.line.shrink_to(CHUNK);
        line
    }

    /// What was written without a line's end, if anything.
    pub fn rest(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| self.finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CUT, Lines, MAX_LINE};

    fn all(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::<&[u8]>::new(None);
        let mut found: Vec<String> = chunks.iter().flat_map(|chunk| lines.take(chunk)).collect();
        found.extend(lines.rest());
        found
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; MAX_LINE + 5];
        let found = all(&[&long, b"yy\nshort\n"]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].len(), MAX_LINE + CUT.len());
        assert!(found[0].ends_with(CUT), "a cut line must not end like a whole one");
        assert_eq!(found[1], "short");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_it() {
        assert_eq!(all(&[b"a\xff\xfeb\n\n", b"end"]), ["a\u{fffd}\u{fffd}b", "", "end"]);
    }

    proptest! {
        #[test]
        fn where_the_chunks_are_split_does_not_matter(text in "[a-z\n]{0,80}", cuts in prop::collection::vec(0_usize..80, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(all(&chunks), all(&[bytes]));
            prop_assert_eq!(all(&chunks), text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
    }
}
