//! What a request may not do, whoever makes it: write what no other node would take, learn without a
//! trace, or have the node read and write where it must not.
//!
//! Nodes are open in this process.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use record::authority::{Level, Role};
use registry::RegistryError;
use registry::ferry::open::OpenRequest;
use registry::ferry::pack::PackRequest;
use registry::grant::GrantRequest;
use registry::read::ReadRequest;
use registry::register::{Amendment, ImportChunk};
use registry::session::Session;
use tests::realm::{NOW, REALM, Row, Site, division, kind, purpose, reading, replicate, rows};

struct World {
    base: tempfile::TempDir,
    district: Site,
    community: Site,
    clerk: Session,
    persons: Vec<Row>,
}

fn world() -> World {
    let base = tempfile::tempdir().unwrap();
    let district = Site::root(base.path(), REALM, "jiangjin", NOW);
    let community = Site::join(&district, base.path(), "jinfu", Level::Community, NOW);
    let clerk = community.operator(Role::Clerk, None, NOW);
    let persons = rows("person", 7, 6, 1);
    community.import(&clerk, "person", &persons, NOW);
    replicate(&community, &district, NOW);
    World {
        base,
        district,
        community,
        clerk,
        persons,
    }
}

impl World {
    fn size(&self, ledger: &str) -> u64 {
        let status = self.community.registry.status().unwrap();
        let origin = format!("{REALM}/jinfu/{ledger}");
        let line = status.ledgers.iter().find(|l| l.origin.as_str() == origin);
        line.map_or(0, |line| line.size)
    }

    fn pack(&self, out: &Path) -> Result<(), RegistryError> {
        let request = PackRequest {
            to: division("jiangjin"),
            out: out.to_owned(),
            max_bytes: None,
            since: None,
            one_way: false,
            receipt: false,
        };
        let community = &self.community;
        community
            .registry
            .ferry_pack(&community.officer, &request, NOW)
            .map(|_| ())
    }
}

#[test]
fn words_of_a_megabyte_are_refused_and_nothing_is_written() {
    let world = world();
    let long = "据".repeat(300_000);
    let (access, authority) = (world.size("access"), world.size("authority"));
    let reading = ReadRequest {
        closed: false,
        basis: Some(long.clone()),
        ..reading("person", "registration")
    };
    let registry = &world.community.registry;
    let refused = registry.read(&world.clerk, &reading, NOW).unwrap_err();
    assert!(matches!(refused, RegistryError::BadRequest(_)), "{refused}");
    let grant = GrantRequest {
        kind: kind("person"),
        holder: division("jiangjin"),
        fields: vec!["name".into()],
        rows: BTreeMap::new(),
        purpose: purpose("welfare"),
        basis: long,
        assessment: "PIA-1".into(),
        days: 30,
        history: record::authority::History::default(),
    };
    let officer = &world.community.officer;
    let refused = registry.grant(officer, &grant, NOW).unwrap_err();
    assert!(matches!(refused, RegistryError::BadRequest(_)), "{refused}");
    assert_eq!(
        (world.size("access"), world.size("authority")),
        (access, authority)
    );
    // And the session goes on.
    let seen = replicate(&world.community, &world.district, NOW);
    assert!(
        seen.refused.is_empty() && seen.rejected.is_empty(),
        "{seen:?}"
    );
}

/// A grid worker who sees masked numbers must not confirm guesses without a trace.
#[test]
fn a_preview_that_says_who_is_registered_is_recorded_before_it_is_answered() {
    let world = world();
    let before = world.size("access");
    let preview = |row: Row| ImportChunk {
        kind: kind("person"),
        source: "ab".repeat(32),
        numbers: vec![1],
        rows: vec![row],
        dry_run: true,
    };
    let registry = &world.community.registry;
    let known = preview(world.persons[0].clone());
    let report = registry.import(&world.clerk, &known, NOW).unwrap();
    assert_eq!(report.rejected, 1);
    assert_eq!(world.size("access"), before + 2, "the answer and its act");
    // What tells nothing of anybody leaves nothing.
    let new = rows("person", 8, 6, 2).swap_remove(0);
    let report = registry.import(&world.clerk, &preview(new), NOW).unwrap();
    assert_eq!(report.rejected, 0, "{:?}", report.violations);
    assert_eq!(world.size("access"), before + 2);
}

#[test]
fn an_amendment_that_says_who_is_registered_is_recorded_before_it_is_answered() {
    let world = world();
    let registry = &world.community.registry;
    let reading = ReadRequest {
        closed: false,
        ..reading("person", "registration")
    };
    let answer = registry.read(&world.clerk, &reading, NOW).unwrap();
    let number = &world.persons[1]["citizen_number"];
    let mut rows = answer.value().rows.iter();
    let row = rows.find(|row| row.fields.get("citizen_number") == Some(number));
    let record = row.unwrap().record;
    let amend = |to: &Row| {
        let mut changes = to.clone();
        changes.retain(|field, _| !["status", "valid_from"].contains(&field.as_str()));
        let amendment = Amendment {
            kind: kind("person"),
            record,
            version: 1,
            changes,
            close: false,
            reopen: false,
            purpose: purpose("correction"),
        };
        registry.amend(&world.clerk, &amendment, NOW)
    };
    let before = world.size("access");
    let refused = amend(&world.persons[0]).unwrap_err();
    let RegistryError::Invalid(violations) = &refused else {
        panic!("{refused}");
    };
    assert_eq!(violations[0].field, "citizen_number");
    assert_eq!(world.size("access"), before + 2, "the answer and its act");
    // What tells nothing of anybody leaves nothing.
    amend(&tests::realm::rows("person", 9, 6, 3)[0]).unwrap();
    assert_eq!(world.size("access"), before + 2);
}

#[test]
fn a_bundle_is_not_written_among_the_files_that_the_node_lives_on() {
    let world = world();
    let dir = &world.community.dir;
    for out in [
        dir.join("segments/00000099.seg"),
        dir.join("keystore.next"),
        dir.clone(),
        dir.with_extension("signed"),
    ] {
        let refused = world.pack(&out).unwrap_err().to_string();
        assert!(refused.contains("own directory"), "{refused}");
    }
    assert!(!dir.join("segments/00000099.seg").exists());
    // Nor over a link that leads nowhere.
    let link = world.base.path().join("link");
    std::os::unix::fs::symlink(world.base.path().join("nowhere"), &link).unwrap();
    assert!(world.pack(&link).is_err());
    assert!(world.pack(&world.base.path().join("bundle.ferry")).is_ok());
}

#[test]
fn a_pipe_is_no_bundle_and_keeps_nobody_waiting() {
    let world = world();
    let pipe: PathBuf = world.base.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let community = &world.community;
    let refused = community
        .registry
        .ferry_open(&community.officer, &OpenRequest { files: vec![pipe] }, NOW)
        .unwrap_err();
    assert!(refused.to_string().contains("regular file"), "{refused}");
}
