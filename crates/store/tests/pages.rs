//! Pages of record secrets: what is appended is there, what is rewritten is destroyed.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use store::pages::{CHUNK_BYTES_MAX, ChunkAt, Pages, PagesError, Reclaimed, inspect, numbers};

fn file(dir: &Path, page: u32) -> PathBuf {
    dir.join(format!("secrets/{page:08}.page"))
}

/// What a register does at opening, when it knows of no batch.
fn reclaim(pages: &Pages, page: u32) {
    pages.reclaim(page, None, |_, _| true).unwrap();
}

fn contents(pages: &Pages, page: u32) -> Vec<Vec<u8>> {
    let chunks = pages.chunks(page).unwrap();
    chunks.into_iter().map(|(_, chunk)| chunk).collect()
}

#[test]
fn chunks_are_read_back_by_place_and_by_page_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    let one = pages.append(1, b"one").unwrap();
    let more = pages.append_all(1, &[b"two", b"three"]).unwrap();
    let other = pages.append(7, b"other").unwrap();
    drop(pages);
    let pages = Pages::open(dir.path()).unwrap();
    assert_eq!(pages.numbers().unwrap(), [1, 7]);
    assert_eq!(pages.read(one).unwrap(), b"one");
    assert_eq!(pages.read(more[1]).unwrap(), b"three");
    assert_eq!(pages.read(other).unwrap(), b"other");
    assert_eq!(contents(&pages, 1), [&b"one"[..], b"two", b"three"]);
    assert_eq!(pages.size(1).unwrap(), 3 * 8 + 11);
    assert_eq!(pages.size(2).unwrap(), 0);
    assert!(matches!(
        pages.chunks(2),
        Err(PagesError::Missing { page: 2 })
    ));
    assert!(!file(dir.path(), 2).exists());
}

#[test]
fn places_and_sizes_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    let at = pages.append(1, b"a chunk").unwrap();
    for wrong in [
        ChunkAt { offset: 1, ..at },
        ChunkAt { len: 6, ..at },
        ChunkAt { len: 8, ..at },
        ChunkAt { offset: 999, ..at },
        ChunkAt {
            len: u32::MAX,
            ..at
        },
    ] {
        assert!(matches!(pages.read(wrong), Err(PagesError::Damaged { .. })));
    }
    for size in [0, CHUNK_BYTES_MAX + 1] {
        let refused = pages.append(1, &vec![1; size]);
        assert!(matches!(refused, Err(PagesError::Size { .. })));
    }
    for page in [0, 100_000_000] {
        let refused = pages.append(page, b"x");
        assert!(matches!(refused, Err(PagesError::Number { .. })));
    }
    assert_eq!(contents(&pages, 1), [b"a chunk"]);
}

#[test]
fn a_page_cut_at_any_byte_keeps_its_whole_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    pages.append(1, b"first").unwrap();
    let start = pages.size(1).unwrap() as usize;
    pages.append(1, b"second").unwrap();
    drop(pages);
    let bytes = fs::read(file(dir.path(), 1)).unwrap();
    for end in start..bytes.len() {
        for zeros in [0, 9] {
            let torn = [&bytes[..end], &vec![0; zeros]].concat();
            if zeros > 0 && end > start {
                continue;
            }
            fs::write(file(dir.path(), 1), torn).unwrap();
            let pages = Pages::open(dir.path()).unwrap();
            reclaim(&pages, 1);
            let at = pages.append(1, b"third").unwrap();
            assert_eq!(contents(&pages, 1), [&b"first"[..], b"third"], "{end}");
            assert_eq!(pages.read(at).unwrap(), b"third");
        }
    }
}

#[test]
fn a_flipped_bit_is_never_read_as_a_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    let places = pages.append_all(1, &[b"first", b"second"]).unwrap();
    drop(pages);
    let bytes = fs::read(file(dir.path(), 1)).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(file(dir.path(), 1), flipped).unwrap();
        let pages = Pages::open(dir.path()).unwrap();
        let first = pages.read(places[0]).ok();
        let second = pages.read(places[1]).ok();
        assert!(first.is_none_or(|chunk| chunk == b"first"), "{bit}");
        assert!(second.is_none_or(|chunk| chunk == b"second"), "{bit}");
    }
}

#[test]
fn a_page_under_another_number_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    pages.append(1, b"chunk").unwrap();
    fs::copy(file(dir.path(), 1), file(dir.path(), 2)).unwrap();
    assert!(matches!(pages.chunks(2), Err(PagesError::Damaged { .. })));
}

#[test]
fn rewriting_moves_what_is_given_and_destroys_the_old_page() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    let old = pages.append_all(1, &[b"kept", b"erased"]).unwrap();
    // A second name on the same bytes shows what became of them.
    let witness = dir.path().join("witness");
    fs::hard_link(file(dir.path(), 1), &witness).unwrap();
    fs::write(file(dir.path(), 1).with_extension("cut"), b"rest").unwrap();
    let new = pages.rewrite(1, 2, &[b"kept again"]).unwrap();
    assert_eq!(pages.read(new[0]).unwrap(), b"kept again");
    assert!(matches!(
        pages.read(old[0]),
        Err(PagesError::Missing { page: 1 })
    ));
    assert!(fs::read(&witness).unwrap().iter().all(|&byte| byte == 0));
    assert_eq!(fs::read_dir(dir.path().join("secrets")).unwrap().count(), 1);
    assert!(matches!(
        pages.rewrite(2, 2, &[]),
        Err(PagesError::Exists { page: 2 })
    ));
    assert!(matches!(
        pages.rewrite(1, 3, &[]),
        Err(PagesError::Missing { page: 1 })
    ));
    assert_eq!(pages.rewrite(2, 3, &[]).unwrap(), []);
    assert_eq!(pages.numbers().unwrap(), []);
}

#[test]
fn an_interrupted_rewriting_is_finished_or_undone() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("secrets/rewriting");
    let pages = Pages::open(dir.path()).unwrap();
    pages.append(1, b"old").unwrap();
    drop(pages);
    // Before the new page had its name: undone.
    fs::write(&note, "1 2 0\n").unwrap();
    fs::write(dir.path().join("secrets/.00000002.page.tmp"), b"half").unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    assert_eq!(contents(&pages, 1), [b"old"]);
    assert!(!note.exists());
    assert!(!dir.path().join("secrets/.00000002.page.tmp").exists());
    // Afterwards, with the old page half overwritten: finished.
    pages.append(2, b"new").unwrap();
    drop(pages);
    fs::write(&note, "1 2 0\n").unwrap();
    fs::write(file(dir.path(), 1), [0; 11]).unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    assert_eq!(pages.numbers().unwrap(), [2]);
    assert_eq!(contents(&pages, 2), [b"new"]);
    drop(pages);
    fs::write(&note, "2 3 1\n").unwrap();
    assert_eq!(Pages::open(dir.path()).unwrap().numbers().unwrap(), []);
    fs::write(&note, "nonsense").unwrap();
    assert!(matches!(
        Pages::open(dir.path()),
        Err(PagesError::Note { .. })
    ));
}

#[test]
fn chunks_of_a_batch_that_never_came_are_taken_back_without_reading_other_pages() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    pages.append_all(1, &[b"damaged later"]).unwrap();
    let kept = pages
        .append_all(2, &[b"one", b"orphan inside", b"three"])
        .unwrap();
    let orphans = pages.append_all(2, &[b"orphan", b"and another"]).unwrap();
    drop(pages);
    fs::write(file(dir.path(), 1), b"not touched, so not found").unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    let mut asked = Vec::new();
    let live = |at: ChunkAt, _: &[u8]| {
        asked.push(at);
        at == kept[0] || at == kept[2]
    };
    let last = *pages.numbers().unwrap().last().unwrap();
    let taken = pages.reclaim(last, None, live).unwrap();
    assert_eq!(taken.orphans, [orphans[1], orphans[0]]);
    assert_eq!(asked, [orphans[1], orphans[0], kept[2]]);
    assert_eq!(
        contents(&pages, 2),
        [&b"one"[..], b"orphan inside", b"three"]
    );
    assert!(pages.read(orphans[0]).is_err());
    assert_eq!(pages.append(2, b"next").unwrap().offset, orphans[0].offset);
    let none = pages.reclaim(2, None, |_, _| true).unwrap();
    assert_eq!(none, Reclaimed::default());
    let all = pages.reclaim(2, None, |_, _| false).unwrap();
    assert_eq!(all.orphans.len(), 4);
    assert_eq!(pages.size(2).unwrap(), 0);
}

#[test]
fn a_page_torn_by_hand_is_damaged_and_never_cut_or_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    let places = pages.append_all(1, &[b"first", b"second"]).unwrap();
    let end = pages.size(1).unwrap();
    drop(pages);
    let whole = fs::read(file(dir.path(), 1)).unwrap();
    for len in 0..whole.len() {
        fs::write(file(dir.path(), 1), &whole[..len]).unwrap();
        let pages = Pages::open(dir.path()).unwrap();
        let refused = pages.reclaim(1, Some(end), |_, _| true);
        assert!(matches!(refused, Err(PagesError::Damaged { .. })), "{len}");
        // Nothing is appended, not even where a chunk ended.
        assert!(pages.append(1, b"third").is_err(), "{len}");
        if len >= places[1].offset as usize {
            assert_eq!(pages.read(places[0]).unwrap(), b"first");
        }
        assert!(pages.read(places[1]).is_err());
        let found = inspect(dir.path(), 1, &places).unwrap();
        assert!(found.lost.contains(&places[1]), "{len}");
    }
}

#[test]
fn what_lies_behind_the_last_batch_is_cut_whatever_it_looks_like() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    let first = pages.append(1, b"first").unwrap();
    let end = pages.size(1).unwrap();
    pages.append(1, &[9; 2000]).unwrap();
    drop(pages);
    // A sector in the middle never reached the disk.
    let mut bytes = fs::read(file(dir.path(), 1)).unwrap();
    bytes[512..1024].fill(0);
    fs::write(file(dir.path(), 1), &bytes).unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    let refused = pages.reclaim(1, None, |_, _| true);
    assert!(matches!(refused, Err(PagesError::Damaged { .. })));
    assert!(pages.append(1, b"x").is_err(), "not behind damage");
    assert_eq!(fs::read(file(dir.path(), 1)).unwrap(), bytes);
    let cut = pages.reclaim(1, Some(end), |_, _| true).unwrap();
    assert_eq!(cut.unfinished, 2008);
    assert_eq!(pages.size(1).unwrap(), end);
    assert_eq!(pages.read(first).unwrap(), b"first");
}

#[test]
fn one_damaged_chunk_leaves_the_others_readable_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    let places = pages.append_all(3, &[b"one", b"two", b"three"]).unwrap();
    drop(pages);
    let mut bytes = fs::read(file(dir.path(), 3)).unwrap();
    bytes[places[1].offset as usize + 8] ^= 1;
    fs::write(file(dir.path(), 3), &bytes).unwrap();
    let found = inspect(dir.path(), 3, &places).unwrap();
    assert_eq!(found.lost, [places[1]]);
    let fault = found.fault.unwrap();
    assert_eq!((fault.offset, fault.unfinished), (places[1].offset, false));
    assert_eq!(numbers(dir.path()).unwrap(), [3]);
    let gone = inspect(
        dir.path(),
        4,
        &[ChunkAt {
            page: 4,
            ..places[0]
        }],
    )
    .unwrap();
    assert_eq!((gone.bytes, gone.lost.len()), (0, 1));
    let pages = Pages::open(dir.path()).unwrap();
    assert_eq!(pages.read(places[2]).unwrap(), b"three");
    let Err(PagesError::Damaged {
        file: named,
        offset,
        ..
    }) = pages.read(places[1])
    else {
        panic!("a damaged chunk was read");
    };
    assert_eq!((named, offset), (file(dir.path(), 3), places[1].offset));
}

#[test]
fn a_destroyed_page_is_gone_and_an_interrupted_destruction_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    pages.append(1, b"secret").unwrap();
    pages.append(2, b"other").unwrap();
    let witness = dir.path().join("witness");
    fs::hard_link(file(dir.path(), 1), &witness).unwrap();
    pages.destroy(1).unwrap();
    pages.destroy(1).unwrap();
    assert!(fs::read(&witness).unwrap().iter().all(|&byte| byte == 0));
    assert_eq!(pages.numbers().unwrap(), [2]);
    drop(pages);
    // The power went when half of the page was overwritten.
    fs::write(dir.path().join("secrets/rewriting"), "2 2 1\n").unwrap();
    fs::write(file(dir.path(), 2), [0; 3]).unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    assert_eq!(pages.numbers().unwrap(), []);
    assert_eq!(fs::read_dir(dir.path().join("secrets")).unwrap().count(), 0);
}

#[test]
fn a_million_secrets_cost_nothing_at_start_up() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    // 5,000 secrets of 48 bytes a page, in chunks of 500, as a register writes them.
    let chunk = vec![7; 500 * 48];
    for page in 1..=200 {
        pages.append_all(page, &[&chunk[..]; 10]).unwrap();
    }
    drop(pages);
    let begun = std::time::Instant::now();
    let pages = Pages::open(dir.path()).unwrap();
    let last = *pages.numbers().unwrap().last().unwrap();
    assert_eq!(
        pages.reclaim(last, None, |_, _| true).unwrap(),
        Reclaimed::default()
    );
    // Generous for a busy machine: reading all 200 pages takes longer on an idle one.
    assert!(begun.elapsed() < std::time::Duration::from_millis(200));
}
