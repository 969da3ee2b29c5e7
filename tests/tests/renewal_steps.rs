//! A rotation of a node's own keys, cut off after each of its steps, and what a parent refuses.
//!
//! The nodes are open in this process. What a crash leaves behind is put together from copies of
//! the directory: each step replaces one file or commits once.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use record::authority::{Charter, Level, Renewal, Role};
use record::id::{Hash, UnixMillis};
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::renewal::Ask;
use registry::status::LedgerLine;
use tests::copy_dir;
use tests::realm::daemon::verify;
use tests::realm::forge::keystore;
use tests::realm::{NOW, REALM, Site, origin, replicate, rows, settle};

struct World {
    base: tempfile::TempDir,
    district: Site,
    community: Site,
}

/// A community whose officers planned and approved that its keys change.
fn world(approved: bool) -> (World, Hash) {
    let base = tempfile::tempdir().unwrap();
    let district = Site::root(base.path(), REALM, "jiangjin", NOW);
    let community = Site::join(&district, base.path(), "jinfu", Level::Community, NOW);
    let second = community.enrol("fuhe", Role::SecurityOfficer, None, NOW);
    let request = PlanRequest::RotateNode {};
    let registry = &community.registry;
    let plan = registry.plan(&community.officer, &request, NOW).unwrap();
    let plan = plan_id(&plan.id).unwrap();
    if approved {
        registry.approve(&second, &plan, true, NOW).unwrap();
    }
    drop(second);
    replicate(&community, &district, NOW);
    let world = World {
        base,
        district,
        community,
    };
    (world, plan)
}

fn run(site: &Site, plan: &Hash) {
    site.registry.run_plan(&site.officer, plan, NOW).unwrap();
}

fn ask(site: &Site) -> Ask {
    site.registry.renewal_step(NOW).unwrap().unwrap()
}

/// A copy of a node's directory and of what it signed last.
fn copied(dir: &Path, name: &str) -> [PathBuf; 2] {
    let base = dir.parent().unwrap();
    let copies = [base.join(name), base.join(format!("{name}.was"))];
    copy_dir(dir, &copies[0]);
    copy_dir(&dir.with_extension("signed"), &copies[1]);
    copies
}

fn restore(dir: &Path, [node, signed]: &[PathBuf; 2]) {
    for (from, to) in [(node, dir), (signed, &dir.with_extension("signed"))] {
        std::fs::remove_dir_all(to).unwrap();
        copy_dir(from, to);
    }
}

/// The rotation ends as if nothing had happened, and the parent holds what follows.
fn ends_well(district: &Site, dir: &Path, charter: &Charter) {
    let community = Site::open(dir, NOW);
    let registry = &community.registry;
    assert_eq!(registry.chain().unwrap()[0], *charter);
    for _ in 0..2 {
        assert!(registry.renewal_step(NOW).unwrap().is_none());
    }
    assert!(registry.renewal().unwrap().is_none());
    let seen = replicate(&community, district, NOW);
    assert!(
        seen.refused.is_empty() && seen.rejected.is_empty(),
        "{seen:?}"
    );
    let held = district.registry.status().unwrap().ledgers;
    for line in registry.status().unwrap().ledgers {
        if line.own {
            let there = held.iter().find(|held| held.origin == line.origin);
            assert_eq!(there.unwrap().root, line.root, "{}", line.origin);
        }
    }
    community.close();
    let (content, report) = verify(dir);
    assert!(content, "{report}");
}

#[test]
fn a_rotation_cut_off_after_any_step_is_gone_on_with() {
    let (world, plan) = world(true);
    let World {
        base: _base,
        district,
        community,
    } = world;
    run(&community, &plan);
    replicate(&community, &district, NOW);
    let first = ask(&community);
    let dir = community.close();
    let made = copied(&dir, "made");

    // The keys were made, and nothing was asked: the same keys are asked for.
    let community = Site::open(&dir, NOW);
    let again = ask(&community);
    assert_eq!(first.request, again.request);
    // The charter was issued, and the answer lost: the same charter is given.
    let chain = district
        .registry
        .renew_charter(&first.request, NOW)
        .unwrap();
    let same = district
        .registry
        .renew_charter(&again.request, NOW)
        .unwrap();
    assert_eq!(chain, same);
    assert_eq!(chain[0].serial, 2);
    community.registry.renewed(&chain, NOW).unwrap();
    let dir = community.close();
    let done = copied(&dir, "done");
    let district_then = &district;

    // `node.json` names the new charter, and the keystore still has the keys beside the old ones.
    restore(&dir, &made);
    std::fs::copy(done[0].join("node.json"), dir.join("node.json")).unwrap();
    ends_well(district_then, &dir, &chain[0]);

    // The same, and the node dies a second time: the keys are taken up, the statements not made.
    restore(&dir, &made);
    for file in ["node.json", "keystore", "transport"] {
        std::fs::copy(done[0].join(file), dir.join(file)).unwrap();
    }
    let community = Site::open(&dir, NOW);
    assert!(community.registry.renewal().unwrap().is_some());
    community.close();
    // The parent holds nothing of it yet: the node ends it from what it has, at the next start.
    ends_well(district_then, &dir, &chain[0]);
    let community = Site::open(&dir, NOW);
    let clerk = community.operator(Role::Clerk, None, NOW);
    community.import(&clerk, "unit", &rows("unit", 1, 20, 1), NOW);
    let seen = replicate(&community, district_then, NOW);
    assert!(
        seen.refused.is_empty() && seen.rejected.is_empty(),
        "{seen:?}"
    );
}

#[test]
fn a_node_whose_answer_was_lost_finds_its_charter_in_the_ledger_of_its_parent() {
    let (world, plan) = world(true);
    run(&world.community, &plan);
    replicate(&world.community, &world.district, NOW);
    let request = ask(&world.community).request;
    let chain = world
        .district
        .registry
        .renew_charter(&request, NOW)
        .unwrap();
    // The old keys open no session; under the new ones the same charter is given again.
    let seen = replicate(&world.community, &world.district, NOW);
    assert!(!seen.refused.is_empty());
    let registry = &world.community.registry;
    registry.renewed(&chain, NOW).unwrap();
    assert_eq!(world.community.charter(), chain[0]);
    let seen = replicate(&world.community, &world.district, NOW);
    assert!(seen.refused.is_empty(), "{seen:?}");
}

#[test]
fn a_node_that_joins_after_the_root_changed_its_keys_takes_the_roots_ledger_and_those_it_needs() {
    let base = tempfile::tempdir().unwrap();
    let root = Site::root(base.path(), REALM, "jiangjin", NOW);
    let town = Site::join(&root, base.path(), "shuangfu", Level::Town, NOW);
    let second = root.enrol("fuhe", Role::SecurityOfficer, None, NOW);
    settle(&[(&town, &root)], NOW);
    // Twice, so that a succession leads to a key that is not known yet either.
    for serial in 2..=3 {
        let registry = &root.registry;
        let request = PlanRequest::RotateNode {};
        let plan = registry.plan(&root.officer, &request, NOW).unwrap();
        let plan = plan_id(&plan.id).unwrap();
        registry.approve(&second, &plan, true, NOW).unwrap();
        run(&root, &plan);
        assert!(registry.renewal_step(NOW).unwrap().is_none());
        assert_eq!(registry.chain().unwrap()[0].serial, serial);
    }
    settle(&[(&town, &root)], NOW);

    // Invited by the root, and by a node that was there before.
    let below = Site::join(&root, base.path(), "caijia", Level::Town, NOW);
    let further = Site::join(&town, base.path(), "jinfu", Level::Community, NOW);
    let links = [(&town, &root), (&below, &root), (&further, &town)];
    for (child, parent) in links {
        let seen = replicate(child, parent, NOW);
        assert!(seen.refused.is_empty(), "{seen:?}");
        assert!(seen.not_kept.is_empty(), "{seen:?}");
    }
    settle(&links, NOW);
    settle(&links, NOW);
    let above = root.registry.status().unwrap().ledgers;
    for site in [&below, &further] {
        let status = site.registry.status().unwrap();
        assert!(status.alarms.is_empty(), "{:?}", status.alarms);
        // Nothing runs between the two newcomers: neither has the other's.
        for division in ["jiangjin", "shuangfu", site.charter().division.as_str()] {
            let authority = origin(division, "authority");
            let of = |ledgers: &[LedgerLine]| {
                let mut ledgers = ledgers.iter();
                let line = ledgers.find(|line| line.origin == authority);
                line.map(|line| line.root.clone())
            };
            let (held, whole) = (of(&status.ledgers), of(&above));
            assert!(held.is_some() && held == whole, "{authority}: {held:?}");
        }
    }
    drop(second);
    for site in [below, further, town, root] {
        let report = registry::verify::verify(&site.close()).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

fn refused(world: &World, request: &Renewal, now: UnixMillis) -> String {
    let answer = world.district.registry.renew_charter(request, now);
    answer.unwrap_err().to_string()
}

#[test]
fn a_parent_charters_no_keys_that_officers_did_not_approve_or_that_another_key_asks_for() {
    let (mut world, plan) = world(true);
    run(&world.community, &plan);
    let request = ask(&world.community).request;
    let new = keystore(&world.community.dir).next.unwrap().sign;
    // Its parent does not hold yet that the plan was run, and needs not: it was approved in time.
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let forged = request.clone().sign(&stranger, &stranger);
    assert!(refused(&world, &forged, NOW).contains("not signed"));
    let mut other = request.clone();
    other.keys.transport = [9; 32];
    assert!(refused(&world, &other, NOW).contains("not signed"));
    let mut unknown = request.clone();
    unknown.replaces = [1; 32];
    assert!(refused(&world, &unknown, NOW).contains("not signed"));
    world
        .district
        .registry
        .renew_charter(&request, NOW)
        .unwrap();

    // Without an approval nobody's key is enough: not that of the node, whoever has it.
    let (fresh, plan) = self::world(false);
    world = fresh;
    let old = keystore(&world.community.dir).sign.signing_key();
    let request = Renewal {
        plan,
        replaces: world.community.charter().id(),
        ..request
    }
    .sign(&old, &new.signing_key());
    assert!(refused(&world, &request, NOW).contains("approvals are missing"));
    let unplanned = Renewal {
        plan: [3; 32],
        ..request
    }
    .sign(&old, &new.signing_key());
    assert!(refused(&world, &unplanned, NOW).contains("does not hold the plan"));
    let failed = world
        .community
        .registry
        .run_plan(&world.community.officer, &plan, NOW);
    assert!(failed.is_err());
    assert!(
        world
            .community
            .registry
            .renewal_step(NOW)
            .unwrap()
            .is_none()
    );
    assert!(world.base.path().join("jinfu/keystore").exists());
}
