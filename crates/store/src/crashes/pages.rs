//! Power cuts and failures at every step of writing, taking back and destroying secrets.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::folder;
use crate::fs::recording::{Disk, Failure, Op, Recording, Unsynced};
use crate::pages::{Pages, PagesError};

/// What the load was told so far: each step's number is in `Op::Acknowledged`.
const STEPS: usize = 7;

fn secret(n: usize) -> Vec<u8> {
    format!("SECRET-{n}-").repeat(90).into_bytes()
}

/// Does step `n`.
fn step(pages: &Pages, n: usize) -> Result<(), PagesError> {
    match n {
        0 => pages.append(1, &secret(0)).map(drop),
        1 => pages.append_all(1, &[&secret(1), &secret(2)]).map(drop),
        2 => pages.append(2, &secret(3)).map(drop),
        // Secret 1 is erased.
        3 => pages.rewrite(1, 3, &[&secret(0), &secret(2)]).map(drop),
        4 => pages.append(3, &secret(4)).map(drop),
        // Secret 4 is an orphan.
        5 => pages.reclaim(3, None, |at, _| at.offset < 1000).map(drop),
        _ => pages.destroy(2),
    }
}

/// The secrets that lie there after so many steps.
fn expected(steps: usize) -> Vec<usize> {
    match steps {
        0 => vec![],
        1 => vec![0],
        2 => vec![0, 1, 2],
        3 => vec![0, 1, 2, 3],
        4 => vec![3, 0, 2],
        5 => vec![3, 0, 2, 4],
        6 => vec![3, 0, 2],
        _ => vec![0, 2],
    }
}

/// Where the chunks of a page end that batches point to after so many steps.
fn pointed(page: u32, steps: usize) -> u64 {
    let chunk = secret(0).len() as u64 + 8;
    match (page, steps) {
        (1, 1) | (2, 3..) => chunk,
        (1, 2..) => 3 * chunk,
        (3, 4..) => 2 * chunk,
        _ => 0,
    }
}

fn check(dir: &Path, told: usize, about: &str) {
    fs::create_dir_all(dir).unwrap();
    let pages = Pages::open(dir).unwrap_or_else(|error| panic!("{about}: {error}"));
    if let Some(last) = pages.numbers().unwrap().last() {
        let settled = pages.reclaim(*last, Some(pointed(*last, told)), |_, _| true);
        settled.unwrap_or_else(|error| panic!("{about}: page {last}: {error}"));
    }
    let mut found = Vec::new();
    for page in pages.numbers().unwrap() {
        let chunks = pages.chunks(page);
        let chunks = chunks.unwrap_or_else(|error| panic!("{about}: page {page}: {error}"));
        found.extend(chunks.into_iter().map(|(_, chunk)| chunk));
    }
    // Chunks of one append that was cut may be there up to any of them.
    let prefix = |n: usize| {
        let all: Vec<_> = expected(n).into_iter().map(secret).collect();
        n > told && all.starts_with(&found) && found.len() > expected(told).len() || all == found
    };
    let whole = [told, told + 1]
        .into_iter()
        .filter(|n| *n <= STEPS)
        .find(|&n| prefix(n));
    assert!(
        whole.is_some(),
        "{about}: {} chunks after {told} steps",
        found.len()
    );
    if told >= 4 {
        for entry in fs::read_dir(dir.join("secrets")).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            let gone = bytes.windows(8).all(|window| window != b"SECRET-1");
            assert!(gone, "{about}: an erased secret");
        }
    }
    drop(pages);
}

fn load(fs: &Arc<Recording>, dir: &Path) {
    let pages = Pages::open_on(fs.clone(), dir).unwrap();
    for n in 0..STEPS {
        step(&pages, n).unwrap();
        fs.acknowledge(n + 1);
    }
}

#[test]
fn a_power_cut_after_any_step_leaves_every_secret_or_none_of_an_erased_one() {
    let dir = folder();
    let recording = Arc::new(Recording::new(dir.path()));
    load(&recording, dir.path());
    let (mut disk, mut told, mut seed) = (Disk::default(), 0, 1_u64);
    for (at, op) in recording.ops().iter().enumerate() {
        disk.step(op);
        if let Op::Acknowledged(count) = op {
            told = *count;
        }
        let mut cuts = vec![Unsynced::Lost, Unsynced::Kept];
        cuts.extend((0..disk.torn_bytes()).step_by(37).map(Unsynced::Torn));
        cuts.extend((0..8).map(|n| Unsynced::Drawn(seed * 8 + n)));
        for cut in cuts {
            let image = folder();
            disk.write_image(cut, image.path());
            check(image.path(), told, &format!("step {at} {cut:?}"));
            seed += 1;
        }
    }
    assert!(seed > 200);
}

#[test]
fn a_failure_at_any_step_loses_no_secret() {
    let all = {
        let dir = folder();
        let recording = Arc::new(Recording::new(dir.path()));
        load(&recording, dir.path());
        recording.steps()
    };
    for failure in [Failure::Broken, Failure::Full, Failure::Done] {
        for at in 0..all {
            let about = format!("{failure:?} at step {at}");
            let dir = folder();
            let recording = Arc::new(Recording::new(dir.path()));
            recording.fail_at(at, failure);
            let Ok(pages) = Pages::open_on(recording.clone(), dir.path()) else {
                check(dir.path(), 0, &about);
                continue;
            };
            let told = (0..STEPS).take_while(|n| step(&pages, *n).is_ok()).count();
            assert!(told < STEPS, "{about}: nothing failed");
            drop(pages);
            check(dir.path(), told, &about);
        }
    }
}
