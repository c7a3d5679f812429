//! The timeline on a terminal: coloured there, plain elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};

use sandbox::events::{Event, Events, Source};
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
pub fn follow(events: Events, place: Place) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut seen = 0;
        loop {
            for event in events.after(seen).await {
                seen += 1;
                place.line(&text(&event, place.has_colours()));
            }
        }
    })
}

fn text(event: &Event, coloured: bool) -> String {
    let (name, colour) = match event.source {
        Source::Forge => ("github", 35),
        Source::Cloud => ("ec2", 33),
        Source::Metadata => ("metadata", 34),
        Source::Instance => ("instance", 36),
        Source::Command => ("command", 32),
    };
    let at = event.at.as_secs_f64();
    // What jobs and machines say may hold anything.
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let told = match event.what {
        "console" => clean(&event.detail),
        "job-output" => format!("{} | {}", clean(&event.subject), clean(&event.detail)),
        what => format!("{} {} {}", what.replace('-', " "), clean(&event.subject), clean(&event.detail)),
    };
    if coloured {
        format!("\u{1b}[2m{at:8.2}s\u{1b}[0m \u{1b}[{colour}m{name:<8}\u{1b}[0m {told}")
    } else {
        format!("{at:8.2}s {name:<8} {told}")
    }
}
