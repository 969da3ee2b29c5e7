//! A grant whose every hop is a file: up from the community, up from the town, down to the holder;
//! and nodes that were restored from an old copy, whose only way back is a file.
//!
//! The nodes are in this process; their only exchange is what was packed at one and opened at another.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use record::authority::{Level, Role};
use record::id::UnixMillis;
use registry::RegistryError;
use registry::ferry::Refused;
use registry::ferry::open::{OpenReport, OpenRequest};
use registry::ferry::pack::{PackReport, PackRequest};
use registry::grant::GrantRequest;
use registry::read::ReadRequest;
use tests::realm::{NOW, REALM, Site, division, kind, origin, purpose, rows};

/// Where disks lie while they are carried.
struct Disks {
    dir: tempfile::TempDir,
    count: std::cell::Cell<u64>,
}

impl Disks {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            count: std::cell::Cell::new(0),
        }
    }

    fn pack(
        &self,
        from: &Site,
        to: &Site,
        change: impl FnOnce(&mut PackRequest),
        now: UnixMillis,
    ) -> Result<PackReport, RegistryError> {
        self.count.set(self.count.get() + 1);
        let mut request = PackRequest {
            to: to.registry.config().division.clone(),
            out: self.dir.path().join(format!("{}.ferry", self.count.get())),
            max_bytes: None,
            since: None,
            one_way: false,
            receipt: false,
        };
        change(&mut request);
        from.registry.ferry_pack(&from.officer, &request, now)
    }

    /// Packs what is new, and opens it. Whether there was something.
    fn carry(&self, from: &Site, to: &Site, now: UnixMillis) -> bool {
        match self.pack(from, to, |_| {}, now) {
            Ok(report) => {
                let opened = open(to, &report.files, now);
                for ledger in &opened.ledgers {
                    assert_eq!(ledger.error, None, "{ledger:?}");
                }
                true
            }
            Err(RegistryError::Ferry(Refused::NothingNew { .. })) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn receipt(&self, from: &Site, to: &Site, now: UnixMillis) {
        let report = self.pack(from, to, |request| request.receipt = true, now);
        open(to, &report.unwrap().files, now);
    }

    /// Carries both ways over every link until nothing is new.
    fn settle(&self, links: &[(&Site, &Site)], now: UnixMillis) {
        for _ in 0..12 {
            let mut moved = false;
            for (child, parent) in links {
                if self.carry(child, parent, now) {
                    moved = true;
                    self.receipt(parent, child, now);
                }
                if self.carry(parent, child, now) {
                    moved = true;
                    self.receipt(child, parent, now);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("there is always something new");
    }
}

fn open(at: &Site, files: &[PathBuf], now: UnixMillis) -> OpenReport {
    let files = files.to_vec();
    let request = OpenRequest { files };
    at.registry.ferry_open(&at.officer, &request, now).unwrap()
}

fn verified(dir: &Path) {
    let report = registry::verify::verify(dir).unwrap();
    assert!(report.ok, "{:?}", report.findings);
}

#[test]
fn a_grant_reaches_a_holder_beside_the_town_though_every_hop_is_a_file() {
    let base = tempfile::tempdir().unwrap();
    let at = base.path();
    let district = Site::root(at, REALM, "jiangjin", NOW);
    let town = Site::join(&district, at, "shuangfu", Level::Town, NOW);
    let community = Site::join(&town, at, "jinfu", Level::Community, NOW);
    let department = Site::join(&district, at, "minzheng", Level::Department, NOW);
    let clerk = community.operator(Role::Clerk, None, NOW);
    let officer = department.operator(Role::DepartmentOfficer, None, NOW);
    let mut persons = rows("person", 7, 16, 1);
    for (at, row) in persons.iter_mut().enumerate() {
        let residence = if at % 2 == 0 { "10" } else { "20" };
        row.insert("residence_kind".into(), residence.into());
    }
    community.import(&clerk, "person", &persons, NOW);
    let disks = Disks::new();
    let links = [
        (&community, &town),
        (&town, &district),
        (&department, &district),
    ];
    disks.settle(&links, NOW);
    let request = GrantRequest {
        kind: kind("person"),
        holder: division("minzheng"),
        fields: ["name", "sex", "residence_kind"]
            .map(str::to_owned)
            .to_vec(),
        rows: BTreeMap::from([("residence_kind".into(), "10".into())]),
        purpose: purpose("welfare"),
        basis: "社会救助暂行办法".into(),
        assessment: "PIA-2026-001".into(),
        history: record::authority::History::default(),
        days: 30,
    };
    let grant = community.registry.grant(&community.officer, &request, NOW);
    grant.unwrap();
    disks.settle(&links, NOW);

    let reading = ReadRequest {
        closed: false,
        kind: kind("person"),
        filters: vec![],
        fields: None,
        purpose: purpose("welfare"),
        basis: None,
        limit: None,
    };
    let answer = department.registry.read(&officer, &reading, NOW).unwrap();
    let expected = persons.len().div_ceil(2);
    assert_eq!(answer.value().rows.len(), expected);
    // What was read is in the department's own ledger, and goes up with its next bundle.
    disks.settle(&links, NOW);
    let size = |site: &Site, ledger: &record::id::Origin| {
        let status = site.registry.status().unwrap();
        let line = status.ledgers.into_iter().find(|l| l.origin == *ledger);
        line.map(|line| (line.size, line.root))
    };
    for (of, ledger, above) in [
        (&department, origin("minzheng", "access"), &district),
        (&community, origin("jinfu", "person"), &district),
        (&community, origin("jinfu", "authority"), &department),
        (&district, origin("jiangjin", "authority"), &community),
    ] {
        assert!(size(of, &ledger).is_some(), "{ledger}");
        assert_eq!(size(of, &ledger), size(above, &ledger), "{ledger}");
    }
    for site in [community, department, town, district] {
        assert_eq!(site.registry.status().unwrap().alarms, vec![]);
        for line in site.registry.ferries().unwrap() {
            assert_eq!(line.line.acknowledged, line.line.packed, "{line:?}");
            assert!(line.line.rejected.is_empty(), "{line:?}");
        }
        let dir = site.close();
        verified(&dir);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(file.file_name());
        if file.path().is_dir() {
            copy(&file.path(), &target);
        } else {
            std::fs::copy(file.path(), target).unwrap();
        }
    }
}

#[test]
fn a_child_restored_from_an_old_copy_gets_the_rest_back_by_file_and_goes_on() {
    let base = tempfile::tempdir().unwrap();
    let at = base.path();
    let parent = Site::root(at, REALM, "jiangjin", NOW);
    let child = Site::join(&parent, at, "jinfu", Level::Community, NOW);
    let clerk = child.operator(Role::Clerk, None, NOW);
    let persons = rows("person", 7, 24, 1);
    let (first, rest) = persons.split_at(persons.len() / 2);
    child.import(&clerk, "person", first, NOW);
    let disks = Disks::new();
    disks.settle(&[(&child, &parent)], NOW);
    let dir = child.close();
    let old = at.join("old");
    copy(&dir, &old);

    let child = Site::open(&dir, NOW);
    let clerk = child.registry.login("clerk", tests::realm::PASSPHRASE, NOW);
    let again: Vec<_> = rest.to_vec();
    let report = child.registry.import(
        &clerk.unwrap(),
        &registry::register::ImportChunk {
            kind: kind("person"),
            source: "7".repeat(64),
            numbers: (1..=again.len() as u64).collect(),
            rows: again,
            dry_run: false,
        },
        NOW,
    );
    assert_eq!(report.unwrap().rejected, 0);
    disks.settle(&[(&child, &parent)], NOW);
    let whole = child.registry.status().unwrap();
    let dir = child.close();

    // The old copy takes its place. What was last signed lies beside it.
    std::fs::remove_dir_all(&dir).unwrap();
    copy(&old, &dir);
    let child = Site::open(&dir, NOW);
    assert!(!child.registry.status().unwrap().halted.is_empty());
    // Its bundle has a number that was given before: a receipt tells it how far it was.
    let packed = disks.pack(&child, &parent, |_| {}, NOW);
    if let Ok(packed) = packed {
        let request = OpenRequest {
            files: packed.files,
        };
        let refused = parent.registry.ferry_open(&parent.officer, &request, NOW);
        let repeated = refused.as_ref().is_ok_and(|report| report.repeated);
        let other = matches!(
            &refused,
            Err(RegistryError::Ferry(Refused::OtherHistory { .. }))
        );
        assert!(repeated || other, "{refused:?}");
    }
    disks.receipt(&parent, &child, NOW);
    for _ in 0..3 {
        let packed = disks.pack(&child, &parent, |request| request.since = Some(0), NOW);
        open(&parent, &packed.unwrap().files, NOW);
        let packed = disks.pack(&parent, &child, |request| request.since = Some(0), NOW);
        open(&child, &packed.unwrap().files, NOW);
    }
    let status = child.registry.status().unwrap();
    assert!(status.halted.is_empty(), "{:?}", status.halted);
    let sizes = |status: &registry::status::NodeStatus| {
        let own = status.ledgers.iter().filter(|line| line.own);
        own.filter(|line| line.origin.ledger().as_str() == "person")
            .map(|line| (line.size, line.root.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(&status), sizes(&whole));
    for site in [child, parent] {
        let dir = site.close();
        verified(&dir);
    }
}
