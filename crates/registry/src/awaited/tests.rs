//! A node whose records came before the schema that they were written under.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use record::authority::{Level, Role};
use record::id::{DivisionId, Kind, Realm, UnixMillis};
use record::published::{FORMAT, PublishedSet, SetFile, What};
use record::schema::Catalogue;

use super::AWAITED;
use crate::config::KeyCustody;
use crate::error::Result;
use crate::keys::Opener;
use crate::node::{NewNode, Registry, purpose};
use crate::read::ReadRequest;
use crate::register::{ImportChunk, ImportReport};
use crate::session::{NewOperator, Session};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const PASSPHRASE: &str = "only for schemas";

fn units() -> Kind {
    Kind::new("unit").unwrap()
}

/// The program's schemas with one more field for units.
fn published() -> &'static Catalogue {
    let builtin = Catalogue::builtin();
    let mut schema = serde_json::to_value(builtin.schema(&units()).unwrap()).unwrap();
    schema["version"] = 1001.into();
    let field = serde_json::json!({
        "position": 40, "id": "motto", "name": "标语", "english": "Motto",
        "type": "text", "width": 30, "group": "identity", "sensitivity": "P1",
        "purpose": "登记"
    });
    schema["fields"].as_array_mut().unwrap().push(field);
    let set = PublishedSet {
        format: FORMAT,
        what: What::Schemas,
        version: 2,
        program: "0.1.0".into(),
        files: vec![SetFile {
            name: "unit.json".into(),
            text: schema.to_string(),
        }],
        lowers: vec![],
    };
    Box::leak(Box::new(builtin.with_published(&set).unwrap()))
}

fn open(dir: &Path) -> Registry {
    Registry::open(dir, &Opener::File, NOW).unwrap()
}

fn import(registry: &Registry, clerk: &Session, number: u64) -> Result<ImportReport> {
    let row = BTreeMap::from([
        ("unit_name".to_owned(), format!("长寿路{number}号段")),
        ("registered_address".to_owned(), format!("S{number:06}")),
    ]);
    let chunk = ImportChunk {
        kind: units(),
        source: "11".repeat(32),
        numbers: vec![number],
        rows: vec![row],
        dry_run: false,
    };
    registry.import(clerk, &chunk, NOW)
}

fn read(registry: &Registry, clerk: &Session) -> Result<usize> {
    let request = ReadRequest {
        closed: false,
        kind: units(),
        filters: vec![],
        fields: None,
        purpose: purpose("registration"),
        basis: None,
        limit: None,
    };
    let answer = registry.read(clerk, &request, NOW)?;
    Ok(answer.value().rows.len())
}

#[test]
fn a_node_starts_without_a_schema_that_its_records_need_and_opens_them_when_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewNode {
        realm: Realm::new("awaited.example").unwrap(),
        division: DivisionId::new("jinfu").unwrap(),
        name: "金福".into(),
        level: Level::Community,
        codes: vec![],
        http: "127.0.0.1:1".into(),
        listen: "127.0.0.1:2".into(),
        custody: KeyCustody::File,
        quorum: 1,
    };
    crate::node::init(dir.path(), new, &Opener::File, NOW).unwrap();
    let registry = open(dir.path());
    let enrol = |by: Option<&Session>, login: &str, role| {
        let new = NewOperator {
            login: login.into(),
            passphrase: PASSPHRASE.into(),
            role,
            grid: None,
        };
        registry.enrol_operator(by, &new, NOW).unwrap();
        registry.login(login, PASSPHRASE, NOW).unwrap()
    };
    let officer = enrol(None, "anquan", Role::SecurityOfficer);
    let clerk = enrol(Some(&officer), "dengji", Role::Clerk);
    import(&registry, &clerk, 1).unwrap();
    let shard = registry.shard(&units());
    let adopt = |registry: &Registry| {
        let mut running = registry.published.running();
        running.catalogue = published();
        registry.published.replace(running);
    };
    let schema = published().schema(&units()).unwrap();
    registry.remake_holding(&shard, schema).unwrap();
    adopt(&registry);
    import(&registry, &clerk, 2).unwrap();
    drop(registry);

    // The ledger has a record under version 1001, and nothing here says what that is.
    let registry = open(dir.path());
    let alarms = registry.alarms().unwrap();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!(alarms[0].code, AWAITED);
    assert!(alarms[0].reason.contains("1001"), "{alarms:?}");
    let clerk = registry.login("dengji", PASSPHRASE, NOW).unwrap();
    assert_eq!(read(&registry, &clerk).unwrap_err().code(), "no-schema");
    let refused = import(&registry, &clerk, 3).unwrap_err();
    assert_eq!(refused.code(), "no-schema");

    adopt(&registry);
    registry.open_awaiting(NOW).unwrap();
    assert_eq!(registry.alarms().unwrap(), []);
    assert_eq!(read(&registry, &clerk).unwrap(), 2);
    import(&registry, &clerk, 3).unwrap();
    assert_eq!(read(&registry, &clerk).unwrap(), 3);
}
