//! The program's own log, on standard error: JSON with sorted keys, or text. Source: `log/configuration.go`, logrus.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::standin::complain;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Fatal,
}

impl Level {
    const ALL: [Self; 5] = [Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Fatal];

    const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

static JSON: AtomicBool = AtomicBool::new(false);
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// `json`, `text` or `runner`
pub fn set_format(name: &str) -> Result<(), String> {
    if !["json", "text", "runner"].contains(&name) {
        return Err(format!("unknown log format \"{name}\", expected one of: [json runner text]"));
    }
    JSON.store(name == "json", Ordering::Relaxed);
    Ok(())
}

/// From this level on lines are written.
pub fn set_level(name: &str) -> Result<(), String> {
    let found = Level::ALL
        .into_iter()
        .find(|level| level.name().starts_with(name) && name.len() > 3);
    let level = found.ok_or_else(|| format!("failed to parse log level: not a valid logrus Level: \"{name}\""))?;
    LEVEL.store(level as u8, Ordering::Relaxed);
    Ok(())
}

/// A line with fields.
#[derive(Debug, Clone)]
pub struct Entry {
    message: String,
    fields: Map<String, Value>,
}

/// A line that says this.
pub fn entry(message: impl Into<String>) -> Entry {
    Entry {
        message: message.into(),
        fields: Map::new(),
    }
}

/// The last line of a program that gives up.
pub fn fatal(message: &str) {
    entry(message).write(Level::Fatal);
}

impl Entry {
    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    /// Says something else, with the same fields.
    #[must_use]
    pub fn saying(&self, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fields: self.fields.clone(),
        }
    }

    /// Writes it.
    pub fn write(mut self, level: Level) {
        if (level as u8) < LEVEL.load(Ordering::Relaxed) {
            return;
        }
        if JSON.load(Ordering::Relaxed) {
            self.fields.insert("level".into(), level.name().into());
            self.fields.insert("msg".into(), self.message.into());
            self.fields.insert("time".into(), Timestamp::now().to_string().into());
            // A map of this kind is sorted.
            complain(&Value::Object(self.fields).to_string());
            return;
        }
        let prefix = if level > Level::Info {
            format!("{}: ", level.name().to_uppercase())
        } else {
            String::new()
        };
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let fields = self.fields.iter().map(|(name, value)| format!(" {name}={}", shown(value)));
        complain(&format!("{:<50}{}", prefix + &self.message, fields.collect::<String>()));
    }
}
