#![allow(clippy::unwrap_used)]

mod aws;
mod azure;
mod gcp;
mod kubernetes;

use clap::ValueEnum as _;
use common::forge::Platform;
use common::spec::CloudKind;

use super::{ALIASES, Candidate, Names, region, wish};

/// Every cloud that is supported.
fn clouds() -> impl Iterator<Item = Names> {
    CloudKind::value_variants().iter().map(|cloud| Names::of(*cloud).unwrap())
}

#[test]
fn the_data_holds_together() {
    for names in clouds() {
        let (cloud, gpus) = (names.cloud, names.gpus());
        for key in names.entry.retired.keys() {
            assert!(gpus.contains(key), "{cloud}: {key} has no rows");
        }
        for (key, types) in &names.entry.types {
            assert!(!types.is_empty(), "{cloud}: {key}");
            for native in types {
                let promised = key.split_once('+').map(|(_, gpu)| gpu.to_owned());
                let wanted = promised.as_ref().map(|gpu| wish::Gpu {
                    name: gpu.clone(),
                    written: gpu.clone(),
                });
                let Candidate { arch, gpu, .. } = names.candidate(native, wanted.as_ref()).unwrap();
                assert_eq!(
                    arch,
                    Platform::X64,
                    "{cloud}: {native}: a generic size is for programs built for x86-64"
                );
                assert_eq!(gpu.is_some(), promised.is_some(), "{cloud}: {key}: {native}");
                let promised = promised.filter(|gpu| !names.entry.retired.contains_key(gpu));
                assert!(promised.is_none() || promised == gpu, "{cloud}: {key}: {native} has {gpu:?}");
            }
        }
        for generic in names.entry.regions.keys() {
            region(cloud, generic).unwrap();
        }
    }
}

/// The tables of docs/clouds/CLOUD.md: `UPDATE_GOLDEN=1` rewrites them.
#[test]
fn the_documents_are_what_the_data_says() {
    for names in clouds() {
        let path = format!("{}/../docs/clouds/{}.md", env!("CARGO_MANIFEST_DIR"), names.cloud);
        let (begin, end) = ("by `make golden` -->\n", "<!-- end -->");
        let kept = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = kept.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        let text = format!("{before}{begin}{}\n{end}{after}", tables(&names));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(kept == text, "{path} is not what the catalog says: run `make golden`");
    }
}

fn tables(names: &Names) -> String {
    let entry = &names.entry;
    let mut lines = vec![
        "| `--cloud-type` | `--cloud-gpu` | tried in order |".to_owned(),
        "|---|---|---|".to_owned(),
    ];
    let mut keys: Vec<&String> = entry.types.keys().collect();
    keys.sort_by_key(|key| {
        let (size, gpu) = key.split_once('+').unwrap_or((key, ""));
        (gpu, ["s", "m", "l", "xl"].iter().position(|known| *known == size))
    });
    for key in keys {
        let (size, gpu) = key.split_once('+').unwrap_or((key, ""));
        lines.push(format!("| {size} | {gpu} | {} |", entry.types[key].join(", ")));
    }
    lines.push(String::new());
    let gpus = names.gpus();
    for (alias, gpu) in ALIASES.iter().filter(|(_, gpu)| gpus.iter().any(|known| known == gpu)) {
        lines.push(format!("- `{alias}` is another name of `{gpu}`."));
    }
    for (gpu, instead) in &entry.retired {
        lines.push(format!("- `{gpu}`: {instead}."));
    }
    lines.extend(["", "| `--cloud-region` | region |", "|---|---|"].map(str::to_owned));
    lines.extend(entry.regions.iter().map(|(generic, native)| format!("| {generic} | {native} |")));
    lines.extend(["", "| image | owner | name |", "|---|---|---|"].map(str::to_owned));
    for (what, image) in [("without a GPU", &entry.images.plain), ("with a GPU", &entry.images.gpu)] {
        for arch in [Platform::X64, Platform::Arm64] {
            lines.push(format!(
                "| {what}, {} | {} | `{}` |",
                arch.github(),
                image.owner,
                image.pattern(arch)
            ));
        }
    }
    lines.join("\n")
}
