//! How sizes of pods are written (`8-32000`, `4-16000+nvidia-tesla-t4*1`), and which nodes are meant (`disk=ssd,pool=ci`).

use std::collections::BTreeMap;
use std::fmt;

use common::forge::Platform;

use super::{Candidate, Grammar, Place};

/// The names of Kubernetes.
pub struct Names;

/// How much of a node a pod has to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Processors.
    pub cpu: u32,
    /// Memory in MB (10⁶ bytes).
    pub memory: u32,
    /// The GPU's model, and how many.
    pub gpu: Option<(String, u32)>,
}

impl Shape {
    /// Reads `CPU-MEMORY` or `CPU-MEMORY+GPU*COUNT`, as the old tool's successor writes it; one GPU where no count is given.
    pub fn read(text: &str) -> Option<Self> {
        let (size, gpu) = text.split_once('+').map_or((text, None), |(size, gpu)| (size, Some(gpu)));
        let (cpu, memory) = size.split_once('-')?;
        let gpu = match gpu.map(|gpu| gpu.split_once('*').unwrap_or((gpu, "1"))) {
            Some((model, count)) => Some((some_model(model)?, some_number(count)?)),
            None => None,
        };
        Some(Self {
            cpu: some_number(cpu)?,
            memory: some_number(memory)?,
            gpu,
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.cpu, self.memory)?;
        match &self.gpu {
            Some((model, count)) => write!(f, "+{model}*{count}"),
            None => Ok(()),
        }
    }
}

fn some_number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number > 0)
}

fn some_model(text: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (!text.is_empty() && text.chars().all(legal)).then(|| text.to_owned())
}

impl Grammar for Names {
    fn data(&self) -> &'static str {
        include_str!("kubernetes.toml")
    }

    /// The GPU that is asked for beside a size without one is the pod's, once.
    fn native(&self, text: &str, gpu: Option<&str>, _: &BTreeMap<String, String>) -> Option<Candidate> {
        let mut shape = Shape::read(text)?;
        shape.gpu = shape.gpu.or_else(|| Some((gpu?.to_owned(), 1)));
        Some(Candidate {
            native: shape.to_string(),
            arch: Platform::X64,
            gpu: shape.gpu.map(|(model, _)| model),
        })
    }

    /// Nodes are selected by their labels: a cluster is in one region already.
    fn place(&self, name: &str) -> Option<Place> {
        name.split(',').all(|pair| pair.contains('=')).then(|| Place {
            region: name.to_owned(),
            zone: None,
        })
    }
}
