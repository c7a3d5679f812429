//! The machines for people, and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::log::escape;
use jiff::Timestamp;
use serde::Serialize;

use super::machine::{Machine, Verdict};

const HEAD: [&str; 9] = ["NAME", "ID", "TYPE", "ZONE", "STATE", "AGE", "COST", "RUNNER", "REMARK"];

/// In a dollar.
const CENTS: f64 = 100.0;

/// A table; the widths follow the widest cells.
pub fn text(machines: &[Machine], now: Timestamp) -> String {
    if machines.is_empty() {
        return "no machines\n".to_owned();
    }
    let rows: Vec<[String; HEAD.len()]> = [HEAD.map(str::to_owned)]
        .into_iter()
        .chain(machines.iter().map(|machine| row(machine, now)))
        .collect();
    let length = |row: &[String; HEAD.len()], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let width = |column: usize| rows.iter().map(|row| length(row, column)).max().unwrap_or_default();
    let widths: [usize; HEAD.len()] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn row(machine: &Machine, now: Timestamp) -> [String; HEAD.len()] {
    let Machine { name, instance, .. } = machine;
    let market = if instance.spot { " (spot)" } else { "" };
    let remark = match machine.verdict(now) {
        Verdict::Destroy(why) => why,
        Verdict::Keep | Verdict::Forget => "",
    };
    [
        escape(name),
        instance.id.clone(),
        format!("{}{market}", instance.kind),
        instance.zone.clone().unwrap_or_else(|| instance.region.clone()),
        instance.state.split(' ').next().unwrap_or_default().to_owned(),
        machine.age(now).map(age).unwrap_or_default(),
        machine.cost(now).map(|cost| format!("${cost:.2}")).unwrap_or_default(),
        machine.runner_state().to_owned(),
        remark.to_owned(),
    ]
}

/// `3d4h`, `2h5m`, `7m`
pub fn age(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    let (days, hours) = (minutes / (24 * 60), minutes / 60 % 24);
    match (days, hours) {
        (0, 0) => format!("{minutes}m"),
        (0, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{hours}h"),
    }
}

/// What is told of one machine.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    region: &'a str,
    zone: Option<&'a str>,
    state: &'a str,
    ip: Option<&'a str>,
    spot: bool,
    launched_at: &'a str,
    /// The machine itself at its price of now, where that is known; so far, to the cent.
    hourly_usd: Option<f64>,
    cost_usd: Option<f64>,
    /// `none`, `offline`, `idle`, `busy`
    runner: &'a str,
    /// The workflow run that launched it.
    run: Option<&'a str>,
    /// When its launcher gave it up unless its runner was online.
    deadline: Option<String>,
}

impl<'a> Row<'a> {
    fn of(machine: &'a Machine, now: Timestamp) -> Self {
        let instance = &machine.instance;
        Self {
            name: &machine.name,
            id: &instance.id,
            kind: &instance.kind,
            region: &instance.region,
            zone: instance.zone.as_deref(),
            state: &instance.state,
            ip: instance.ip.as_deref(),
            spot: instance.spot,
            launched_at: &instance.launched_at,
            hourly_usd: machine.hourly,
            cost_usd: machine.cost(now).map(|cost| (cost * CENTS).round() / CENTS),
            runner: machine.runner_state(),
            run: machine.run(),
            deadline: machine.deadline().map(|at| at.to_string()),
        }
    }
}

/// One JSON array.
pub fn json(machines: &[Machine], now: Timestamp) -> Result<String> {
    let rows: Vec<Row<'_>> = machines.iter().map(|machine| Row::of(machine, now)).collect();
    Ok(serde_json::to_string(&rows).context("writing the list")? + "\n")
}
