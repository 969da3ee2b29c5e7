//! No bytes from outside make a decoder panic, and what decodes encodes to the same bytes.
//!
//! The checks and the valid bytes are those of the fuzz targets (`fuzz/src/`); here seeded
//! mutations of the valid bytes go through every check in each `cargo test`.
//! `FANGZHI_MUTATIONS` sets how many each check gets, `FANGZHI_SEED` from where they start.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "../../fuzz/src/checks.rs"]
mod checks;
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use checks::{CHECKS, Check};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const MUTATIONS: u64 = 5_000;
/// The longest input tried: above every limit on text, below what makes the test slow.
const INPUT_BYTES_MAX: usize = 128 * 1024;

/// Bytes that mean something to CBOR, to base64, to text or to lengths.
const TELLING: &[u8] = &[
    0x00, 0x01, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1f, 0x20, 0x3b, 0x40, 0x58, 0x5b, 0x5f, 0x60,
    0x78, 0x7b, 0x7f, 0x80, 0x9b, 0x9f, 0xa0, 0xbb, 0xbf, 0xc0, 0xf4, 0xf6, 0xf7, 0xf9, 0xfb, 0xfe,
    0xff, b'\n', b'\r', b' ', b'+', b'/', b'=', b'-', b'.', b'0', b'9', b'A', b'x',
];

fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => default,
    }
}

/// Below `bound`, which is not 0.
fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    (rng.next_u64() % bound as u64) as usize
}

/// A range within `bytes`, possibly empty.
fn part(rng: &mut ChaCha20Rng, bytes: &[u8]) -> std::ops::Range<usize> {
    let start = below(rng, bytes.len() + 1);
    let length = below(rng, (bytes.len() - start).min(64) + 1);
    start..start + length
}

fn mutate(rng: &mut ChaCha20Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=below(rng, 4) {
        let at = below(rng, bytes.len() + 1);
        let telling = TELLING[below(rng, TELLING.len())];
        match below(rng, 10) {
            0 if at < bytes.len() => bytes[at] ^= 1 << below(rng, 8),
            1 if at < bytes.len() => bytes[at] = telling,
            2 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(1),
            3 => bytes.insert(at, telling),
            4 => drop(bytes.drain(part(rng, bytes))),
            5 => bytes.truncate(at),
            6 => {
                let copied = bytes[part(rng, bytes)].to_vec();
                bytes.splice(at..at, copied);
            }
            7 => {
                let copied = other[part(rng, other)].to_vec();
                bytes.splice(part(rng, bytes), copied);
            }
            8 if at + 8 <= bytes.len() => bytes[at..at + 8].fill(telling),
            _ => {
                let copied = other[below(rng, other.len() + 1)..].to_vec();
                bytes.truncate(at);
                bytes.extend(copied);
            }
        }
        bytes.truncate(INPUT_BYTES_MAX);
    }
}

/// Runs one check; says which input of which seed broke it.
fn run(check: &Check, bytes: &[u8], seed: u64) -> bool {
    catch_unwind(AssertUnwindSafe(|| (check.decodes)(bytes))).unwrap_or_else(|_| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!(
            "the check `{}` failed on {hex}; seed {seed}: fix the decoder and keep these bytes as a test",
            check.name
        )
    })
}

fn seeds_of(check: &Check) -> Vec<Vec<u8>> {
    let valid = seeds::of(check.name);
    assert!(!valid.is_empty(), "`{}` has no seed", check.name);
    valid
}

#[test]
fn the_valid_bytes_of_every_check_decode() {
    for check in &CHECKS {
        for bytes in seeds_of(check) {
            assert!(run(check, &bytes, 0), "{}", check.name);
        }
    }
}

#[test]
fn mutated_bytes_never_panic_and_what_decodes_encodes_to_the_same_bytes() {
    let seed = from_env("FANGZHI_SEED", 1);
    let mutations = from_env("FANGZHI_MUTATIONS", MUTATIONS);
    for check in &CHECKS {
        let valid = seeds_of(check);
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut decoded = 0u64;
        for _ in 0..mutations {
            let mut bytes = valid[below(&mut rng, valid.len())].clone();
            let other = &valid[below(&mut rng, valid.len())];
            mutate(&mut rng, &mut bytes, other);
            let decodes = run(check, &bytes, seed);
            let is_altered = !valid.contains(&bytes);
            assert!(
                !(check.sealed && decodes && is_altered),
                "`{}` opened altered bytes; seed {seed}",
                check.name
            );
            decoded += u64::from(decodes);
        }
        println!("{}: {decoded} of {mutations} decode", check.name);
    }
}

#[test]
fn every_cut_and_every_added_byte_of_binary_formats_is_refused() {
    let binary = ["entry", "charter", "message", "body", "parcel", "frontier"];
    for check in CHECKS.iter().filter(|check| binary.contains(&check.name)) {
        for bytes in seeds_of(check) {
            for end in 0..bytes.len() {
                assert!(!run(check, &bytes[..end], 0), "{} cut at {end}", check.name);
            }
            for added in 0..=u8::MAX {
                let longer = [bytes.as_slice(), &[added]].concat();
                assert!(!run(check, &longer, 0), "{} and {added}", check.name);
            }
        }
    }
}

#[test]
fn lengths_that_promise_more_than_is_there_cost_nothing() {
    // Heads of CBOR arrays, maps, byte strings and texts of 2^32 - 1 and 2^64 - 1 elements, bare
    // and where messages and entries have their content.
    for head in [0x9a_u8, 0x9b, 0xba, 0xbb, 0x5a, 0x5b, 0x7a, 0x7b] {
        for before in [&[][..], &[0x83, 1, 8], &[0x83, 1, 1], &[0xa1, 0], &[0x82]] {
            let bytes = [before, &[head], &[0xff; 8]].concat();
            for check in &CHECKS {
                assert!(!run(check, &bytes, 0), "{}", check.name);
            }
        }
    }
}

#[test]
fn deep_nesting_is_refused_without_exhausting_the_stack() {
    for opening in [0x81_u8, 0x9f, 0xa1, 0xbf, 0xc1, 0x83] {
        for bytes in [
            vec![opening; INPUT_BYTES_MAX],
            [&[0x83, 1, 8, 0xa1, 0][..], &vec![opening; 60_000]].concat(),
            [&[0x83, 1, 1, 0xa1, 9][..], &vec![opening; 60_000]].concat(),
        ] {
            for check in &CHECKS {
                assert!(!run(check, &bytes, 0), "{}", check.name);
            }
        }
    }
}

#[test]
fn every_check_is_a_fuzz_target_and_every_fuzz_target_a_check() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let names: BTreeSet<String> = CHECKS.iter().map(|check| check.name.into()).collect();
    let files: BTreeSet<String> = std::fs::read_dir(fuzz.join("fuzz_targets"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().into())
        .collect();
    assert_eq!(files, names);
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for name in &names {
        let path = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&path), "fuzz/Cargo.toml lacks `{name}`");
        let target = fuzz.join(format!("fuzz_targets/{name}.rs"));
        let source = std::fs::read_to_string(target).unwrap();
        assert!(source.contains(&format!("checks::{name}(")), "{name}");
    }
}
