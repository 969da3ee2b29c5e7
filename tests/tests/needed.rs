//! Which authority ledgers go down to whom (docs/decisions/0020): those of nodes with others under
//! them to everybody, those of leaves to whoever deals with them, over any number of levels.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use record::authority::{History, Level, Role};
use record::id::GrantId;
use registry::grant::GrantRequest;
use registry::heads::Looked;
use registry::node::Concerns;
use registry::status::neighbours::{PeerSync, Way};
use registry::transfer::TransferState;
use registry::transfer::offer::TransferRequest;
use tests::moved::{clean, clerk, fields};
use tests::realm::{
    NOW, REALM, Row, Site, division, kind, origin, purpose, replicate, rows, settle,
};

/// A district; a town with two communities and another with one; a department of the district.
struct World {
    base: tempfile::TempDir,
    district: Site,
    shuangfu: Site,
    degan: Site,
    jinfu: Site,
    fucheng: Site,
    dazhong: Site,
    minzheng: Site,
    persons: Vec<Row>,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, "jiangjin", NOW);
        let shuangfu = Site::join(&district, at, "shuangfu", Level::Town, NOW);
        let degan = Site::join(&district, at, "degan", Level::Town, NOW);
        let jinfu = Site::join(&shuangfu, at, "jinfu", Level::Community, NOW);
        let fucheng = Site::join(&shuangfu, at, "fucheng", Level::Community, NOW);
        let dazhong = Site::join(&degan, at, "dazhong", Level::Community, NOW);
        let minzheng = Site::join(&district, at, "minzheng", Level::Department, NOW);
        for site in [&jinfu, &dazhong] {
            site.operator(Role::Clerk, None, NOW);
        }
        let persons = rows("person", 7, 4, 1);
        jinfu.import(&clerk(&jinfu), "person", &persons, NOW);
        let one = rows("person", 9, 1, 2);
        dazhong.import(&clerk(&dazhong), "person", &one, NOW);
        let world = Self {
            base,
            district,
            shuangfu,
            degan,
            jinfu,
            fucheng,
            dazhong,
            minzheng,
            persons,
        };
        world.settle();
        world
    }

    fn settle(&self) {
        let links = [
            (&self.jinfu, &self.shuangfu),
            (&self.fucheng, &self.shuangfu),
            (&self.dazhong, &self.degan),
            (&self.shuangfu, &self.district),
            (&self.degan, &self.district),
            (&self.minzheng, &self.district),
        ];
        settle(&links, NOW);
    }

    /// Jinfu offers a person to dazhong.
    fn offer(&self) -> GrantId {
        let (record, _, _) = fields(&self.jinfu, &self.persons[0], NOW).unwrap();
        let request = TransferRequest {
            kind: kind("person"),
            record,
            to: division("dazhong"),
            basis: "迁移登记 2026-118".into(),
            days: 30,
        };
        let clerk = clerk(&self.jinfu);
        self.jinfu
            .registry
            .offer_transfer(&clerk, &request, NOW)
            .unwrap()
    }
}

/// Whose authority ledgers a node holds.
fn authority_at(site: &Site) -> BTreeSet<String> {
    let ledgers = site.registry.status().unwrap().ledgers.into_iter();
    let of = ledgers.filter(|line| line.size > 0);
    of.filter(|line| line.origin.ledger().as_str() == "authority")
        .map(|line| line.origin.division().to_string())
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What a running session would offer: the names of the ledgers, in order.
fn offered(at: &Site, to: &Site, looked: &mut Looked) -> Vec<String> {
    let offers = at
        .registry
        .offers_moved(&to.charter(), looked, &BTreeSet::new());
    let offers = offers.unwrap().into_iter();
    offers.map(|(origin, _)| origin.to_string()).collect()
}

#[test]
fn a_leaf_is_not_given_the_authority_of_leaves_with_which_it_does_not_deal() {
    let world = World::new();
    let above = ["jiangjin", "shuangfu", "degan"];
    for (site, own) in [
        (&world.jinfu, "jinfu"),
        (&world.fucheng, "fucheng"),
        (&world.dazhong, "dazhong"),
        (&world.minzheng, "minzheng"),
    ] {
        let mut wanted = set(&above);
        wanted.insert(own.into());
        assert_eq!(authority_at(site), wanted, "{own}");
    }
    assert_eq!(
        authority_at(&world.shuangfu),
        set(&["jiangjin", "shuangfu", "degan", "jinfu", "fucheng"])
    );
    // What the parent says that it gives is what it offers.
    let sync = world.shuangfu.registry.sync_status(NOW).unwrap();
    let jinfu = |peer: &&PeerSync| peer.peer == "jinfu";
    let ledgers = sync.peers.iter().find(jinfu).unwrap().ledgers.iter();
    let given = ledgers.filter(|ledger| ledger.way == Way::To);
    let given = given.map(|ledger| ledger.origin.division().to_string());
    assert_eq!(given.collect::<BTreeSet<_>>(), set(&above));
    let dirs = [world.jinfu.close(), world.fucheng.close()];
    for dir in dirs {
        clean(&dir, NOW);
    }
}

#[test]
fn what_one_child_sends_up_wakes_no_session_with_another() {
    let world = World::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = told.clone();
    let town = &world.shuangfu.registry;
    town.on_change(Box::new(move |concerns| {
        listener.lock().unwrap().push(concerns)
    }));
    let more = rows("person", 11, 3, 3);
    world
        .jinfu
        .import(&clerk(&world.jinfu), "person", &more, NOW);
    replicate(&world.jinfu, &world.shuangfu, NOW);
    let concerned = std::mem::take(&mut *told.lock().unwrap());
    assert!(!concerned.is_empty());
    assert!(
        concerned.iter().all(|c| *c == Concerns::Above),
        "{concerned:?}"
    );
    world.offer();
    replicate(&world.jinfu, &world.shuangfu, NOW);
    assert!(told.lock().unwrap().contains(&Concerns::All));
}

#[test]
fn a_transfer_over_three_levels_brings_each_side_the_others_authority_before_what_needs_it() {
    let world = World::new();
    let (mut to_degan, mut to_shuangfu) = (Looked::default(), Looked::default());
    offered(&world.district, &world.degan, &mut to_degan);
    offered(&world.district, &world.shuangfu, &mut to_shuangfu);
    assert!(offered(&world.district, &world.degan, &mut to_degan).is_empty());

    let id = world.offer();
    replicate(&world.jinfu, &world.shuangfu, NOW);
    replicate(&world.shuangfu, &world.district, NOW);
    replicate(&world.jinfu, &world.shuangfu, NOW);
    replicate(&world.shuangfu, &world.district, NOW);
    let down = offered(&world.district, &world.degan, &mut to_degan);
    let grant = origin("jinfu", "person").grant(&id).to_string();
    let at = |name: &str| down.iter().position(|n| n == name);
    let authority = at(origin("jinfu", "authority").as_str());
    assert!(authority.is_some() && authority < at(&grant), "{down:?}");
    // Of the new owner's ledger not one entry moved.
    let back = offered(&world.district, &world.shuangfu, &mut to_shuangfu);
    let new = origin("dazhong", "authority").to_string();
    assert!(back.contains(&new), "{back:?}");

    world.settle();
    let dazhong = &world.dazhong.registry;
    dazhong
        .accept_transfer(&clerk(&world.dazhong), &id, NOW)
        .unwrap();
    for _ in 0..3 {
        world.settle();
        for site in [&world.jinfu, &world.dazhong] {
            site.registry.tend_transfers(NOW).unwrap();
        }
    }
    let state = |site: &Site| site.registry.transfer(&id, NOW).unwrap().state;
    assert_eq!(state(&world.jinfu), TransferState::Closed);
    assert_eq!(state(&world.dazhong), TransferState::Closed);
    assert!(authority_at(&world.jinfu).contains("dazhong"));
    assert!(authority_at(&world.dazhong).contains("jinfu"));
    for site in [&world.fucheng, &world.minzheng] {
        let held = authority_at(site);
        let strangers = ["jinfu", "dazhong"].map(|name| held.contains(name));
        assert_eq!(strangers, [false, false]);
    }
    let dirs = [
        world.jinfu.close(),
        world.dazhong.close(),
        world.fucheng.close(),
    ];
    for dir in dirs {
        clean(&dir, NOW);
    }
}

#[test]
fn who_deals_with_whom_is_known_again_after_a_start_with_and_without_what_was_kept_at_rest() {
    let mut world = World::new();
    world.offer();
    world.settle();
    let wanted = origin("jinfu", "authority").to_string();
    let is_offered = |district: &Site, to: &Site| {
        let all = offered(district, to, &mut Looked::default());
        all.contains(&wanted)
    };
    for without in [false, true] {
        let dir = world.district.close();
        if without {
            std::fs::remove_dir_all(dir.join("working-index")).unwrap();
        }
        world.district = Site::open(&dir, NOW);
        assert!(is_offered(&world.district, &world.degan));
        assert!(!is_offered(&world.district, &world.minzheng));
    }
    drop(world.base);
}

#[test]
fn a_grant_to_a_department_is_made_by_its_charter_alone_and_brings_the_rest() {
    let world = World::new();
    let request = GrantRequest {
        kind: kind("person"),
        holder: division("minzheng"),
        fields: ["name", "phone"].map(str::to_owned).to_vec(),
        rows: BTreeMap::new(),
        purpose: purpose("welfare"),
        basis: "社会救助暂行办法 第九条".into(),
        assessment: "PIA-1".into(),
        history: History::default(),
        days: 30,
    };
    assert!(!authority_at(&world.jinfu).contains("minzheng"));
    let officer = &world.jinfu.officer;
    world.jinfu.registry.grant(officer, &request, NOW).unwrap();
    world.settle();
    assert!(authority_at(&world.jinfu).contains("minzheng"));
    assert!(authority_at(&world.minzheng).contains("jinfu"));
    assert!(!authority_at(&world.minzheng).contains("dazhong"));
    assert!(!authority_at(&world.fucheng).contains("minzheng"));
    let status = world.minzheng.registry.status().unwrap();
    let grant = |line: &&registry::status::LedgerLine| line.origin.grant_id().is_some();
    assert!(
        status
            .ledgers
            .iter()
            .filter(grant)
            .any(|line| line.size > 0)
    );
    clean(&world.minzheng.close(), NOW);
}
