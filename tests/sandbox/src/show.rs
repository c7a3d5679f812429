//! The timeline on a terminal: coloured there, plain elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};

use sandbox::events::{Event, Source};
use sandbox::world::World;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

/// Where a timeline goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is the result.
    Stdout,
    /// It accompanies a command's own output.
    Stderr,
}

impl Place {
    /// Whether to use colours there: <https://no-color.org>
    pub fn has_colours(self) -> bool {
        let terminal = match self {
            Self::Stdout => stdout().is_terminal(),
            Self::Stderr => stderr().is_terminal(),
        };
        terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Writes a line; a reader who has gone is no reason to stop.
    pub fn line(self, text: &str) {
        let _ = match self {
            Self::Stdout => writeln!(stdout(), "{text}"),
            Self::Stderr => writeln!(stderr(), "{text}"),
        };
    }
}

/// Prints every event from now on, until the handle is aborted.
pub fn follow(world: &World, place: Place) -> JoinHandle<()> {
    let (events, forge, cloud) = (world.events.clone(), world.forge.kind().driver(), world.cloud.kind().name());
    tokio::spawn(async move {
        let mut seen = 0;
        loop {
            for event in events.after(seen).await {
                seen += 1;
                place.line(&text(&event, forge, cloud, place.has_colours()));
            }
        }
    })
}

fn text(event: &Event, forge: &str, cloud: &str, coloured: bool) -> String {
    let (name, colour) = match event.source {
        Source::Forge => (forge, 35),
        Source::Cloud => (cloud, 33),
        Source::Metadata => ("metadata", 34),
        Source::Instance => (last(&event.subject), 36),
        Source::Command => ("command", 32),
    };
    let at = event.at.as_secs_f64();
    let told = match event.what {
        "console" => plain(&event.detail),
        "job-output" => format!("{} | {}", clean(&event.subject), plain(&event.detail)),
        what => format!("{} {} {}", what.replace('-', " "), clean(&event.subject), clean(&event.detail)),
    };
    if coloured {
        format!("\u{1b}[2m{at:8.2}s\u{1b}[0m \u{1b}[{colour}m{name:<8}\u{1b}[0m {told}")
    } else {
        format!("{at:8.2}s {name:<8} {told}")
    }
}

/// The end of an instance's id, where they differ.
fn last(id: &str) -> &str {
    const SHOWN: usize = 8;
    id.get(id.len().saturating_sub(SHOWN)..).unwrap_or(id)
}

/// What jobs and machines say may hold anything.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A line of ours, for people: what a JSON record says, in short.
fn plain(line: &str) -> String {
    let record: Option<Map<String, Value>> = serde_json::from_str(line).ok();
    let Some(message) = record.as_ref().and_then(|record| record.get("message")?.as_str()) else {
        return shorten(clean(line));
    };
    let mut text = clean(message);
    for (name, value) in record.iter().flatten() {
        if !["date", "level", "message", "repo", "version"].contains(&name.as_str()) {
            let shown = value.as_str().map_or_else(|| value.to_string(), clean);
            text = format!("{text} {name}={shown}");
        }
    }
    shorten(text)
}

/// The most that a line of a program shows, in characters.
const WIDTH: usize = 140;

fn shorten(text: String) -> String {
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sandbox::events::{Event, Source};

    use super::{WIDTH, text};

    fn console(detail: &str) -> String {
        let event = Event {
            at: Duration::from_millis(1_500),
            source: Source::Instance,
            what: "console",
            subject: "i-00000000000000e01".into(),
            detail: detail.into(),
        };
        text(&event, "github", "aws", false)
    }

    #[test]
    fn a_record_is_told_in_short() {
        let record = r#"{"date":"x","level":"info","message":"runner status","status":"ready"}"#;
        assert_eq!(console(record), "    1.50s 00000e01 runner status status=ready");
    }

    #[test]
    fn what_a_machine_says_cannot_move_the_cursor_nor_fill_the_screen() {
        let shown = console(&format!("\u{1b}[2J{}", "ä".repeat(1_000)));
        assert!(!shown.contains('\u{1b}'));
        assert!(shown.chars().count() < WIDTH + 30);
    }
}
