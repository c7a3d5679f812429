//! What the user asked for by `--cloud-type` and `--cloud-gpu`.

use anyhow::Result;
use common::error::{Class, Failure};

use super::{ALIASES, Candidate, Names};

/// Says that no GPU is wanted.
const NO_GPU: &str = "nogpu";

/// A machine type, as it was meant.
#[derive(Debug)]
pub enum Wish {
    /// The cloud's own, and the GPU that was named beside it.
    Native { candidate: Candidate, gpu: Option<Gpu> },
    /// A size, and a GPU.
    Generic { size: String, gpu: Option<Gpu> },
}

/// A GPU.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// Its own name.
    pub name: String,
    /// As the user wrote it.
    pub written: String,
}

impl Gpu {
    fn read(written: &str) -> Self {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == written);
        Self {
            name: alias.map_or(written, |(_, name)| name).to_owned(),
            written: written.to_owned(),
        }
    }
}

/// The row of the data that a size and a GPU mean.
pub fn key(size: &str, gpu: Option<&Gpu>) -> String {
    gpu.map_or_else(|| size.to_owned(), |gpu| format!("{size}+{}", gpu.name))
}

impl Wish {
    /// What these options mean on a cloud.
    ///
    /// # Errors
    /// They contradict each other, or name a GPU that the cloud has not.
    pub fn read(names: &Names, cloud_type: &str, gpu: Option<&str>) -> Result<Self> {
        let option = gpu.map(|gpu| gpu.trim().to_ascii_lowercase());
        let option = option.filter(|gpu| !gpu.is_empty() && gpu != NO_GPU).map(|gpu| Gpu::read(&gpu));
        let written = cloud_type.trim();
        let lower = written.to_ascii_lowercase();
        let (size, own) = lower
            .split_once('+')
            .map_or((lower.as_str(), None), |(size, gpu)| (size, Some(Gpu::read(gpu))));
        let wanted = option.as_ref().map(|gpu| gpu.name.as_str());
        if let Some(candidate) = names.grammar.native(written, wanted, &names.entry.families) {
            if let Some(gpu) = option.as_ref().filter(|gpu| candidate.gpu.as_ref() != Some(&gpu.name)) {
                known(names, gpu)?;
            }
            return Ok(Self::Native { candidate, gpu: option });
        }
        if let (Some(own), Some(option)) = (&own, &option)
            && own.name != option.name
        {
            return Err(Failure::new(
                Class::Usage,
                format!(
                    "`--cloud-type={cloud_type}` and `--cloud-gpu={}` name two different GPUs",
                    option.written
                ),
            )
            .hint("give the GPU once")
            .into());
        }
        let gpu = own.or(option);
        if let Some(gpu) = &gpu {
            known(names, gpu)?;
        }
        Ok(Self::Generic {
            size: size.to_owned(),
            gpu,
        })
    }
}

fn known(names: &Names, gpu: &Gpu) -> Result<()> {
    let known = names.gpus();
    if known.contains(&gpu.name) {
        return Ok(());
    }
    let aliases = ALIASES.map(|(alias, _)| alias);
    Err(Failure::new(Class::Usage, format!("the GPU `{}` is not known", gpu.name))
        .hint(format!(
            "known: {NO_GPU}, {}, {}; or give a native `--cloud-type`",
            known.join(", "),
            aliases.join(", ")
        ))
        .into())
}
