//! Shares for officers of nodes above, who have no account at the node: dealt, taken, confirmed and
//! counted, over the ledgers and by file; whom they are refused to, and a recovery with some of them.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use record::authority::{Level, Role, Statement};
use record::custody::{DealtShare, ShareStep, ShareWord};
use record::entry::Entry;
use record::id::{DivisionId, Hash, UnixMillis};
use record::plan::{ShareHolder, Work};
use registry::RegistryError;
use registry::audit::realm::{Severity, audit};
use registry::custody::held::HeldState;
use registry::custody::shares::ShareStatus;
use registry::custody::steps::ShareFile;
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::recovery::rebuild::{NewPlace, rebuild};
use registry::session::Session;
use seal::share::Header;
use sha2::{Digest, Sha256};
use store::{Snapshot, Store};
use tests::realm::{
    NOW, PASSPHRASE, REALM, Site, division, forge, origin, replicate, rows, settle,
};

/// A district, a town, a community with two officers; the town has two, the district one.
struct World {
    base: tempfile::TempDir,
    district: Site,
    town: Site,
    community: Site,
    own: Session,
    town_second: Session,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, "jiangjin", NOW);
        let town = Site::join(&district, at, "shuangfu", Level::Town, NOW);
        let community = Site::join(&town, at, "jinfu", Level::Community, NOW);
        let own = community.enrol("yi", Role::SecurityOfficer, None, NOW);
        let town_second = town.enrol("fu", Role::SecurityOfficer, None, NOW);
        let world = Self {
            base,
            district,
            town,
            community,
            own,
            town_second,
        };
        world.settle();
        world
    }

    fn settle(&self) {
        settle(
            &[(&self.community, &self.town), (&self.town, &self.district)],
            NOW,
        );
    }

    /// The officers above: site and session.
    fn above(&self) -> [(&Site, &Session); 3] {
        [
            (&self.town, &self.town.officer),
            (&self.town, &self.town_second),
            (&self.district, &self.district.officer),
        ]
    }

    fn ready(&self) {
        for (site, officer) in self.above() {
            ready(site, officer).unwrap();
        }
        self.settle();
    }

    /// Five shares, any three of which open: two officers here, two in the town, one in the district.
    fn request(&self) -> PlanRequest {
        let own = [&self.community.officer, &self.own];
        let above = self.above().map(|(_, officer)| officer);
        PlanRequest::Share {
            threshold: 3,
            holders: own.into_iter().chain(above).map(holder).collect(),
        }
    }

    fn begin(&self, request: &PlanRequest) -> registry::Result<String> {
        let registry = &self.community.registry;
        let plan = registry.plan(&self.community.officer, request, NOW)?;
        let id = plan_id(&plan.id).unwrap();
        registry.approve(&self.own, &id, true, NOW)?;
        registry.run_plan(&self.community.officer, &id, NOW)?;
        Ok(self.status().ceremony.unwrap().ceremony)
    }

    fn status(&self) -> ShareStatus {
        self.community.registry.share_status().unwrap()
    }

    fn confirmed(&self) -> Vec<bool> {
        let ceremony = self.status().ceremony.unwrap();
        ceremony.holders.iter().map(|h| h.confirmed).collect()
    }

    /// Both officers here take and confirm theirs.
    fn own_shares(&self, nonce: &str) -> Vec<String> {
        let take = |officer| take_and_confirm(&self.community, officer, nonce).unwrap();
        [&self.community.officer, &self.own].map(take).into()
    }

    /// A whole ceremony over the ledgers; the shares in their order.
    fn share(&self) -> Vec<String> {
        self.ready();
        let nonce = self.begin(&self.request()).unwrap();
        self.settle();
        let mut shares = self.own_shares(&nonce);
        for (site, officer) in self.above() {
            shares.push(take_and_confirm(site, officer, &nonce).unwrap());
        }
        self.settle();
        assert_eq!(self.status().in_force.unwrap().ceremony, nonce);
        shares
    }

    /// The share dealt to an officer, as the community's ledger has it.
    fn dealt(&self, officer: &Session) -> DealtShare {
        let mut all = dealt_in(&self.community);
        all.retain(|dealt| {
            dealt.operator == officer.operator && dealt.organization == officer.organization
        });
        all.pop().unwrap()
    }

    /// Signs with the community's own key, as somebody does who has its machine.
    fn signed_by_node(&self, dealt: DealtShare) -> ShareStep {
        let key = forge::keystore(&self.community.dir).sign.signing_key();
        ShareStep::Dealt(dealt.sign(&key))
    }

    #[track_caller]
    fn verifies(self) {
        let Self {
            base: _base,
            district,
            town,
            community,
            ..
        } = self;
        for site in [community, town, district] {
            let dir = site.close();
            let report = registry::verify::verify(&dir).unwrap();
            assert!(report.ok, "{:?}", report.findings);
            let report = audit(&dir, NOW).unwrap();
            let mut findings = report.findings.iter();
            let fault = findings.find(|finding| finding.severity == Severity::Fault);
            assert!(fault.is_none(), "{fault:?}");
        }
    }
}

fn holder(officer: &Session) -> ShareHolder {
    ShareHolder {
        organization: officer.organization.clone(),
        operator: officer.operator,
        key: None,
    }
}

fn ready(site: &Site, officer: &Session) -> registry::Result<String> {
    let ready = site
        .registry
        .ready_for_share(officer, &division("jinfu"), NOW)?;
    Ok(ready.key)
}

fn take_and_confirm(site: &Site, officer: &Session, nonce: &str) -> registry::Result<String> {
    let share = site.registry.take_share(officer, nonce)?.to_string();
    site.registry.confirm_share(officer, nonce, &share, NOW)?;
    Ok(share)
}

/// The statements of a node's own authority ledger.
fn statements(site: &Site) -> Vec<Statement> {
    let store = Snapshot::open(&site.dir).unwrap();
    let of = origin(site.registry.config().division.as_str(), "authority");
    let rows = store.scan(of.as_str(), "entry", b"", usize::MAX).unwrap();
    let entries = rows.iter().map(|(_, bytes)| Entry::decode(bytes).unwrap());
    entries
        .filter_map(|entry| match entry {
            Entry::Authority(entry) => Some(entry.statement),
            _ => None,
        })
        .collect()
}

fn dealt_in(site: &Site) -> Vec<DealtShare> {
    let steps = statements(site).into_iter();
    steps
        .filter_map(|statement| match statement {
            Statement::Share(step) => match *step {
                ShareStep::Dealt(dealt) => Some(dealt),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn file(steps: &[ShareStep]) -> ShareFile {
    let base64 = |step: &ShareStep| data_encoding::BASE64.encode(&step.encode());
    ShareFile {
        format: 1,
        steps: steps.iter().map(base64).collect(),
    }
}

#[track_caller]
fn refused<T>(result: registry::Result<T>, words: &str) {
    match result {
        Ok(_) => panic!("not refused: {words}"),
        Err(error) => assert!(error.to_string().contains(words), "{error}"),
    }
}

fn held(site: &Site, officer: &Session) -> Vec<HeldState> {
    let held = site.registry.share_status().unwrap().held;
    let of = held.iter().filter(|line| line.operator == officer.operator);
    of.map(|line| line.state).collect()
}

#[test]
fn officers_above_without_an_account_here_hold_shares_and_the_root_is_rebuilt_with_some_of_them() {
    let world = World::new();
    let clerk = world.community.operator(Role::Clerk, None, NOW);
    let people = rows("person", 1, 40, 1);
    world.community.import(&clerk, "person", &people, NOW);
    let shares = world.share();
    assert!(!world.community.dir.join("ceremony").exists());
    // Whom the plan names is named with the key.
    let plans = statements(&world.community);
    let named = plans.iter().find_map(|statement| match statement {
        Statement::Plan(plan) => match &plan.work {
            Work::Share { holders, .. } => Some(holders.clone()),
            _ => None,
        },
        _ => None,
    });
    let named = named.unwrap();
    let named: Vec<bool> = named.iter().map(|h| h.key.is_some()).collect();
    assert_eq!(named, [false, false, true, true, true]);
    // Nothing that opens a sealed share is left anywhere.
    for site in [&world.town, &world.district] {
        let left = std::fs::read_dir(site.dir.join("share-keys")).unwrap();
        assert_eq!(left.count(), 0);
    }
    world
        .community
        .import(&clerk, "building", &rows("building", 1, 40, 1), NOW);
    world.settle();
    assert_eq!(world.status().in_force.unwrap().behind, 0);

    let address = world.town.registry.config().listen.clone();
    let recovery = world
        .town
        .registry
        .export_recovery(&world.town.officer, &division("jinfu"), address)
        .unwrap();
    let place = || NewPlace {
        http: None,
        listen: None,
        custody: registry::config::KeyCustody::File,
    };
    let new = world.base.path().join("new");
    let rebuilt = |dir: &std::path::Path, which: &[usize]| {
        let some: Vec<&String> = which.iter().map(|at| &shares[*at]).collect();
        rebuild(
            dir,
            &recovery,
            &some,
            place(),
            &registry::keys::Opener::File,
            NOW,
        )
    };
    // Two of the town are too few, with one here or in the district they are enough.
    refused(rebuilt(&new, &[2, 3]), "2 of the 3");
    rebuilt(&new.join("a"), &[0, 2, 4]).unwrap();
    rebuilt(&new.join("b"), &[4, 3, 2]).unwrap();
    let dir = new.join("c");
    rebuilt(&dir, &[3, 1, 4]).unwrap();
    let World {
        town, community, ..
    } = world;
    drop(community);
    let registry = registry::Registry::open(&dir, &registry::keys::Opener::File, NOW).unwrap();
    let mut site = Site {
        dir,
        registry: registry.into(),
        officer: town.registry.login("anquan", PASSPHRASE, NOW).unwrap(),
    };
    for _ in 0..5 {
        replicate(&site, &town, NOW);
    }
    assert!(site.registry.status().unwrap().halted.is_empty());
    site.officer = site.registry.login("anquan", PASSPHRASE, NOW).unwrap();
    let clerk = site.registry.login("clerk", PASSPHRASE, NOW).unwrap();
    site.import(&clerk, "person", &rows("person", 2, 10, 2), NOW);
    let report = registry::verify::verify(&site.close()).unwrap();
    assert!(report.ok, "{:?}", report.findings);
}

#[test]
fn the_old_shares_open_until_every_holder_of_the_new_ones_confirmed() {
    let world = World::new();
    let old = world.share();
    let first = world.status().in_force.unwrap().ceremony;
    world.ready();
    let nonce = world.begin(&world.request()).unwrap();
    world.settle();
    let [(town, one), (_, two), (district, three)] = world.above();
    world.own_shares(&nonce);
    take_and_confirm(town, one, &nonce).unwrap();
    take_and_confirm(district, three, &nonce).unwrap();
    assert_eq!(world.confirmed(), [true, true, false, false, false]);
    world.settle();
    assert_eq!(world.confirmed(), [true, true, true, false, true]);
    // Four of five: the sharing before is in force, and what is sealed is sealed to it.
    assert_eq!(world.status().in_force.unwrap().ceremony, first);
    let taken = town.registry.take_share(two, &nonce).unwrap();
    world.settle();
    assert_eq!(world.status().in_force.unwrap().ceremony, first);
    assert_eq!(held(town, two), [HeldState::Taken]);
    // The node is closed and opened in between, and so is the town.
    let World {
        base,
        district,
        town,
        community,
        ..
    } = world;
    let (town, community) = (town.close(), community.close());
    let (town, community) = (Site::open(&town, NOW), Site::open(&community, NOW));
    let two = town.registry.login("fu", PASSPHRASE, NOW).unwrap();
    assert_eq!(held(&town, &two), [HeldState::Taken]);
    town.registry
        .confirm_share(&two, &nonce, &taken, NOW)
        .unwrap();
    assert_eq!(held(&town, &two), [HeldState::Confirmed]);
    settle(&[(&community, &town), (&town, &district)], NOW);
    let status = community.registry.share_status().unwrap();
    assert_eq!(status.in_force.unwrap().ceremony, nonce);
    assert!(status.ceremony.is_none());
    // It came up as in force: nothing waits for anybody.
    assert!(town.registry.share_status().unwrap().held.is_empty());
    let address = town.registry.config().listen.clone();
    let recovery = town
        .registry
        .export_recovery(&town.officer, &division("jinfu"), address)
        .unwrap();
    let place = NewPlace {
        http: None,
        listen: None,
        custody: registry::config::KeyCustody::File,
    };
    let new = base.path().join("new");
    let opener = registry::keys::Opener::File;
    refused(
        rebuild(&new, &recovery, &old, place, &opener, NOW),
        "another ceremony",
    );
}

#[test]
fn a_share_is_given_once_to_its_officer_alone_and_nobody_confirms_anothers() {
    let world = World::new();
    // Before the officers above are ready, there is no plan.
    refused(world.begin(&world.request()), "fangzhi keys share ready");
    let key = ready(&world.town, &world.town.officer).unwrap();
    assert_eq!(ready(&world.town, &world.town.officer).unwrap(), key);
    world.ready();
    let nonce = world.begin(&world.request()).unwrap();
    // Not before the sealed share came up.
    refused(
        world.town.registry.take_share(&world.town.officer, &nonce),
        "no ceremony",
    );
    world.settle();
    let (town, one, two) = (
        &world.town.registry,
        &world.town.officer,
        &world.town_second,
    );
    assert_eq!(held(&world.town, one), [HeldState::Waiting]);
    // A clerk of the town, and an officer of the district who is to have another share.
    let clerk = world.town.operator(Role::Clerk, None, NOW);
    assert!(town.take_share(&clerk, &nonce).is_err());
    refused(town.take_share(one, &"00".repeat(16)), "no ceremony");
    refused(
        town.confirm_share(one, &nonce, "", NOW),
        "take the share first",
    );
    let share = town.take_share(one, &nonce).unwrap();
    refused(town.take_share(one, &nonce), "given once");
    // B confirms with A's share, before and after the own one was taken.
    refused(
        town.confirm_share(two, &nonce, &share, NOW),
        "take the share first",
    );
    let other = town.take_share(two, &nonce).unwrap();
    refused(
        town.confirm_share(two, &nonce, &share, NOW),
        "another holder",
    );
    let mut typed = other.to_string();
    let letter = if typed.as_bytes()[3] == b'7' {
        "8"
    } else {
        "7"
    };
    typed.replace_range(3..4, letter);
    assert!(town.confirm_share(two, &nonce, &typed, NOW).is_err());
    town.confirm_share(one, &nonce, &share, NOW).unwrap();

    // B signs a word on A's share, A's word is made B's, and a word is altered: none counts.
    let header: Hash = Sha256::digest(world.dealt(one).header.as_slice()).into();
    let key = forge::operator_key(&world.town.dir, "fu");
    let word = |number, officer: &Session| ShareWord {
        suite: 1,
        division: division("jinfu"),
        header,
        number,
        organization: division("shuangfu"),
        operator: officer.operator,
        signed_at: NOW,
        signature: [0; 64],
    };
    let bring = |word: ShareWord| {
        let file = file(&[ShareStep::Confirmed(word)]);
        let (registry, officer) = (&world.community.registry, &world.community.officer);
        registry.bring_shares(officer, &file, NOW)
    };
    refused(bring(word(3, two).sign(&key)), "not this officer's");
    refused(bring(word(3, one).sign(&key)), "not the officer's");
    refused(bring(word(4, two)), "not the officer's");
    refused(bring(word(1, two).sign(&key)), "not this officer's");
    assert_eq!(world.confirmed(), [false; 5]);
    // In the ledger of whoever has the town's machine they count no more.
    let steps = [word(3, two).sign(&key), word(3, one).sign(&key)];
    assert!(
        steps
            .iter()
            .all(|word| word.organization == division("shuangfu"))
    );
    world.settle();
    assert_eq!(world.confirmed(), [false, false, true, false, false]);
    bring(word(4, two).sign(&key)).unwrap();
    assert_eq!(world.confirmed(), [false, false, true, true, false]);
    world.verifies();
}

#[test]
fn a_ceremony_exchanged_midway_is_noticed_above_and_at_the_node() {
    let world = World::new();
    world.ready();
    let first = world.begin(&world.request()).unwrap();
    world.settle();
    let (town, one) = (&world.town.registry, &world.town.officer);
    let dealt = town.take_share(one, &first).unwrap();
    let kept = town.share_file(one, Some(&division("jinfu"))).unwrap();
    assert_eq!(kept.steps.len(), 2, "two keys, and no word yet");
    // Somebody abandons it and runs another plan in its place: the officer's key is used up, so
    // that the plan has to name another, and is approved again.
    let registry = &world.community.registry;
    registry.abandon_shares(&world.own).unwrap();
    let stale = world.begin(&world.request()).unwrap();
    world.settle();
    refused(town.take_share(one, &stale), "given once");
    registry.abandon_shares(&world.own).unwrap();
    world.ready();
    let second = world.begin(&world.request()).unwrap();
    world.settle();
    assert_eq!(
        held(&world.town, one),
        [
            HeldState::Superseded,
            HeldState::Superseded,
            HeldState::Waiting
        ]
    );
    refused(
        town.confirm_share(one, &first, &dealt, NOW),
        "began another ceremony",
    );
    refused(town.take_share(one, &first), "began another ceremony");
    town.take_share(one, &second).unwrap();
    refused(
        town.confirm_share(one, &second, &dealt, NOW),
        "another ceremony",
    );
    // A word on the first, signed in earnest, does not count for the second.
    let of_first = dealt_in(&world.community)
        .into_iter()
        .find(|dealt| {
            let header = Header::decode(&dealt.header).unwrap();
            data_encoding::HEXLOWER.encode(header.ceremony()) == first
        })
        .unwrap();
    let word = ShareWord {
        suite: 1,
        division: division("jinfu"),
        header: Sha256::digest(of_first.header.as_slice()).into(),
        number: 3,
        organization: division("shuangfu"),
        operator: one.operator,
        signed_at: NOW,
        signature: [0; 64],
    };
    let word = word.sign(&forge::operator_key(&world.town.dir, "anquan"));
    refused(
        registry.bring_shares(&world.own, &file(&[ShareStep::Confirmed(word)]), NOW),
        "another ceremony",
    );
    assert_eq!(world.confirmed(), [false; 5]);
    world.verifies();
}

#[test]
fn a_key_made_after_the_plan_was_approved_is_not_sealed_to() {
    let world = World::new();
    world.ready();
    let registry = &world.community.registry;
    let plan = registry
        .plan(&world.community.officer, &world.request(), NOW)
        .unwrap();
    let id = plan_id(&plan.id).unwrap();
    registry.approve(&world.own, &id, true, NOW).unwrap();
    // The town's machine loses the file, and a later key takes its place.
    let keys = world.town.dir.join("share-keys");
    std::fs::remove_dir_all(keys).unwrap();
    let later = UnixMillis(NOW.0 + 1);
    let jinfu = division("jinfu");
    let town = &world.town.registry;
    town.ready_for_share(&world.town.officer, &jinfu, later)
        .unwrap();
    world.settle();
    refused(
        registry.run_plan(&world.community.officer, &id, NOW),
        "than the plan names",
    );
    assert!(world.status().ceremony.is_none());
    assert!(dealt_in(&world.community).is_empty());
}

#[test]
fn an_altered_share_one_for_another_and_one_that_the_node_did_not_sign_are_refused() {
    let world = World::new();
    world.ready();
    world.begin(&world.request()).unwrap();
    let town = &world.town.registry;
    let (one, two) = (&world.town.officer, &world.town_second);
    let genuine = world.dealt(one);
    let nonce = world.status().ceremony.unwrap().ceremony;
    let bring = |step| town.bring_shares(one, &file(&[step]), NOW);

    // Altered on the way: the node's signature does not hold.
    let mut altered = genuine.clone();
    altered.sealed[700] ^= 1;
    refused(
        bring(ShareStep::Dealt(altered.clone())),
        "not signed by the node",
    );
    // For the district's officer: not to be taken in at the town.
    let others = world.dealt(&world.district.officer);
    refused(bring(ShareStep::Dealt(others)), "another organization");
    // For somebody who is no officer of the town.
    let mut nobody = genuine.clone();
    nobody.operator = world.own.operator;
    refused(bring(world.signed_by_node(nobody)), "no security officer");
    // By whoever has the node's machine: signed, and yet it opens for nobody but its officer.
    let mut swapped = genuine.clone();
    swapped.operator = two.operator;
    let mut renumbered = genuine.clone();
    renumbered.number = 4;
    let mut replanned = genuine.clone();
    replanned.plan = [9; 32];
    for (step, officer) in [
        (altered, one),
        (swapped, two),
        (renumbered, one),
        (replanned, one),
    ] {
        bring(world.signed_by_node(step)).unwrap();
        let refusal = town.take_share(officer, &nonce).unwrap_err();
        assert!(matches!(refusal, RegistryError::BadRequest(_)), "{refusal}");
    }
    // None of that used up the keys.
    for officer in [one, two] {
        let mut states = held(&world.town, officer);
        states.retain(|state| *state == HeldState::Waiting);
        assert!(!states.is_empty());
    }
}

#[test]
fn an_officer_who_was_disabled_gets_no_share_and_makes_no_sharing_take_effect() {
    let world = World::new();
    world.ready();
    let (town, one) = (&world.town.registry, &world.town.officer);
    // Disabled before the plan.
    town.disable_operator(one, "fu", NOW).unwrap();
    world.settle();
    refused(
        world.begin(&world.request()),
        "no security officer in good standing",
    );
    town.renew_operator(one, "fu", PASSPHRASE, NOW).unwrap();
    let two = town.login("fu", PASSPHRASE, NOW).unwrap();
    world.settle();
    // Another key of the officer: what the one before signed is no key any more.
    refused(world.begin(&world.request()), "fangzhi keys share ready");
    ready(&world.town, &two).unwrap();
    world.settle();
    let nonce = world.begin(&world.request()).unwrap();
    world.settle();
    world.own_shares(&nonce);
    take_and_confirm(&world.town, one, &nonce).unwrap();
    let share = town.take_share(&two, &nonce).unwrap();
    take_and_confirm(&world.district, &world.district.officer, &nonce).unwrap();
    // Disabled with the share in hand: the word is refused above, and would not count here.
    town.disable_operator(one, "fu", NOW).unwrap();
    refused(
        town.confirm_share(&two, &nonce, &share, NOW),
        "no security officer in good standing",
    );
    let word = ShareWord {
        suite: 1,
        division: division("jinfu"),
        header: Sha256::digest(world.dealt(&two).header.as_slice()).into(),
        number: 4,
        organization: division("shuangfu"),
        operator: two.operator,
        signed_at: NOW,
        signature: [0; 64],
    };
    let word = word.sign(&forge::operator_key(&world.town.dir, "fu"));
    world.settle();
    let word = file(&[ShareStep::Confirmed(word)]);
    refused(
        world
            .community
            .registry
            .bring_shares(&world.own, &word, NOW),
        "no security officer in good standing",
    );
    assert_eq!(world.confirmed(), [true, true, true, false, true]);
    assert!(world.status().in_force.is_none());
}

#[test]
fn a_sharing_of_which_a_holder_was_disabled_after_confirming_does_not_take_effect() {
    let world = World::new();
    world.ready();
    let nonce = world.begin(&world.request()).unwrap();
    world.settle();
    let shares = world.own_shares(&nonce);
    assert_eq!(shares.len(), 2);
    for (site, officer) in [
        (&world.town, &world.town.officer),
        (&world.town, &world.town_second),
    ] {
        take_and_confirm(site, officer, &nonce).unwrap();
    }
    world.settle();
    world
        .town
        .registry
        .disable_operator(&world.town.officer, "fu", NOW)
        .unwrap();
    world.settle();
    take_and_confirm(&world.district, &world.district.officer, &nonce).unwrap();
    world.settle();
    assert_eq!(world.confirmed(), [true; 5]);
    assert!(world.status().in_force.is_none());
    refused(world.community.registry.tend_shares(NOW), "abandon");
    world.community.registry.abandon_shares(&world.own).unwrap();
    assert!(world.status().ceremony.is_none());
}

#[test]
fn all_three_steps_go_by_file_where_no_session_connects_the_nodes() {
    let world = World::new();
    let jinfu = division("jinfu");
    let community = &world.community.registry;
    let carry = |from: &Site, officer: &Session, of: Option<&DivisionId>| {
        let file = from.registry.share_file(officer, of).unwrap();
        // As it lies on a stick.
        let bytes = serde_json::to_vec(&file).unwrap();
        serde_json::from_slice::<ShareFile>(&bytes).unwrap()
    };
    for (site, officer) in world.above() {
        ready(site, officer).unwrap();
    }
    // The keys come down, and nothing else does.
    refused(world.begin(&world.request()), "fangzhi keys share ready");
    for (site, officer) in [world.above()[0], world.above()[2]] {
        let keys = carry(site, officer, Some(&jinfu));
        refused(
            site.registry.bring_shares(officer, &keys, NOW),
            "another node",
        );
        let brought = community.bring_shares(&world.own, &keys, NOW).unwrap();
        assert_eq!(brought.known, 0);
        let again = community.bring_shares(&world.own, &keys, NOW).unwrap();
        assert_eq!((again.taken, again.known), (0, brought.taken));
    }
    let nonce = world.begin(&world.request()).unwrap();
    world.own_shares(&nonce);
    // The sealed shares go up, in one file for both: each node takes its own in.
    let dealt = carry(&world.community, &world.own, None);
    assert_eq!(dealt.steps.len(), 3);
    for (site, officer) in world.above() {
        let steps: Vec<ShareStep> = { dealt.steps().unwrap().into_iter() }
            .filter(|step| step.organization() == &officer.organization)
            .collect();
        site.registry
            .bring_shares(officer, &file(&steps), NOW)
            .unwrap();
        take_and_confirm(site, officer, &nonce).unwrap();
    }
    // The words come down; with the last the sharing takes effect.
    assert!(world.status().in_force.is_none());
    for (site, officer) in [world.above()[0], world.above()[2]] {
        let words = carry(site, officer, Some(&jinfu));
        community.bring_shares(&world.own, &words, NOW).unwrap();
    }
    assert_eq!(world.status().in_force.unwrap().ceremony, nonce);
    // Once they meet again, nothing is amiss.
    world.settle();
    assert!(world.town.registry.share_status().unwrap().held.is_empty());
    // A cut file, another version, and what is no step at all.
    let mut cut = dealt.clone();
    cut.steps[0].truncate(40);
    let mut version = dealt.clone();
    version.format = 2;
    for broken in [cut, version] {
        refused(
            community.bring_shares(&world.own, &broken, NOW),
            "no file of shares",
        );
    }
    world.verifies();
}

#[test]
fn only_officers_of_the_node_and_of_those_above_it_may_hold_a_share() {
    let world = World::new();
    let sister = Site::join(
        &world.town,
        world.base.path(),
        "degan",
        Level::Community,
        NOW,
    );
    settle(
        &[(&sister, &world.town), (&world.community, &world.town)],
        NOW,
    );
    // A sister is not above; the town's officer may, of a node below alone.
    assert!(ready(&sister, &sister.officer).is_err());
    let town = &world.town.registry;
    for not_below in ["jiangjin", "shuangfu", "nirgends"] {
        let result = town.ready_for_share(&world.town.officer, &division(not_below), NOW);
        assert!(matches!(result, Err(RegistryError::NoCharter(_))));
    }
    let clerk = world.town.operator(Role::Clerk, None, NOW);
    assert!(matches!(
        ready(&world.town, &clerk),
        Err(RegistryError::Denied { .. })
    ));
    let of = |holders: &[&Session]| PlanRequest::Share {
        threshold: 2,
        holders: holders.iter().map(|officer| holder(officer)).collect(),
    };
    let own = &world.own;
    refused(
        world.begin(&of(&[own, &sister.officer])),
        "nor of one above it",
    );
    refused(world.begin(&of(&[own, &clerk])), "no security officer");
}
