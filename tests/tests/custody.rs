//! The root of a node: sharing it among officers, losing the machine, locking, other root keys.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use record::authority::{Level, Role};
use record::id::{Hash, UnixMillis};
use record::plan::ShareHolder;
use registry::RegistryError;
use registry::config::KeyCustody;
use registry::custody::shares::ShareStatus;
use registry::keys::Opener;
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::read::ReadRequest;
use registry::recovery::rebuild::{NewPlace, rebuild};
use registry::session::{NewOperator, Session};
use store::Store;
use tests::realm::{
    NOW, PASSPHRASE, REALM, Site, division, kind, origin, purpose, replicate, rows, settle,
};

/// A district and a community under it, with the community's clerk and three more officers.
struct Pair {
    base: tempfile::TempDir,
    district: Site,
    community: Site,
    clerk: Session,
    officers: Vec<Session>,
}

fn officer(site: &Site, login: &str, now: UnixMillis) -> Session {
    let new = NewOperator {
        login: login.into(),
        passphrase: PASSPHRASE.into(),
        role: Role::SecurityOfficer,
        grid: None,
    };
    site.registry
        .enrol_operator(Some(&site.officer), &new, now)
        .unwrap();
    site.registry.login(login, PASSPHRASE, now).unwrap()
}

impl Pair {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let district = Site::root(base.path(), REALM, "jiangjin", NOW);
        let community = Site::join(&district, base.path(), "jinfu", Level::Community, NOW);
        let clerk = community.operator(Role::Clerk, None, NOW);
        let officers = ["yi", "er", "san"].map(|login| officer(&community, login, NOW));
        Self {
            base,
            district,
            community,
            clerk,
            officers: officers.into(),
        }
    }

    fn settle(&self) {
        settle(&[(&self.community, &self.district)], NOW);
    }

    /// A plan of the first officer, approved by the second.
    fn plan(&self, request: &PlanRequest) -> Hash {
        let line = self
            .community
            .registry
            .plan(&self.officers[0], request, NOW)
            .unwrap();
        let id = plan_id(&line.id).unwrap();
        self.community
            .registry
            .approve(&self.officers[1], &id, true, NOW)
            .unwrap();
        id
    }

    fn run(&self, request: &PlanRequest) -> registry::Result<()> {
        let id = self.plan(request);
        self.community
            .registry
            .run_plan(&self.officers[0], &id, NOW)
    }

    fn share_plan(&self) -> PlanRequest {
        let holders = self.officers.iter().map(|officer| ShareHolder {
            organization: division("jinfu"),
            operator: officer.operator,
            key: None,
        });
        PlanRequest::Share {
            threshold: 2,
            holders: holders.collect(),
        }
    }

    fn status(&self) -> ShareStatus {
        self.community.registry.share_status().unwrap()
    }

    fn nonce(&self) -> String {
        self.status().ceremony.unwrap().ceremony
    }

    /// A whole ceremony; the shares.
    fn share(&self) -> Vec<String> {
        self.run(&self.share_plan()).unwrap();
        let nonce = self.nonce();
        let registry = &self.community.registry;
        let take = |officer| registry.take_share(officer, &nonce).unwrap().to_string();
        let shares: Vec<String> = self.officers.iter().map(take).collect();
        for (officer, share) in self.officers.iter().zip(&shares) {
            registry.confirm_share(officer, &nonce, share, NOW).unwrap();
        }
        assert!(self.status().ceremony.is_none());
        shares
    }

    fn read_all(&self) -> BTreeMap<String, (u64, BTreeMap<String, String>)> {
        read_all(&self.community, &self.clerk)
    }
}

fn read_all(site: &Site, clerk: &Session) -> BTreeMap<String, (u64, BTreeMap<String, String>)> {
    let mut all = BTreeMap::new();
    for of in ["person", "building"] {
        let request = ReadRequest {
            kind: kind(of),
            filters: vec![],
            fields: None,
            purpose: purpose("registration"),
            basis: None,
            closed: true,
            limit: Some(200),
        };
        let answer = site.registry.read(clerk, &request, NOW).unwrap();
        let answer = answer.value();
        assert!(!answer.more && !answer.rows.is_empty());
        for row in &answer.rows {
            let at = format!("{of} {}", row.record);
            all.insert(at, (row.version, row.fields.clone()));
        }
    }
    all
}

/// Every entry and body of a node's own ledgers, from the bytes.
fn ledgers(dir: &Path, of: &str) -> BTreeMap<(String, String, Vec<u8>), Vec<u8>> {
    let mut keys = std::collections::BTreeSet::new();
    let snapshot = store::scan_segments(dir, &mut |seen| {
        if let store::Seen::Frame { key, .. } = seen {
            keys.insert(key);
        }
    })
    .unwrap();
    let own = format!("{REALM}/{of}/");
    keys.into_iter()
        .filter(|key| key.shard().starts_with(&own) && ["entry", "body"].contains(&key.table()))
        .filter_map(|key| {
            let value = snapshot.get(&key).unwrap()?;
            let at = (key.shard().into(), key.table().into(), key.rest().to_vec());
            Some((at, value))
        })
        .collect()
}

fn new_place() -> NewPlace {
    NewPlace {
        http: None,
        listen: None,
        custody: KeyCustody::File,
    }
}

#[test]
fn a_destroyed_node_is_rebuilt_from_shares_and_its_parents_replica() {
    let pair = Pair::new();
    let people = rows("person", 1, 60, 1);
    let buildings = rows("building", 1, 60, 1);
    pair.community.import(&pair.clerk, "person", &people, NOW);
    let shares = pair.share();
    // What is registered after the ceremony is recovered, too.
    pair.community
        .import(&pair.clerk, "building", &buildings, NOW);
    let read = pair.read_all();
    let (person, _) = read.last_key_value().unwrap();
    let person = person.strip_prefix("person ").unwrap().parse().unwrap();
    let phone = [("phone", "13800000000")];
    pair.community
        .amend(&pair.clerk, "person", person, 1, &phone, NOW);
    let records = pair.read_all();
    assert_eq!(records.len(), people.len() + buildings.len());
    pair.settle();
    assert_eq!(pair.status().in_force.unwrap().behind, 0);

    let Pair {
        base,
        district,
        community,
        ..
    } = pair;
    let dir = community.dir.clone();
    let keys = community.registry.chain().unwrap()[0].keys.clone();
    drop(community);
    let before = ledgers(&dir, "jinfu");
    // The machine burns, with the second place.
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::remove_dir_all(base.path().join("jinfu.signed")).unwrap();

    let address = district.registry.config().listen.clone();
    let file = district
        .registry
        .export_recovery(&district.officer, &division("jinfu"), address)
        .unwrap();
    let new = base.path().join("new/jinfu");
    let too_few = rebuild(&new, &file, &shares[..1], new_place(), &Opener::File, NOW);
    assert!(too_few.unwrap_err().to_string().contains("1 of the 2"));
    assert!(!new.join("keystore").exists());
    rebuild(&new, &file, &shares[1..], new_place(), &Opener::File, NOW).unwrap();

    let registry = registry::Registry::open(&new, &Opener::File, NOW).unwrap();
    assert_eq!(registry.chain().unwrap()[0].keys, keys);
    // Nothing is signed before its ledgers are back.
    assert!(!registry.status().unwrap().halted.is_empty());
    let bare = Bare { registry };
    let community = bare.replicate_until_whole(&district, new.clone());
    community.registry.persist_indexes().unwrap();
    let dir = community.close();
    let after = ledgers(&dir, "jinfu");
    assert_eq!(before.len(), after.len());
    assert!(before == after, "a ledger is not what it was");

    let community = Site::open(&dir, NOW);
    let clerk = community.registry.login("clerk", PASSPHRASE, NOW).unwrap();
    assert_eq!(read_all(&community, &clerk), records);
    community.import(&clerk, "person", &rows("person", 2, 20, 2), NOW);
    settle(&[(&community, &district)], NOW);
    assert_eq!(
        community
            .registry
            .share_status()
            .unwrap()
            .in_force
            .unwrap()
            .behind,
        0
    );
    let (low, high) = (community.close(), district.close());
    for dir in [low, high] {
        let report = registry::verify::verify(&dir).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

#[test]
fn a_record_whose_secret_did_not_come_back_is_counted_and_its_file_is_not_imported_again() {
    let Pair {
        base,
        district,
        community,
        clerk,
        officers,
    } = Pair::new();
    let people = rows("person", 1, 20, 1);
    let buildings = rows("building", 1, 20, 1);
    community.import(&clerk, "person", &people, NOW);
    // The epoch of buildings began before the copy.
    let first = rows("building", 3, 20, 3);
    community.import(&clerk, "building", &first, NOW);
    settle(&[(&community, &district)], NOW);
    drop((clerk, officers));
    let dir = community.close();
    let old = base.path().join("old");
    tests::copy_dir(&dir, &old);
    let community = Site::open(&dir, NOW);
    let clerk = community.registry.login("clerk", PASSPHRASE, NOW).unwrap();
    community.import(&clerk, "building", &buildings, NOW);
    settle(&[(&community, &district)], NOW);
    drop(clerk);
    let dir = community.close();
    std::fs::remove_dir_all(&dir).unwrap();
    tests::copy_dir(&old, &dir);

    let registry = registry::Registry::open(&dir, &Opener::File, NOW).unwrap();
    let community = Bare { registry }.replicate_until_whole(&district, dir);
    let line = community.registry.store_line();
    let lost = buildings.len() as u64;
    assert_eq!(line.lost_records, lost);
    let doctor = community.registry.doctor(NOW).unwrap();
    let check = doctor.iter().find(|check| check.check == "lost-records");
    assert!(check.unwrap().found.contains(&format!("有 {lost} 条")));

    let clerk = community.registry.login("clerk", PASSPHRASE, NOW).unwrap();
    let source = |of: &str, rows: &[tests::realm::Row]| registry::register::ImportChunk {
        kind: kind(of),
        source: tests::realm::source_of(of, rows),
        numbers: (1..).take(rows.len()).collect(),
        rows: rows.to_vec(),
        dry_run: false,
    };
    let again = source("building", &buildings);
    let refused = community.registry.import(&clerk, &again, NOW).unwrap_err();
    assert!(
        refused.to_string().contains(&format!("{lost} records")),
        "{refused}"
    );
    // Other files, and what was in the copy, are as they were.
    let known = source("person", &people);
    let report = community.registry.import(&clerk, &known, NOW).unwrap();
    assert_eq!(report.repeated, people.len() as u64);
    community.import(&clerk, "building", &rows("building", 2, 20, 2), NOW);
    assert_eq!(community.registry.store_line().lost_records, lost);
}

/// A node whose operators are not known yet: its authority ledger is at its parent.
struct Bare {
    registry: registry::Registry,
}

impl Bare {
    fn replicate_until_whole(self, parent: &Site, dir: std::path::PathBuf) -> Site {
        // The session's officer is needed by `Site` alone; any will do until the own ones are back.
        let mut site = Site {
            dir,
            registry: std::sync::Arc::new(self.registry),
            officer: parent.registry.login("anquan", PASSPHRASE, NOW).unwrap(),
        };
        for _ in 0..5 {
            replicate(&site, parent, NOW);
            if site.registry.status().unwrap().halted.is_empty() {
                break;
            }
        }
        let status = site.registry.status().unwrap();
        assert!(status.halted.is_empty(), "{:?}", status.halted);
        site.officer = site.registry.login("anquan", PASSPHRASE, NOW).unwrap();
        site
    }
}

#[test]
fn each_share_is_given_to_its_holder_once_and_confirmed_by_typing_it_back() {
    let pair = Pair::new();
    let registry = &pair.community.registry;
    pair.run(&pair.share_plan()).unwrap();
    let nonce = pair.nonce();
    let [one, two, three] = &pair.officers[..] else {
        unreachable!()
    };
    let share = registry.take_share(one, &nonce).unwrap();
    let again = registry.take_share(one, &nonce).unwrap_err();
    assert!(again.to_string().contains("given once"), "{again}");
    assert!(registry.take_share(&pair.clerk, &nonce).is_err());
    assert!(registry.take_share(two, &"00".repeat(16)).is_err());
    // Confirming what was not taken, with another's share, or with a letter changed.
    assert!(registry.confirm_share(two, &nonce, &share, NOW).is_err());
    let second = registry.take_share(two, &nonce).unwrap();
    let others = registry
        .confirm_share(two, &nonce, &share, NOW)
        .unwrap_err();
    assert!(others.to_string().contains("another holder"), "{others}");
    let mut typed = second.to_lowercase();
    registry.confirm_share(two, &nonce, &typed, NOW).unwrap();
    typed.replace_range(
        3..4,
        if typed.as_bytes()[3] == b'7' {
            "8"
        } else {
            "7"
        },
    );
    assert!(registry.confirm_share(two, &nonce, &typed, NOW).is_err());
    registry.confirm_share(one, &nonce, &share, NOW).unwrap();
    // Two of three confirmed: nothing is in force, and nothing was sealed.
    assert!(pair.status().in_force.is_none());
    assert_eq!(ledger_size(&pair.community, "recovery"), 0);
    let third = registry.take_share(three, &nonce).unwrap();
    let status = registry.confirm_share(three, &nonce, &third, NOW).unwrap();
    assert_eq!(status.in_force.unwrap().ceremony, nonce);
    assert!(ledger_size(&pair.community, "recovery") > 0);
    assert!(!pair.community.dir.join("ceremony").exists());
}

fn ledger_size(site: &Site, ledger: &str) -> u64 {
    let status = site.registry.status().unwrap();
    let own = origin("jinfu", ledger);
    let line = status.ledgers.iter().find(|line| line.origin == own);
    line.map_or(0, |line| line.size)
}

#[test]
fn a_ceremony_that_was_exchanged_midway_is_refused_and_the_sharing_in_force_stays() {
    let pair = Pair::new();
    let registry = &pair.community.registry;
    let shares = pair.share();
    let in_force = pair.status().in_force.unwrap().ceremony;
    pair.run(&pair.share_plan()).unwrap();
    let first = pair.nonce();
    let dealt = registry.take_share(&pair.officers[0], &first).unwrap();
    // Somebody abandons it and runs another plan in its place.
    let other = pair.plan(&pair.share_plan());
    let run = || registry.run_plan(&pair.officers[0], &other, NOW);
    assert!(run().is_err());
    registry.abandon_shares(&pair.officers[1]).unwrap();
    run().unwrap();
    let second = pair.nonce();
    assert_ne!(first, second);
    assert!(registry.take_share(&pair.officers[1], &first).is_err());
    assert!(
        registry
            .confirm_share(&pair.officers[0], &first, &dealt, NOW)
            .is_err()
    );
    registry.take_share(&pair.officers[0], &second).unwrap();
    let swapped = registry
        .confirm_share(&pair.officers[0], &second, &dealt, NOW)
        .unwrap_err();
    assert!(
        swapped.to_string().contains("another ceremony"),
        "{swapped}"
    );
    let old = registry
        .confirm_share(&pair.officers[0], &second, &shares[0], NOW)
        .unwrap_err();
    assert!(old.to_string().contains("another ceremony"), "{old}");
    registry.abandon_shares(&pair.officers[2]).unwrap();
    assert_eq!(pair.status().in_force.unwrap().ceremony, in_force);
}

#[test]
fn a_new_sharing_and_another_root_key_make_the_shares_before_them_void() {
    let pair = Pair::new();
    pair.community
        .import(&pair.clerk, "person", &rows("person", 1, 20, 1), NOW);
    let old = pair.share();
    let new = pair.share();
    pair.settle();
    let address = pair.district.registry.config().listen.clone();
    let export = || {
        pair.district.registry.export_recovery(
            &pair.district.officer,
            &division("jinfu"),
            address.clone(),
        )
    };
    let file = export().unwrap();
    let base = pair.base.path();
    let refused = rebuild(
        &base.join("a"),
        &file,
        &old,
        new_place(),
        &Opener::File,
        NOW,
    );
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("another ceremony")
    );
    rebuild(
        &base.join("b"),
        &file,
        &new,
        new_place(),
        &Opener::File,
        NOW,
    )
    .unwrap();
    // Only the newest bundle has its body, here and above.
    for site in [&pair.community, &pair.district] {
        let bodies = ledgers(&site.dir, "jinfu");
        let bundles = bodies
            .iter()
            .filter(|((shard, table, _), body)| {
                shard.ends_with("/recovery") && table == "body" && body.len() > 1500
            })
            .count();
        assert_eq!(bundles, 1);
    }

    let kek = std::fs::read(pair.community.dir.join("kek")).unwrap();
    let keystore = std::fs::read(pair.community.dir.join("keystore")).unwrap();
    pair.run(&PlanRequest::RotateKek {}).unwrap();
    assert_ne!(kek, std::fs::read(pair.community.dir.join("kek")).unwrap());
    assert!(pair.status().in_force.is_none());
    pair.settle();
    assert!(matches!(export(), Err(RegistryError::NotFound { .. })));
    let Pair {
        base: _base,
        community,
        ..
    } = pair;
    let dir = community.close();
    // The keystore of before does not open any more, and the node says what to do.
    let now = std::fs::read(dir.join("keystore")).unwrap();
    std::fs::write(dir.join("keystore"), keystore).unwrap();
    let error = registry::Registry::open(&dir, &Opener::File, NOW)
        .err()
        .unwrap();
    assert!(error.to_string().contains("fangzhi recover"), "{error}");
    std::fs::write(dir.join("keystore"), &now[..now.len() / 2]).unwrap();
    let error = registry::Registry::open(&dir, &Opener::File, NOW)
        .err()
        .unwrap();
    assert!(error.to_string().contains("fangzhi recover"), "{error}");
    std::fs::write(dir.join("keystore"), now).unwrap();
    Site::open(&dir, NOW);
}

#[test]
fn a_change_of_the_root_key_that_was_cut_off_is_finished_or_never_was() {
    let pair = Pair::new();
    let dir = pair.community.dir.clone();
    let old = std::fs::read(dir.join("kek")).unwrap();
    pair.run(&PlanRequest::RotateKek {}).unwrap();
    let Pair {
        base: _base,
        community,
        ..
    } = pair;
    community.close();
    // After the keystore, before the key file.
    std::fs::rename(dir.join("kek"), dir.join("kek.next")).unwrap();
    std::fs::write(dir.join("kek"), &old).unwrap();
    Site::open(&dir, NOW).close();
    assert_ne!(std::fs::read(dir.join("kek")).unwrap(), old);
    // Before the keystore: the next key file opens nothing and is passed over.
    std::fs::write(dir.join("kek.next"), [7; 32]).unwrap();
    Site::open(&dir, NOW).close();
}

#[test]
fn a_locked_node_signs_and_opens_nothing_and_goes_on_once_it_is_open() {
    let pair = Pair::new();
    let people = rows("person", 1, 40, 1);
    pair.community
        .import(&pair.clerk, "person", &people[..10], NOW);
    pair.settle();
    let registry = &pair.community.registry;
    registry.lock_keys(&pair.community.officer).unwrap();
    assert!(registry.is_locked());
    let request = ReadRequest {
        kind: kind("person"),
        filters: vec![],
        fields: None,
        purpose: purpose("registration"),
        basis: None,
        closed: false,
        limit: None,
    };
    let locked = |result: registry::Result<()>| {
        assert!(matches!(result, Err(RegistryError::Locked)), "{result:?}");
    };
    locked(registry.read(&pair.clerk, &request, NOW).map(drop));
    locked(
        registry
            .plan(&pair.officers[0], &pair.share_plan(), NOW)
            .map(drop),
    );
    let new = NewOperator {
        login: "xin".into(),
        passphrase: PASSPHRASE.into(),
        role: Role::Auditor,
        grid: None,
    };
    locked(
        registry
            .enrol_operator(Some(&pair.community.officer), &new, NOW)
            .map(drop),
    );
    // Ciphertext and proofs are still given to who may have them.
    let peer = pair.district.charter();
    assert!(!registry.offers(&peer).unwrap().is_empty());
    registry.status().unwrap();
    registry.doctor(NOW).unwrap();
    registry.unlock(&Opener::File, NOW).unwrap();
    pair.community
        .import(&pair.clerk, "person", &people[10..], NOW);
    pair.settle();
}

#[test]
fn a_locked_parent_stores_and_cosigns_once_it_is_open() {
    let pair = Pair::new();
    pair.settle();
    pair.district
        .registry
        .lock_keys(&pair.district.officer)
        .unwrap();
    pair.community
        .import(&pair.clerk, "person", &rows("person", 1, 10, 1), NOW);
    let held = pair.district.registry.offers(&pair.community.charter());
    held.unwrap();
    pair.district.registry.unlock(&Opener::File, NOW).unwrap();
    pair.settle();
    let status = pair.community.registry.status().unwrap();
    assert!(
        status
            .ledgers
            .iter()
            .filter(|l| l.own)
            .all(|l| l.cosigned == l.size)
    );
}

#[test]
fn a_node_under_a_passphrase_starts_locked_and_opens_by_it_or_by_shares() {
    let pair = Pair::new();
    pair.community
        .import(&pair.clerk, "person", &rows("person", 1, 10, 1), NOW);
    let registry = &pair.community.registry;
    let phrase = || Opener::Passphrase(PASSPHRASE.to_owned().into());
    registry.offer_opener(&pair.officers[0], phrase()).unwrap();
    pair.run(&PlanRequest::RotateKek {}).unwrap();
    let shares = pair.share();
    let Pair {
        base: _base,
        community,
        ..
    } = pair;
    let dir = community.close();
    assert!(!dir.join("kek").exists());
    let open = |opener: &Opener| registry::Registry::open(&dir, opener, NOW);
    assert!(open(&Opener::File).is_err());
    let registry = open(&Opener::Locked).unwrap();
    assert!(registry.is_locked());
    let wrong = Opener::Passphrase("not the passphrase".to_owned().into());
    assert!(registry.unlock(&wrong, NOW).is_err() && registry.is_locked());
    registry.unlock(&phrase(), NOW).unwrap();
    let clerk = registry.login("clerk", PASSPHRASE, NOW).unwrap();
    let site = Site {
        officer: registry.login("anquan", PASSPHRASE, NOW).unwrap(),
        dir: dir.clone(),
        registry: registry.into(),
    };
    site.import(&clerk, "person", &rows("person", 3, 10, 3), NOW);
    site.close();
    // The passphrase is forgotten: shares open the node under a key file.
    let registry = open(&Opener::Locked).unwrap();

    registry
        .unlock_with_shares(&shares[..2], &KeyCustody::File, &Opener::File, NOW)
        .unwrap();
    assert!(!registry.is_locked());
    drop(registry);
    open(&Opener::File).unwrap();
}

#[test]
fn an_older_keystore_is_refused_with_the_keys_that_it_lacks() {
    let pair = Pair::new();
    let keystore = std::fs::read(pair.community.dir.join("keystore")).unwrap();
    pair.community
        .import(&pair.clerk, "person", &rows("person", 1, 10, 1), NOW);
    let Pair {
        base: _base,
        community,
        ..
    } = pair;
    let dir = community.close();
    std::fs::write(dir.join("keystore"), keystore).unwrap();
    let error = registry::Registry::open(&dir, &Opener::File, NOW)
        .err()
        .unwrap();
    let words = error.to_string();
    assert!(
        words.contains("page 1") && words.contains("fangzhi recover"),
        "{words}"
    );
}
