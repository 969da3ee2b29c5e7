//! Power cuts in the middle of a round of several groups, which no test can time from outside.

use sha2::Sha256;

use super::*;
use crate::embedded::Embedded;
use crate::format::{GroupHeader, TRAILER, push_group_header, segment_header};
use crate::frame::{Kind, finish_trailer, push_frame};
use crate::fs::Real;
use crate::{Batch, Key, Store};

/// A segment under construction.
struct Draft {
    bytes: Vec<u8>,
    sequence: u64,
    synced: usize,
    groups: Vec<usize>,
}

impl Draft {
    fn new() -> Draft {
        let bytes = segment_header(1).to_vec();
        Draft {
            synced: bytes.len(),
            bytes,
            sequence: 0,
            groups: Vec::new(),
        }
    }

    /// What was written so far is synced, and a round begins.
    fn sync(&mut self) {
        self.synced = self.bytes.len();
    }

    fn group(&mut self, shard: &str) {
        self.groups.push(self.bytes.len());
        self.sequence += 1;
        let (mut frames, mut trailer) = (Vec::new(), Sha256::default());
        let key = format!("{shard}\0t\0{}", self.sequence);
        push_frame(&mut frames, &mut trailer, Kind::Put, key.as_bytes(), b"v");
        let mut header = GroupHeader {
            len: 0,
            frames: 1,
            offset: self.bytes.len() as u32,
            synced: self.synced as u32,
            sequence: self.sequence,
            head: 1,
            shard_len: shard.len() as u8,
        };
        header.len = (header.bytes() + frames.len() + TRAILER) as u32;
        let start = self.bytes.len();
        push_group_header(&mut self.bytes, &header, shard);
        let trailer = finish_trailer(trailer, &self.bytes[start..]);
        self.bytes.extend_from_slice(&frames);
        self.bytes.extend_from_slice(&trailer);
    }

    /// Opens a store of this segment; the sequence of its next group, and where it was cut.
    fn open(&self) -> Result<(u64, Option<u64>), OpenError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(segment::folder(dir.path())).unwrap();
        std::fs::write(segment::path(dir.path(), 1), &self.bytes).unwrap();
        let recovered = recover(&Real, dir.path(), &Options::default())?;
        let cut = recovered.opened.cut.map(|cut| cut.offset);
        Ok((recovered.end.sequence, cut))
    }
}

/// One durable group, then a round of three.
fn round_of_three() -> Draft {
    let mut draft = Draft::new();
    draft.group("a");
    draft.sync();
    ["b", "c", "d"].iter().for_each(|shard| draft.group(shard));
    draft
}

#[test]
fn a_whole_round_is_kept() {
    assert_eq!(round_of_three().open().unwrap(), (5, None));
}

#[test]
fn a_round_is_cut_at_its_first_torn_group_though_later_ones_are_whole() {
    for torn in 1..=3 {
        let start = round_of_three().groups[torn];
        for lost in [0..4, 0..60, 50..60] {
            let mut draft = round_of_three();
            draft.bytes[start + lost.start..start + lost.end].fill(0);
            let kept = torn as u64 + 1;
            assert_eq!(draft.open().unwrap(), (kept, Some(start as u64)));
        }
    }
}

#[test]
fn a_group_that_a_later_round_saw_durable_is_damaged_not_cut() {
    for broken in 0..=3 {
        let mut draft = round_of_three();
        draft.sync();
        draft.group("e");
        let start = draft.groups[broken];
        for lost in [0..4, 0..60, 50..60] {
            let mut bytes = draft.bytes.clone();
            bytes[start + lost.start..start + lost.end].fill(0);
            let damaged = Draft {
                bytes,
                groups: Vec::new(),
                ..draft
            };
            match damaged.open() {
                Err(OpenError::Damaged { offset, .. }) => assert!(offset >= start as u64),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn groups_that_are_missing_or_out_of_order_are_damage() {
    let mut draft = Draft::new();
    draft.group("a");
    draft.sequence += 1;
    draft.group("b");
    assert!(matches!(draft.open(), Err(OpenError::Damaged { .. })));
    let mut draft = Draft::new();
    draft.group("a");
    draft.group("a");
    assert!(matches!(draft.open(), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_segment_that_was_only_begun_is_begun_again() {
    for len in 0..16 {
        let mut draft = Draft::new();
        draft.bytes.truncate(len);
        let cut = (len > 0).then_some(0);
        assert_eq!(draft.open().unwrap(), (1, cut));
    }
    let mut draft = Draft::new();
    draft.bytes.fill(0);
    assert_eq!(draft.open().unwrap(), (1, Some(0)));
    let mut draft = round_of_three();
    draft.bytes[3] ^= 1;
    assert!(matches!(
        draft.open(),
        Err(OpenError::Damaged { offset: 0, .. })
    ));
}

#[test]
fn damage_before_the_place_that_the_index_saw_durable_is_never_cut() {
    for applied in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::default();
        let recovered = recover(&Real, dir.path(), &options).unwrap();
        let mut draft = Draft::new();
        draft.group("a");
        if applied {
            // The index heard of the group.
            let place = Place {
                segment: 1,
                offset: draft.bytes.len() as u32,
                sequence: 2,
            };
            let layer = Layer {
                end: place,
                ..Layer::default()
            };
            let heard = recovered.index.checkpoint(&layer, &BTreeMap::new());
            heard.unwrap();
        }
        drop(recovered);
        let last = draft.bytes.len() - 1;
        for torn in [&draft.bytes[..last], &draft.bytes[..40]] {
            std::fs::write(segment::path(dir.path(), 1), torn).unwrap();
            match recover(&Real, dir.path(), &options) {
                Ok(recovered) => assert!(!applied && recovered.opened.cut.is_some()),
                Err(error) => {
                    let damaged = matches!(error, OpenError::Damaged { .. });
                    assert!(applied && damaged, "{error}");
                }
            }
        }
    }
}

#[test]
fn a_rebuild_notes_no_progress_past_an_erasure_that_it_has_not_finished() {
    for erases in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let key = |rest: u32| Key::new("s", "t", &rest.to_be_bytes()).unwrap();
        let store = Embedded::open(dir.path(), Options::default()).unwrap();
        let mut batch = Batch::new("s", None);
        batch.put_body(key(u32::MAX), b"body".to_vec());
        store.commit(&batch).unwrap();
        let mut batch = Batch::new("s", None);
        if erases {
            batch.delete(key(u32::MAX));
        }
        // More than the replay gathers before it brings it into the index.
        for n in 0..120_000 {
            batch.put(key(n), Vec::new());
        }
        store.commit(&batch).unwrap();
        drop(store);

        let options = Options {
            checkpoint_bytes: 1,
            ..Options::default()
        };
        let index = Index::open(&dir.path().join("second"), 1 << 20).unwrap();
        let order = Order::read(dir.path()).unwrap();
        let mut replay = Replay::new(&Real, dir.path(), &options, &index, None, START).unwrap();
        replay.segment(&order, &order.files[0]).unwrap();
        // As if the process ended here.
        drop(replay);
        assert_eq!(index.marker().unwrap().is_none(), erases);
    }
}
