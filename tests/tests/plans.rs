//! Plans, approvals, standing orders, charters and operators in one process, with the clock as an
//! argument: what two officers may do, what one may not, and why.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use record::act::{Act, Capacity};
use record::authority::{Level, Role};
use record::entry::{AccessEntry, Entry, SUITE};
use record::id::{Hash, Kind, UnixMillis};
use record::plan::Task;
use registry::RegistryError;
use registry::plan::approve::{ApprovalFile, plan_id, sign_file};
use registry::plan::list::{PlanLine, PlanState};
use registry::plan::request::PlanRequest;
use registry::plan::{Discounted, NotApproved, PLAN_MILLIS};
use registry::replicate::NewInvitation;
use registry::session::Session;
use sha2::{Digest, Sha256};
use tests::realm::{
    DAY, NOW, PASSPHRASE, REALM, Site, division, forge, kind, origin, purpose, replicate, rows,
    settle,
};

fn authority_size(site: &Site) -> u64 {
    let status = site.registry.status().unwrap();
    let own = format!("{}/authority", site.registry.config().division);
    let mut ledgers = status.ledgers.iter();
    let found = ledgers.find(|l| l.origin.as_str().ends_with(&own));
    found.unwrap().size
}

struct World {
    base: tempfile::TempDir,
    district: Site,
    town: Site,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let district = Site::root(base.path(), REALM, "jiangjin", NOW);
        let town = Site::join(&district, base.path(), "shuangfu", Level::Town, NOW);
        settle(&[(&town, &district)], NOW);
        Self {
            base,
            district,
            town,
        }
    }

    fn order(&self, days: u32) -> PlanLine {
        let request = PlanRequest::Order {
            tasks: vec![Task::Reseal],
            kinds: vec![kind("person")],
            days,
        };
        let registry = &self.town.registry;
        registry.plan(&self.town.officer, &request, NOW).unwrap()
    }

    fn state(&self, plan: &PlanLine, now: UnixMillis) -> PlanState {
        let id = plan_id(&plan.id).unwrap();
        self.town.registry.plan_line(&id, now).unwrap().state
    }
}

fn rotate(of: &str) -> PlanRequest {
    PlanRequest::RotateEpoch {
        kind: kind(of),
        compromised: false,
    }
}

fn approve(
    site: &Site,
    by: &Session,
    plan: &PlanLine,
    now: UnixMillis,
) -> registry::Result<PlanLine> {
    let id = plan_id(&plan.id).unwrap();
    site.registry.approve(by, &id, true, now)
}

fn run(site: &Site, plan: &PlanLine, now: UnixMillis) -> registry::Result<()> {
    let id = plan_id(&plan.id).unwrap();
    site.registry.run_plan(&site.officer, &id, now)
}

#[test]
fn a_plan_says_what_it_comes_to_and_who_is_not_reached() {
    let world = World::new();
    let clerk = world.town.operator(Role::Clerk, None, NOW);
    world
        .town
        .import(&clerk, "person", &rows("person", 1, 40, 1), NOW);
    let plan = world
        .town
        .registry
        .plan(&world.town.officer, &rotate("person"), NOW)
        .unwrap();
    let figure = |name: &str| {
        let found = plan.figures.iter().find(|f| f.name == kind(name));
        found.map(|f| f.count)
    };
    assert_eq!(figure("records"), Some(40));
    assert_eq!(figure("bodies"), Some(40));
    assert!(figure("bytes") > Some(40 * 200), "{:?}", plan.figures);
    assert_eq!(figure("holders"), Some(0));
    assert_eq!(figure("seconds"), Some(1));
    assert_eq!(figure("unreachable"), Some(1));
    assert_eq!(plan.unreachable, [division("jiangjin")]);
    assert_eq!(plan.state, PlanState::Waiting { missing: 1 });
    // A clerk makes none.
    let denied = world.town.registry.plan(&clerk, &rotate("unit"), NOW);
    assert!(matches!(denied, Err(RegistryError::Denied { .. })));
}

#[test]
fn an_officer_above_approves_what_came_up_and_the_approval_comes_down() {
    let world = World::new();
    let plan = world.order(30);
    let own = approve(&world.town, &world.town.officer, &plan, NOW);
    assert!(
        matches!(&own, Err(RegistryError::Denied { rule, .. }) if rule == "nobody-approves-their-own-request"),
        "{own:?}"
    );
    assert!(matches!(
        run(&world.town, &plan, NOW),
        Err(RegistryError::NotApproved(NotApproved::Missing {
            missing: 1
        }))
    ));
    // The district sees it once it is replicated, and only then.
    let unseen = approve(&world.district, &world.district.officer, &plan, NOW);
    assert!(matches!(
        unseen,
        Err(RegistryError::NotApproved(NotApproved::Unknown))
    ));
    settle(&[(&world.town, &world.district)], NOW);
    let seen = world.district.registry.plans(NOW);
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (&seen[0].id, &seen[0].division),
        (&plan.id, &division("shuangfu"))
    );
    approve(&world.district, &world.district.officer, &plan, NOW).unwrap();
    assert_eq!(world.state(&plan, NOW), PlanState::Waiting { missing: 1 });
    settle(&[(&world.town, &world.district)], NOW);
    assert_eq!(world.state(&plan, NOW), PlanState::Approved);
    run(&world.town, &plan, NOW).unwrap();
    assert_eq!(world.state(&plan, NOW), PlanState::InForce);
    assert!(matches!(
        run(&world.town, &plan, NOW),
        Err(RegistryError::NotApproved(NotApproved::Closed))
    ));
    // A node that opens again knows the same.
    let dir = world.town.close();
    let town = Site::open(&dir, NOW);
    let id = plan_id(&plan.id).unwrap();
    let line = town.registry.plan_line(&id, NOW).unwrap();
    assert_eq!(line.state, PlanState::InForce);
    let over = UnixMillis(NOW.0 + 30 * DAY);
    let line = town.registry.plan_line(&id, over).unwrap();
    assert_eq!(line.state, PlanState::Lapsed);
}

#[test]
fn an_approval_by_file_counts_as_it_was_signed_and_for_its_plan_only() {
    let world = World::new();
    let (registry, officer) = (&world.town.registry, &world.town.officer);
    let plan = world.order(30);
    let other = world.order(31);
    let (id, other_id) = (plan_id(&plan.id).unwrap(), plan_id(&other.id).unwrap());
    let file = registry.plan_file(&id).unwrap();
    let sign = |dir: &std::path::Path, login: &str, phrase: &str, id| {
        sign_file(dir, (login, phrase), &file, id, true, NOW)
    };
    let above = world.district.dir.clone();
    // The officer was told of another plan than the file holds.
    let swapped = sign(&above, "anquan", PASSPHRASE, &other_id);
    assert!(matches!(swapped, Err(RegistryError::BadRequest(_))));
    let wrong = sign(&above, "anquan", "not the passphrase", &id);
    assert!(matches!(wrong, Err(RegistryError::BadLogin)));
    let own = sign(&world.town.dir, "anquan", PASSPHRASE, &id);
    assert!(matches!(
        own,
        Err(RegistryError::Discounted(Discounted::OwnPlan))
    ));
    let signed = sign(&above, "anquan", PASSPHRASE, &id).unwrap();

    let mut altered = data_encoding::BASE64
        .decode(signed.approval.as_bytes())
        .unwrap();
    *altered.last_mut().unwrap() ^= 1;
    let altered = ApprovalFile {
        format: 1,
        approval: data_encoding::BASE64.encode(&altered),
    };
    assert!(matches!(
        registry.take_approval(officer, &altered, NOW),
        Err(RegistryError::Discounted(Discounted::BadSignature))
    ));
    let before = authority_size(&world.town);
    let line = registry.take_approval(officer, &signed, NOW).unwrap();
    assert_eq!(line.state, PlanState::Approved);
    let after = authority_size(&world.town);
    assert!(after > before);
    // Taken in twice it lies there once.
    registry.take_approval(officer, &signed, NOW).unwrap();
    assert_eq!(authority_size(&world.town), after);
    // Plan A is approved; plan B is not.
    assert!(matches!(
        run(&world.town, &other, NOW),
        Err(RegistryError::NotApproved(NotApproved::Missing { .. }))
    ));
    run(&world.town, &plan, NOW).unwrap();
}

#[test]
fn a_file_of_an_officer_who_has_no_say_is_refused_with_the_reason() {
    let world = World::new();
    let sister = Site::join(
        &world.district,
        world.base.path(),
        "dongfu",
        Level::Town,
        NOW,
    );
    settle(
        &[(&sister, &world.district), (&world.town, &world.district)],
        NOW,
    );
    let plan = world.order(30);
    let id = plan_id(&plan.id).unwrap();
    let file = world.town.registry.plan_file(&id).unwrap();
    let signed = sign_file(&sister.dir, ("anquan", PASSPHRASE), &file, &id, true, NOW).unwrap();
    let refused = world
        .town
        .registry
        .take_approval(&world.town.officer, &signed, NOW);
    assert!(matches!(
        refused,
        Err(RegistryError::Discounted(Discounted::NotAbove))
    ));
    world.town.operator(Role::Clerk, None, NOW);
    let by = ("clerk", PASSPHRASE);
    let signed = sign_file(&world.town.dir, by, &file, &id, true, NOW).unwrap();
    let refused = world
        .town
        .registry
        .take_approval(&world.town.officer, &signed, NOW);
    assert!(matches!(
        refused,
        Err(RegistryError::Discounted(Discounted::NotSecurityOfficer))
    ));
}

#[test]
fn a_plan_that_expired_was_refused_or_withdrawn_is_not_run() {
    let world = World::new();
    let second = world
        .town
        .enrol("anquan-er", Role::SecurityOfficer, None, NOW);
    let expired = world.order(30);
    approve(&world.town, &second, &expired, NOW).unwrap();
    let late = UnixMillis(NOW.0 + PLAN_MILLIS + 1);
    assert!(matches!(
        run(&world.town, &expired, late),
        Err(RegistryError::NotApproved(NotApproved::Expired))
    ));
    assert!(matches!(
        approve(&world.town, &second, &expired, late),
        Err(RegistryError::NotApproved(NotApproved::Expired))
    ));

    let refused = world.order(31);
    let id = plan_id(&refused.id).unwrap();
    world
        .town
        .registry
        .approve(&second, &id, false, NOW)
        .unwrap();
    assert!(matches!(
        run(&world.town, &refused, NOW),
        Err(RegistryError::NotApproved(NotApproved::Refused))
    ));

    let order = world.order(32);
    approve(&world.town, &second, &order, NOW).unwrap();
    run(&world.town, &order, NOW).unwrap();
    assert_eq!(world.state(&order, NOW), PlanState::InForce);
    let id = plan_id(&order.id).unwrap();
    let line = world
        .town
        .registry
        .withdraw(&world.town.officer, &id, NOW)
        .unwrap();
    assert_eq!(line.state, PlanState::Withdrawn);
    assert!(matches!(
        run(&world.town, &order, NOW),
        Err(RegistryError::NotApproved(NotApproved::Closed))
    ));
}

#[test]
fn a_second_plan_for_the_same_thing_is_refused_and_names_the_first() {
    let world = World::new();
    let registry = &world.town.registry;
    let officer = &world.town.officer;
    let first = registry.plan(officer, &rotate("person"), NOW).unwrap();
    let second = registry.plan(officer, &rotate("person"), NOW);
    assert!(
        matches!(&second, Err(RegistryError::Underway { plan }) if *plan == first.id),
        "{second:?}"
    );
    registry.plan(officer, &rotate("unit"), NOW).unwrap();
    // Two at once: one is made.
    let made: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| registry.plan(officer, &rotate("room"), NOW).is_ok()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    // Once it is withdrawn, or its time is over, another may be made.
    let id = plan_id(&first.id).unwrap();
    registry.withdraw(officer, &id, NOW).unwrap();
    registry.plan(officer, &rotate("person"), NOW).unwrap();
    let late = UnixMillis(NOW.0 + PLAN_MILLIS + 1);
    registry.plan(officer, &rotate("person"), late).unwrap();
}

#[test]
fn one_officer_alone_enrols_no_other_once_the_node_makes_plans() {
    let world = World::new();
    let town = &world.town;
    let second = town.enrol("anquan-er", Role::SecurityOfficer, None, NOW);
    world.order(30);
    let new = registry::session::NewOperator {
        login: "kuilei".into(),
        passphrase: PASSPHRASE.into(),
        role: Role::SecurityOfficer,
        grid: None,
    };
    let enrolled = town
        .registry
        .enrol_or_plan(Some(&town.officer), &new, NOW)
        .unwrap();
    let id = plan_id(&enrolled.plan.unwrap()).unwrap();
    assert!(matches!(
        town.registry.login("kuilei", PASSPHRASE, NOW),
        Err(RegistryError::BadLogin)
    ));
    let alone = town.registry.run_plan(&town.officer, &id, NOW);
    assert!(matches!(
        alone,
        Err(RegistryError::NotApproved(NotApproved::Missing { .. }))
    ));
    town.registry.approve(&second, &id, true, NOW).unwrap();
    town.registry.run_plan(&town.officer, &id, NOW).unwrap();
    town.registry.login("kuilei", PASSPHRASE, NOW).unwrap();
    // Another key for an officer is the same matter.
    let renewed = town
        .registry
        .renew_operator(&town.officer, "anquan-er", "another passphrase", NOW)
        .unwrap();
    assert!(renewed.plan.is_some());
    assert!(
        town.registry
            .login("anquan-er", "another passphrase", NOW)
            .is_err()
    );
}

#[test]
fn an_operator_gets_another_key_and_the_one_before_signs_nothing_any_more() {
    let world = World::new();
    let town = &world.town;
    let clerk = town.operator(Role::Clerk, None, NOW);
    let renewed = town
        .registry
        .renew_operator(&town.officer, "clerk", "another passphrase", NOW)
        .unwrap();
    assert_eq!((renewed.operator, renewed.plan), (clerk.operator, None));
    assert!(!town.registry.in_good_standing(&clerk));
    assert!(town.registry.login("clerk", PASSPHRASE, NOW).is_err());
    let again = town
        .registry
        .login("clerk", "another passphrase", NOW)
        .unwrap();
    town.import(&again, "unit", &rows("unit", 1, 20, 1), NOW);
    // Disabled, and enrolled again under the same name.
    town.registry
        .disable_operator(&town.officer, "clerk", NOW)
        .unwrap();
    assert!(!town.registry.in_good_standing(&again));
    town.registry
        .renew_operator(&town.officer, "clerk", "third passphrase", NOW)
        .unwrap();
    let third = town
        .registry
        .login("clerk", "third passphrase", NOW)
        .unwrap();
    town.import(&third, "unit", &rows("unit", 2, 20, 2), NOW);
    let dir = world.town.close();
    let report = registry::verify::verify(&dir).unwrap();
    assert!(report.ok, "{:?}", report.findings);
}

#[test]
fn the_grid_of_a_grid_worker_cannot_be_widened_in_the_operators_file() {
    let world = World::new();
    let town = &world.town;
    town.operator(Role::GridWorker, Some("3"), NOW);
    let path = town.dir.join("operators/grid-worker.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for grid in ["\"grid\": \"4\"", "\"grid\": \"\"", "\"grid\": null"] {
        std::fs::write(&path, text.replace("\"grid\": \"3\"", grid)).unwrap();
        let refused = town.registry.login("grid-worker", PASSPHRASE, NOW);
        assert!(
            matches!(refused, Err(RegistryError::Directory(_))),
            "{grid}: {refused:?}"
        );
    }
    std::fs::write(&path, &text).unwrap();
    let session = town.registry.login("grid-worker", PASSPHRASE, NOW).unwrap();
    assert_eq!(session.grid.as_deref(), Some("3"));
    // Nor by taking the file of a colleague's other grid: the hash is the operator's own.
    let metrics = town.registry.metrics().unwrap();
    assert!(
        metrics.contains("fangzhi_logins_failed_total 3"),
        "{metrics}"
    );
}

/// An act of an operator that relies on so much of the town's authority ledger.
fn act(relied: (u64, Hash)) -> Act {
    Act {
        suite: SUITE,
        capacity: Capacity::Operator,
        key: [0; 32],
        organization: division("shuangfu"),
        purpose: purpose("registration"),
        source: None,
        first: 0,
        count: 0,
        root: [0; 32],
        previous: None,
        authority_size: relied.0,
        authority_root: relied.1,
        signed_at: NOW,
        signature: [0; 64],
    }
}

fn authority_head(site: &Site) -> (u64, Hash) {
    let status = site.registry.status().unwrap();
    let mut ledgers = status.ledgers.into_iter();
    let line = ledgers.find(|l| l.origin == origin("shuangfu", "authority"));
    let line = line.unwrap();
    let root = data_encoding::HEXLOWER.decode(line.root.as_bytes());
    (line.size, root.unwrap().try_into().unwrap())
}

/// A reading that never was, as its access entry and body.
fn reading() -> (Entry, Vec<u8>) {
    let body = b"never read".to_vec();
    let entry = AccessEntry {
        suite: SUITE,
        epoch: 1,
        content: [1; 32],
        body: Sha256::digest(&body).into(),
        recorded_at: NOW,
    };
    (Entry::Access(entry), body)
}

#[test]
fn acts_of_a_disabled_operator_are_not_kept_above_backdated_or_not() {
    // The town's directory, its keys, and the clerk's key are in one dishonest hand.
    let World {
        base: _base,
        district,
        town,
    } = World::new();
    town.operator(Role::Clerk, None, NOW);
    town.enrol("other-clerk", Role::Clerk, None, NOW);
    let before = authority_head(&town);
    town.registry
        .disable_operator(&town.officer, "clerk", NOW)
        .unwrap();
    let after = authority_head(&town);
    settle(&[(&town, &district)], NOW);
    let access = origin("shuangfu", "access");
    let dir = town.close();
    let copy = |name: &str| {
        let to = dir.parent().unwrap().join(name);
        tests::copy_dir(&dir, &to);
        to
    };
    let owner = |dir: &std::path::Path| forge::keystore(dir).sign.signing_key();
    let held = || {
        let status = district.registry.status().unwrap();
        let mut ledgers = status.ledgers.iter();
        ledgers.find(|l| l.origin == access).map_or(0, |l| l.size)
    };

    // As it is: the key was disabled by then.
    let plain = copy("plain");
    let clerk = forge::operator_key(&dir, "clerk");
    forge::append(
        &plain,
        &access,
        &owner(&plain),
        reading(),
        (act(after), &clerk),
    );
    let site = Site::open(&plain, NOW);
    let seen = replicate(&site, &district, NOW);
    assert!(
        seen.not_kept
            .iter()
            .any(|(of, why)| *of == access && why.contains("was disabled")),
        "{seen:?}"
    );
    assert_eq!(held(), 0);
    let report = registry::verify::verify(&site.close()).unwrap();
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.what.contains("not enrolled when it was signed")),
        "{:?}",
        report.findings
    );
    let alarms = district.registry.alarms().unwrap();
    assert!(alarms.iter().any(|a| a.code == "unentitled"), "{alarms:?}");

    // Backdated behind an act that relied on the disabling.
    let backdated = copy("backdated");
    let other = forge::operator_key(&dir, "other-clerk");
    let log = owner(&backdated);
    forge::append(&backdated, &access, &log, reading(), (act(after), &other));
    let site = Site::open(&backdated, NOW);
    let seen = replicate(&site, &district, NOW);
    assert_eq!((held(), seen.not_kept.len()), (2, 0), "{seen:?}");
    let backdated = site.close();
    forge::append(&backdated, &access, &log, reading(), (act(before), &clerk));
    let site = Site::open(&backdated, NOW);
    let seen = replicate(&site, &district, NOW);
    assert!(
        seen.not_kept
            .iter()
            .any(|(of, why)| *of == access && why.contains("relies on less")),
        "{seen:?}"
    );
    assert_eq!(held(), 2);
    let report = registry::verify::verify(&site.close()).unwrap();
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.what.contains("relies on less")),
        "{:?}",
        report.findings
    );
}

fn invitation(site: &Site, name: &str) -> registry::Result<registry::replicate::Invitation> {
    let new = NewInvitation {
        division: division(name),
        name: name.into(),
        level: Level::Town,
        codes: vec![],
        address: site.registry.config().listen.clone(),
    };
    site.registry.invite(&site.officer, &new, NOW)
}

#[test]
fn a_division_is_chartered_again_on_two_officers_word_and_its_history_goes_on() {
    let world = World::new();
    let (district, town) = (&world.district, &world.town);
    let alone = invitation(district, "shuangfu");
    assert!(
        matches!(&alone, Err(RegistryError::BadRequest(why)) if why.contains("replace-charter")),
        "{alone:?}"
    );
    // Revoking needs one officer, chartering again two more.
    let reason = Kind::new("lost-key").unwrap();
    district
        .registry
        .revoke(&district.officer, &division("shuangfu"), &reason, NOW)
        .unwrap();
    assert!(invitation(district, "shuangfu").is_err());
    district.replace_charter("shuangfu", NOW);
    let lost = town.charter();
    let fresh = Site::join(
        district,
        &world.base.path().join("again"),
        "shuangfu",
        Level::Town,
        NOW,
    );
    assert_eq!((lost.serial, fresh.charter().serial), (1, 2));
    // The leave is used up.
    assert!(invitation(district, "shuangfu").is_err());
    // Whoever has the old keys is a stranger; what they signed before still verifies.
    let seen = replicate(town, district, NOW);
    assert!(!seen.refused.is_empty(), "the old keys open a session");
    let report = registry::verify::verify(&district.dir).unwrap();
    assert!(report.ok, "{:?}", report.findings);
}

#[test]
fn only_the_keys_that_were_approved_are_chartered() {
    let world = World::new();
    let district = &world.district;
    let others =
        ["fu-yi", "fu-er"].map(|login| district.enrol(login, Role::SecurityOfficer, None, NOW));
    let request = PlanRequest::ReplaceCharter {
        division: division("shuangfu"),
        keys: Some("ab".repeat(32)),
    };
    let plan = district
        .registry
        .plan(&district.officer, &request, NOW)
        .unwrap();
    assert_eq!(plan.state, PlanState::Waiting { missing: 2 });
    approve(district, &others[0], &plan, NOW).unwrap();
    assert!(matches!(
        run(district, &plan, NOW),
        Err(RegistryError::NotApproved(NotApproved::Missing {
            missing: 1
        }))
    ));
    approve(district, &others[1], &plan, NOW).unwrap();
    run(district, &plan, NOW).unwrap();
    let invited = invitation(district, "shuangfu").unwrap();
    let secret = registry::config::key_from_hex(&invited.secret).unwrap();
    let keys = world.town.charter().keys;
    let refused = district
        .registry
        .enrol(&division("shuangfu"), &secret, &keys, NOW);
    assert!(matches!(refused, Err(RegistryError::BadRequest(_))));
}
