//! Logs to stderr: text on a terminal, one JSON object a line elsewhere, as users of the old tool parse them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// `--log`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// We gave up.
    Error,
    /// A person may need to act.
    Warn,
    /// Each change of state and each effect outside.
    #[default]
    Info,
    /// Requests, without secrets.
    Debug,
}

/// The crates that `--log` speaks of; every other one is a dependency, whose warnings are shown.
const OURS: [&str; 6] = ["common", "launcher", "agent", "ec2", "sandbox", "cml_sandbox"];

/// Installs the subscriber; call once, first thing in `main`.
pub fn init(level: Level) {
    let shape = if io::stderr().is_terminal() { Shape::Terminal } else { Shape::Json };
    // A second call changes nothing: the first one's subscriber stays.
    let _ = subscriber(level, shape, io::stderr).try_init();
}

fn subscriber<W>(level: Level, shape: Shape, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let ours = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let theirs = ours.min(LevelFilter::WARN);
    let targets = Targets::new().with_default(theirs).with_targets(OURS.map(|name| (name, ours)));
    let lines = tracing_subscriber::fmt::layer().event_format(shape).with_writer(writer);
    tracing_subscriber::registry().with(targets).with(lines)
}

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `level: message {meta}`, the level in colour.
    Terminal,
    /// One JSON object with sorted keys.
    Json,
}

impl<S, N> FormatEvent<S, N> for Shape
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, colour) = match *event.metadata().level() {
            tracing::Level::ERROR => ("error", 31),
            tracing::Level::WARN => ("warn", 33),
            tracing::Level::INFO => ("info", 32),
            _ => ("debug", 34),
        };
        if *self == Self::Json {
            fields.0.insert("level", level.into());
            fields.0.entry("message").or_insert_with(|| "".into());
            return writeln!(writer, "{}", escape(&json(&fields.0)?));
        }
        let message = fields.0.remove("message").unwrap_or_default();
        let message = message.as_str().map_or_else(|| message.to_string(), escape);
        write!(writer, "\u{1b}[{colour}m{level}\u{1b}[39m: {message}")?;
        if !fields.0.is_empty() {
            write!(writer, " {}", escape(&json(&fields.0)?))?;
        }
        writeln!(writer)
    }
}

fn json(fields: &BTreeMap<&'static str, Value>) -> Result<String, fmt::Error> {
    serde_json::to_string(fields).map_err(|_| fmt::Error)
}

/// Writes every character that moves a cursor, ends a line or turns text around as its `\u{..}` escape: a job's name must not forge a
/// log line or reach the terminal. Valid inside a JSON string too, where the ASCII ones are escaped already.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// The fields of a record, by name.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), value.into());
    }
}

/// What is logged, as text, for tests and fuzz targets.
#[cfg(any(test, fuzzing))]
pub(crate) mod capture {
    #![allow(clippy::unwrap_used)]

    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::{Level, Shape, subscriber};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub fn written(level: Level, shape: Shape, act: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(subscriber(level, shape, move || writer.clone()), act);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::capture::written;
    use super::{Level, Shape};

    /// What `act` logs at level info, as JSON lines.
    pub(crate) fn logged(act: impl FnOnce()) -> String {
        written(Level::Info, Shape::Json, act)
    }

    fn sample() {
        tracing::info!(zone = 7, alone = true, ratio = 0.5, "hello `{}`", "world");
        tracing::error!("gave up");
        tracing::debug!("not shown");
    }

    #[test]
    fn one_object_a_line_with_sorted_keys() {
        insta::assert_snapshot!(logged(sample), @r#"
        {"alone":true,"level":"info","message":"hello `world`","ratio":0.5,"zone":7}
        {"level":"error","message":"gave up"}
        "#);
    }

    #[test]
    fn text_on_a_terminal() {
        insta::assert_snapshot!(written(Level::Debug, Shape::Terminal, sample).replace('\u{1b}', "ESC"), @r#"
        ESC[32minfoESC[39m: hello `world` {"alone":true,"ratio":0.5,"zone":7}
        ESC[31merrorESC[39m: gave up
        ESC[34mdebugESC[39m: not shown
        "#);
    }

    #[test]
    fn the_level_is_ours_and_dependencies_only_warn() {
        let act = || {
            tracing::debug!(target: "agent::run", "ours");
            tracing::info!(target: "hyper", "theirs");
            tracing::warn!(target: "hyper", "their warning");
        };
        assert_eq!(written(Level::Debug, Shape::Json, act).lines().count(), 2);
        assert_eq!(written(Level::Error, Shape::Json, act), "");
    }

    #[test]
    fn a_record_that_is_json_itself_comes_out_unmangled() {
        let record = r#"{"instanceIp":"192.0.2.1","name":"a \"b\""}"#;
        let line = logged(|| tracing::info!("{record}"));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], record);
    }

    #[test]
    fn hostile_text_cannot_forge_a_line_or_reach_the_terminal() {
        let hostile = "x\n{\"level\":\"info\"}\r\u{1b}[2J\u{9b}31m\u{202e}";
        let act = || tracing::info!(job = hostile, "job {hostile}");
        let text = written(Level::Info, Shape::Terminal, act);
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert_eq!(text.matches('\u{1b}').count(), 2, "only our own colours: {text:?}");
        assert!(!text.contains(['\r', '\u{9b}', '\u{202e}']), "{text:?}");
        let line = logged(act);
        assert!(line.trim_end().chars().all(|c| !c.is_control()), "{line:?}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["job"], hostile, "a reader of the JSON gets the name as it was");
    }
}
