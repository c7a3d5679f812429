//! A package's fuzz targets in its own tests, for a moment: over the seeds in `fuzz/seeds`, and over what becomes of them. `make fuzz` does it for
//! long, and is guided by what the code does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// A target: its name, and what it does with any bytes. It panics when it has found something.
pub type Target = (&'static str, fn(&[u8]));

/// How many inputs are made for a target, beside its seeds.
const INPUTS: u32 = 300;
/// The most changes to one seed.
const CHANGES: usize = 6;
/// The longest input of which nothing is a seed's.
const LONGEST: usize = 400;

/// One change to an input; places are taken modulo its length.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    /// This many bytes from the first place are written again at the second.
    Repeat(usize, usize, usize),
    /// The rest is that of another seed.
    Join(usize, Vec<u8>, usize),
}

impl Change {
    fn apply(self, input: &mut Vec<u8>) {
        let place = |at: usize| if input.is_empty() { 0 } else { at % input.len() };
        match self {
            Self::Set(at, byte) => {
                let at = place(at);
                if let Some(found) = input.get_mut(at) {
                    *found = byte;
                }
            }
            Self::Insert(at, bytes) => {
                let at = place(at);
                input.splice(at..at, bytes);
            }
            Self::Remove(at, length) => {
                let at = place(at);
                input.drain(at..input.len().min(at + length));
            }
            Self::Repeat(from, length, to) => {
                let (from, to) = (place(from), place(to));
                let again = input[from..input.len().min(from + length)].to_vec();
                input.splice(to..to, again);
            }
            Self::Join(at, other, from) => {
                input.truncate(place(at));
                input.extend(other.iter().skip(from % (other.len() + 1)));
            }
        }
    }
}

/// Runs every target of a package for a moment, always over the same inputs.
///
/// # Panics
/// One of them has found something; or they are not those that `fuzz/` has of this package.
pub fn run(package: &str, targets: &[Target]) {
    let names: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed(package), "the targets of {package}, and those in fuzz/fuzz_targets");
    for (name, target) in targets {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "fuzz/seeds/{name} is empty");
        for (path, seed) in &seeds {
            println!("{}", path.display());
            target(seed);
        }
        let config = Config {
            cases: INPUTS,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let result = runner.run(&inputs(seeds.into_values().collect()), |input| {
            target(&input);
            Ok::<(), TestCaseError>(())
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(why, input)) => panic!("the fuzz target {name}: {why}\nof the input \"{}\"", input.escape_ascii()),
            Err(error) => panic!("the fuzz target {name}: {error}"),
        }
    }
}

/// Seeds with some changes, and bytes that have nothing of them.
fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let at = any::<usize>();
    let seed = prop::sample::select(seeds);
    let bytes = || prop::collection::vec(any::<u8>(), 0..8);
    let words = "(\\PC|[\n\r\t ./'\"{}@:=-]){0,8}".prop_map(String::into_bytes);
    let change = prop_oneof![
        (at, any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at, prop_oneof![words, bytes()]).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at, 1..16_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (at, 1..64_usize, at).prop_map(|(from, length, to)| Change::Repeat(from, length, to)),
        (at, seed.clone(), at).prop_map(|(at, other, from)| Change::Join(at, other, from)),
    ];
    let changed = (seed, prop::collection::vec(change, 1..=CHANGES)).prop_map(|(mut input, changes)| {
        for change in changes {
            change.apply(&mut input);
        }
        input
    });
    prop_oneof![
        8 => changed,
        1 => "\\PC*".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..LONGEST),
    ]
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").canonicalize().unwrap()
}

/// The files of a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn seeds(name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = files(&folder().join("seeds").join(name));
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The targets that `make fuzz` has of a package.
fn listed(package: &str) -> Vec<String> {
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let mut names = Vec::new();
    for path in files(&folder().join("fuzz_targets")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let calls =
            |package: &str| text == format!("#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|data: &[u8]| {package}::fuzz::{name}(data));\n");
        assert!(
            ["agent", "common", "launcher"].into_iter().any(calls),
            "{} calls no target of its name",
            path.display()
        );
        assert!(
            manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
            "fuzz/Cargo.toml has no {name}"
        );
        if calls(package) {
            names.push(name);
        }
    }
    names
}
