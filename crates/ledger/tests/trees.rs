//! Trees, tiles and proofs against the recursive definitions of RFC 6962, at many sizes.

use ledger::frontier::Frontier;
use ledger::hash::{Hash, leaf_hash, node_hash, root_of};
use ledger::proof::{self, ProofError, ProveError};
use ledger::tile::{
    ReadError, TILE_WIDTH, TileError, TileReader, TileWrite, TreeEdge, plan_append,
};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

type Tiles = BTreeMap<(u8, u64), Vec<u8>>;

fn leaves(count: usize) -> Vec<Hash> {
    (0..count as u64)
        .map(|number| leaf_hash(&number.to_be_bytes()))
        .collect()
}

/// Tiles by the definition of C2SP tlog-tiles: hash i of tile n at level l is
/// MTH(D[(n * 256 + i) * 256^l : (n * 256 + i + 1) * 256^l]).
fn naive_tiles(leaves: &[Hash]) -> Tiles {
    let mut tiles = Tiles::new();
    let (mut level, mut span) = (0, 1);
    while span <= leaves.len() {
        let hashes: Vec<Hash> = leaves.chunks_exact(span).map(root_of).collect();
        for (index, tile) in (0..).zip(hashes.chunks(TILE_WIDTH)) {
            tiles.insert((level, index), tile.concat());
        }
        level += 1;
        span *= TILE_WIDTH;
    }
    tiles
}

fn store(tiles: &mut Tiles, writes: Vec<TileWrite>) {
    for write in writes {
        assert_eq!(write.bytes.len(), usize::from(write.width) * 32);
        tiles.insert((write.level, write.index), write.bytes);
    }
}

fn split(size: usize) -> usize {
    size.next_power_of_two() / 2
}

/// PATH of RFC 6962 section 2.1.1.
fn naive_inclusion(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, sibling) = if index < left.len() {
        (naive_inclusion(index, left), right)
    } else {
        (naive_inclusion(index - left.len(), right), left)
    };
    path.push(root_of(sibling));
    path
}

/// SUBPROOF of RFC 6962 section 2.1.2.
fn naive_consistency(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole { vec![] } else { vec![root_of(leaves)] };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, sibling) = if old <= left.len() {
        (naive_consistency(old, left, whole), right)
    } else {
        (naive_consistency(old - left.len(), right, false), left)
    };
    path.push(root_of(sibling));
    path
}

/// Every way to spoil a proof by one bit, one hash more or one hash fewer.
fn spoiled(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = vec![[proof, &[[0; 32]]].concat()];
    for at in 0..proof.len() {
        let mut flipped = proof.to_vec();
        flipped[at][at % 32] ^= 1 << (at % 8);
        all.push(flipped);
        all.push([&proof[..at], &proof[at + 1..]].concat());
    }
    all
}

#[test]
fn tiles_planned_one_leaf_at_a_time_are_the_tiles_by_definition() {
    let leaves = leaves(600);
    let (mut edge, mut tiles) = (TreeEdge::new(), Tiles::new());
    for size in 0..=leaves.len() {
        assert_eq!(tiles, naive_tiles(&leaves[..size]), "size {size}");
        assert_eq!(TreeEdge::load(&tiles, size as u64).unwrap(), edge);
        assert_eq!(edge.size(), size as u64);
        assert_eq!(edge.frontier().root(), root_of(&leaves[..size]));
        let Some(leaf) = leaves.get(size) else { break };
        let (next, writes) = plan_append(&edge, &[*leaf]);
        // One leaf touches one tile, and one more wherever a tile became full.
        let full = writes.iter().filter(|write| write.width == 256).count();
        assert_eq!(writes.len(), 1 + full);
        store(&mut tiles, writes);
        edge = next;
    }
}

#[test]
fn tiles_planned_at_once_are_the_tiles_by_definition() {
    let leaves = leaves(600);
    for size in 0..=leaves.len() {
        let (edge, writes) = plan_append(&TreeEdge::new(), &leaves[..size]);
        let mut tiles = Tiles::new();
        store(&mut tiles, writes.clone());
        assert_eq!(tiles.len(), writes.len(), "no tile is planned twice");
        assert_eq!(tiles, naive_tiles(&leaves[..size]), "size {size}");
        assert_eq!(edge.frontier().root(), root_of(&leaves[..size]));
    }
}

#[test]
fn an_append_of_nothing_writes_nothing() {
    let (edge, _) = plan_append(&TreeEdge::new(), &leaves(300));
    let (same, writes) = plan_append(&edge, &[]);
    assert_eq!(same, edge);
    assert!(writes.is_empty());
}

#[test]
fn an_edge_of_an_older_size_loads_from_wider_tiles() {
    let leaves = leaves(600);
    let tiles = naive_tiles(&leaves);
    for size in 0..=leaves.len() {
        let edge = TreeEdge::load(&tiles, size as u64).unwrap();
        assert_eq!(edge.frontier().root(), root_of(&leaves[..size]));
    }
}

#[test]
fn a_missing_cut_or_ragged_tile_is_said_so() {
    let whole = naive_tiles(&leaves(300));
    let check = |tiles: &Tiles| TreeEdge::load(tiles, 300).unwrap_err();
    let mut tiles = whole.clone();
    tiles.remove(&(0, 1));
    let missing = check(&tiles);
    assert!(matches!(missing, TileError::Missing { level: 0, index: 1 }));
    for length in [0, 43 * 32, 44 * 32 - 1, 44 * 32 + 1, 257 * 32] {
        tiles.insert((0, 1), vec![0; length]);
        assert!(matches!(check(&tiles), TileError::Short { .. }), "{length}");
        let proof = proof::inclusion(&tiles, 299, 300);
        assert!(matches!(
            proof,
            Err(ProveError::Tile(TileError::Short { .. }))
        ));
    }
    assert!(matches!(
        TreeEdge::load(&whole, u64::MAX),
        Err(TileError::Size(_))
    ));
}

/// Counts reads, or fails them all.
struct Watched<'a> {
    tiles: &'a Tiles,
    read: RefCell<Vec<(u8, u64)>>,
    broken: bool,
}

impl TileReader for Watched<'_> {
    fn tile(&self, level: u8, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        if self.broken {
            return Err(ReadError::new("disk on fire"));
        }
        self.read.borrow_mut().push((level, index));
        self.tiles.tile(level, index)
    }
}

#[test]
fn a_proof_reads_few_tiles_and_each_once() {
    let leaves = leaves(70_000);
    let tiles = naive_tiles(&leaves);
    let root = root_of(&leaves);
    for index in [0, 255, 256, 65_535, 65_536, 69_888, 69_999] {
        let watched = Watched {
            tiles: &tiles,
            read: RefCell::default(),
            broken: false,
        };
        let proof = proof::inclusion(&watched, index, 70_000).unwrap();
        proof::verify_inclusion(&leaves[index as usize], index, 70_000, &proof, &root).unwrap();
        let read = watched.read.borrow();
        // Along the leaf's side and along the right edge, one tile a level.
        assert!(read.len() <= 2 * 3, "{read:?}");
        assert_eq!(read.iter().collect::<BTreeSet<_>>().len(), read.len());
    }
}

#[test]
fn a_failing_storage_is_passed_on() {
    let watched = Watched {
        tiles: &Tiles::new(),
        read: RefCell::default(),
        broken: true,
    };
    let error = proof::inclusion(&watched, 0, 2).unwrap_err();
    let ProveError::Tile(TileError::Read { source, .. }) = error else {
        panic!("another error: {error}");
    };
    let cause = std::error::Error::source(&source).unwrap();
    assert_eq!(cause.to_string(), "disk on fire");
}

#[test]
fn every_proof_in_small_trees_is_the_recursive_one_and_no_spoiled_one_passes() {
    let leaves = leaves(40);
    let tiles = naive_tiles(&leaves);
    for new in 1..=leaves.len() {
        let root = root_of(&leaves[..new]);
        for at in 0..new {
            let (index, size) = (at as u64, new as u64);
            let proof = proof::inclusion(&tiles, index, size).unwrap();
            assert_eq!(proof, naive_inclusion(at, &leaves[..new]));
            let check = |index, size, leaf, proof: &[Hash]| {
                proof::verify_inclusion(leaf, index, size, proof, &root)
            };
            assert_eq!(check(index, size, &leaves[at], &proof), Ok(()));
            for bad in spoiled(&proof) {
                assert!(check(index, size, &leaves[at], &bad).is_err());
            }
            for other in (0..new).filter(|other| *other != at) {
                assert!(check(other as u64, size, &leaves[at], &proof).is_err());
                assert!(check(index, size, &leaves[other], &proof).is_err());
            }
        }
        for old in 1..=new {
            let proof = proof::consistency(&tiles, old as u64, new as u64).unwrap();
            assert_eq!(proof, naive_consistency(old, &leaves[..new], true));
            let old_root = root_of(&leaves[..old]);
            let check = |old: usize, old_root: &Hash, new_root: &Hash, proof: &[Hash]| {
                proof::verify_consistency(old as u64, old_root, new as u64, new_root, proof)
            };
            assert_eq!(check(old, &old_root, &root, &proof), Ok(()));
            for bad in spoiled(&proof) {
                assert!(check(old, &old_root, &root, &bad).is_err(), "{old} {new}");
            }
            for other in (0..=new).filter(|other| *other != old) {
                assert!(check(other, &old_root, &root, &proof).is_err());
                let other_root = root_of(&leaves[..other]);
                assert!(check(old, &other_root, &root, &proof).is_err());
            }
            assert!(check(old, &old_root, &[0; 32], &proof).is_err());
        }
    }
}

#[test]
fn the_empty_tree_begins_every_tree_with_an_empty_proof() {
    let leaves = leaves(3);
    let tiles = naive_tiles(&leaves);
    let (empty, root) = (root_of(&[]), root_of(&leaves));
    assert_eq!(
        proof::consistency(&tiles, 0, 3).unwrap(),
        Vec::<Hash>::new()
    );
    assert_eq!(proof::verify_consistency(0, &empty, 3, &root, &[]), Ok(()));
    assert_eq!(proof::verify_consistency(0, &empty, 0, &empty, &[]), Ok(()));
    for (old_root, new, new_root, proof) in [
        (&root, 3, &root, &[][..]),
        (&empty, 0, &root, &[]),
        (&empty, 3, &root, &[root]),
    ] {
        assert!(proof::verify_consistency(0, old_root, new, new_root, proof).is_err());
    }
}

#[test]
fn places_outside_the_tree_are_refused() {
    let tiles = naive_tiles(&leaves(3));
    for (index, size) in [(0, 0), (3, 3), (u64::MAX, u64::MAX), (0, 1 << 63)] {
        let refused = proof::inclusion(&tiles, index, size);
        assert!(matches!(refused, Err(ProveError::NoSuchLeaf { .. })));
        let refused = proof::verify_inclusion(&[0; 32], index, size, &[], &[0; 32]);
        assert_eq!(refused, Err(ProofError::OutOfRange));
    }
    for (old, new) in [(3, 2), (1, 1 << 63), (u64::MAX, u64::MAX)] {
        let refused = proof::consistency(&tiles, old, new);
        assert!(matches!(refused, Err(ProveError::Backward { .. })));
        let refused = proof::verify_consistency(old, &[0; 32], new, &[0; 32], &[]);
        assert_eq!(refused, Err(ProofError::OutOfRange));
    }
    // A tree that is far larger than what is stored.
    for size in [4, 257, 1 << 40, (1 << 63) - 1] {
        let refused = proof::inclusion(&tiles, 0, size);
        assert!(matches!(refused, Err(ProveError::Tile(_))), "{size}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn appends_of_any_lengths_give_the_tiles_by_definition(
        lengths in prop::collection::vec(0usize..700, 1..6),
    ) {
        let leaves = leaves(lengths.iter().sum());
        let (mut edge, mut tiles, mut frontier) = (TreeEdge::new(), Tiles::new(), Frontier::new());
        let mut rest = &leaves[..];
        for length in lengths {
            let (batch, after) = rest.split_at(length);
            let (next, writes) = plan_append(&edge, batch);
            for write in &writes {
                let span = TILE_WIDTH as u64 * 256u64.pow(u32::from(write.level));
                prop_assert!((write.index + 1) * span > edge.size(), "an old full tile is rewritten");
            }
            store(&mut tiles, writes);
            batch.iter().for_each(|leaf| frontier.append(*leaf));
            edge = next;
            rest = after;
        }
        prop_assert_eq!(&tiles, &naive_tiles(&leaves));
        prop_assert_eq!(edge.frontier(), &frontier);
        prop_assert_eq!(TreeEdge::load(&tiles, leaves.len() as u64).unwrap(), edge);
    }

    #[test]
    fn proofs_from_tiles_are_the_recursive_ones(
        stored in 1usize..2000, new in 1usize..2000, old in 1usize..2000, bit in 0usize..256,
    ) {
        let new = new.min(stored);
        let old = old.min(new);
        let leaves = leaves(stored);
        let tiles = naive_tiles(&leaves);
        let (root, old_root) = (root_of(&leaves[..new]), root_of(&leaves[..old]));
        let (index, size, at) = (old as u64 - 1, new as u64, old - 1);

        let proof = proof::inclusion(&tiles, index, size).unwrap();
        prop_assert_eq!(&proof, &naive_inclusion(at, &leaves[..new]));
        proof::verify_inclusion(&leaves[at], index, size, &proof, &root).unwrap();
        let mut leaf = leaves[at];
        leaf[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(proof::verify_inclusion(&leaf, index, size, &proof, &root).is_err());
        for bad in spoiled(&proof) {
            prop_assert!(proof::verify_inclusion(&leaves[at], index, size, &bad, &root).is_err());
        }

        let proof = proof::consistency(&tiles, old as u64, size).unwrap();
        prop_assert_eq!(&proof, &naive_consistency(old, &leaves[..new], true));
        proof::verify_consistency(old as u64, &old_root, size, &root, &proof).unwrap();
        for bad in spoiled(&proof) {
            let refused = proof::verify_consistency(old as u64, &old_root, size, &root, &bad);
            prop_assert!(refused.is_err());
        }
    }

    #[test]
    fn verifiers_survive_any_numbers(
        index: u64, size: u64, hashes in prop::collection::vec(any::<Hash>(), 0..70), root: Hash,
    ) {
        // A random root is never reached; what matters is that nothing overflows or hangs.
        prop_assert!(proof::verify_inclusion(&node_hash(&root, &root), index, size, &hashes, &root).is_err());
        let refused = proof::verify_consistency(index, &root, size, &[0; 32], &hashes);
        prop_assert!(refused.is_err() || index == 0);
    }
}
