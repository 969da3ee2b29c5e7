//! A reseal says that the same content is sealed anew. An owner who signs one that says something
//! else, as well as its own keys can, is found: by `verify` wherever the ledger is held when the entry
//! names other content, and by whoever opens it, its owner's node first, when only the cells differ.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use ledger::hash::leaf_hash;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use record::authority::{Level, Role};
use record::entry::{Entry, Operation, RecordEntry};
use record::id::Origin;
use record::schema::Catalogue;
use registry::verify::{VerifyFinding, VerifyReport, verify};
use registry::{Registry, keys::Opener};
use seal::body::{Body, CellContext, SealedBody, open_all, reseal_body};
use seal::derive::FieldKeys;
use seal::page::open_chunk;
use seal::secret::RecordSecret;
use store::pages::Pages;
use store::{Batch, Store};
use tests::realm::forge::{self, keystore};
use tests::realm::{NOW, REALM, Site, kind, origin, replicate, rows};

struct World {
    _base: tempfile::TempDir,
    parent: Site,
    /// The owner's directory; its node does not run.
    owner: PathBuf,
}

fn shard() -> Origin {
    origin("jinfu", "person")
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let parent = Site::root(base.path(), REALM, "shuangfu", NOW);
        let owner = Site::join(&parent, base.path(), "jinfu", Level::Community, NOW);
        let clerk = owner.operator(Role::Clerk, None, NOW);
        owner.import(&clerk, "person", &rows("person", 7, 4, 1), NOW);
        replicate(&owner, &parent, NOW);
        let owner = owner.close();
        assert!(verify(&owner).unwrap().ok);
        Self {
            _base: base,
            parent,
            owner,
        }
    }

    /// The entries of the shard's records, with their bodies and indices.
    fn records(&self) -> Vec<(u64, RecordEntry, Vec<u8>)> {
        let store = forge::open_store(&self.owner);
        let leaves = forge::leaves(&store, &shard()).into_iter().zip(0..);
        leaves
            .filter_map(|((entry, body), at)| match entry {
                Entry::Record(entry) => Some((at, entry, body?)),
                _ => None,
            })
            .collect()
    }
}

/// The secret of a record, from its owner's files.
fn secret(dir: &Path, entry: &RecordEntry) -> RecordSecret {
    let keys = keystore(dir);
    let pages = Pages::open(dir).unwrap();
    let numbers = pages.numbers().unwrap().into_iter();
    let all = numbers.flat_map(|page| {
        let key = &keys.pages[&u64::from(page)];
        let chunks = pages.chunks(page).unwrap();
        let rows = chunks
            .iter()
            .flat_map(|(_, chunk)| open_chunk(key, page.into(), chunk).unwrap());
        rows.collect::<Vec<_>>()
    });
    let mut all = all.filter(|(record, _)| *record == entry.record);
    all.next().unwrap().1
}

/// The first record's body anew, which opens to what the second record's does.
fn other_values(world: &World) -> SealedBody {
    let records = world.records();
    let [(_, first, _), (_, second, theirs), ..] = records.as_slice() else {
        panic!("there are records");
    };
    let catalogue = Catalogue::builtin();
    let schema = catalogue.schema(&kind("person")).unwrap();
    let keys = keystore(&world.owner);
    let epoch = &keys.epochs[&(shard(), first.epoch)];
    let fields = FieldKeys::derive(epoch, &shard(), first.epoch, schema);
    let shard = shard();
    let opened = open_all(
        &Body::decode(theirs).unwrap(),
        second,
        schema,
        &CellContext::of(&shard, second),
        &fields,
        &secret(&world.owner, second),
    )
    .unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let context = CellContext::of(&shard, first);
    let own = secret(&world.owner, first);
    let sealed = reseal_body(&opened, schema, &context, &fields, &own, &mut rng).unwrap();
    assert_ne!(sealed.content, first.content);
    sealed
}

/// Appends a reseal of the first record, signed with the owner's keys; where it lies.
fn forged(world: &World, body: &SealedBody, change: impl FnOnce(&mut RecordEntry)) -> u64 {
    let (at, first, _) = world.records().swap_remove(0);
    let keys = keystore(&world.owner);
    let owner = keys.sign.signing_key();
    let store = forge::open_store(&world.owner);
    let size = forge::head(&store, &shard()).size;
    let authority = forge::head(&store, &origin("jinfu", "authority"));
    drop(store);
    let mut entry = RecordEntry {
        operation: Operation::Reseal,
        previous: Some(leaf_hash(&Entry::Record(first.clone()).encode())),
        body: body.hash,
        ..first.clone()
    };
    change(&mut entry);
    let Entry::Act(act) = forge::act("jinfu", (authority.size, authority.root), NOW) else {
        panic!("an act");
    };
    let same = entry.content == first.content;
    let entry = (Entry::Record(entry), body.bytes.clone());
    forge::append(&world.owner, &shard(), &owner, entry, (act, &owner));
    if same {
        // An honest one destroys what it replaces.
        let store = forge::open_store(&world.owner);
        let mut batch = Batch::new(shard().as_str(), None);
        batch.delete(forge::key(&shard(), registry::table::BODY, at));
        store.commit(&batch).unwrap();
    }
    size
}

#[track_caller]
fn does_not_follow(report: &VerifyReport, at: u64) {
    let found = |f: &VerifyFinding| {
        f.index == Some(at)
            && f.origin.as_deref() == Some(shard().as_str())
            && f.what.contains("does not follow the version")
    };
    assert!(report.findings.iter().any(found), "{:#?}", report.findings);
}

/// What the parent finds of what it was given.
fn above(world: &World) -> VerifyReport {
    let owner = Site::open(&world.owner, NOW);
    replicate(&owner, &world.parent, NOW);
    verify(&world.parent.dir).unwrap()
}

#[test]
fn a_reseal_that_names_other_content_is_found_at_its_owner_and_above() {
    let world = World::new();
    let body = other_values(&world);
    let at = forged(&world, &body, |entry| entry.content = body.content);
    does_not_follow(&verify(&world.owner).unwrap(), at);
    does_not_follow(&above(&world), at);
}

#[test]
fn a_reseal_of_a_version_that_there_is_not_is_found_and_its_owners_node_does_not_open() {
    let world = World::new();
    let body = other_values(&world);
    let at = forged(&world, &body, |entry| entry.version = 2);
    does_not_follow(&verify(&world.owner).unwrap(), at);
    assert!(refusal(&world).contains(&format!("`{}` {at}: the cell", shard())));
}

#[test]
fn a_reseal_whose_cells_open_to_other_values_is_named_by_whoever_has_the_keys() {
    let world = World::new();
    let body = other_values(&world);
    let at = forged(&world, &body, |_| {});
    // Without keys nobody can tell: the cells are sealed.
    assert!(verify(&world.owner).unwrap().ok);
    let why = refusal(&world);
    let named = format!("`{}` {at}: the opened values are not those", shard());
    assert!(why.contains(&named), "{why}");
}

/// Why the owner's node does not open.
fn refusal(world: &World) -> String {
    let opened = Registry::open(&world.owner, &Opener::File, NOW);
    opened.err().unwrap().to_string()
}
