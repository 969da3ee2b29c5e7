//! Published sets that do not count: not approved, replayed, malformed, hostile. In one process, with
//! the clock as an argument; the forger has every key of the root's node, and none of its officers'.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use record::authority::{AuthorityEntry, Level, Role, Statement};
use record::entry::{Entry, SUITE};
use record::plan::{Approval, Plan, Work};
use record::published::{FORMAT, Published, PublishedSet, SetFile, What};
use registry::RegistryError;
use registry::plan::approve::plan_id;
use registry::published::plan::PublishRequest;
use registry::published::show::{PublishedStatus, SetState};
use registry::session::Session;
use tests::realm::{NOW, REALM, Site, division, forge, origin, settle};

struct World {
    _base: tempfile::TempDir,
    district: Site,
    fu: Session,
    town: Site,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let district = Site::root(base.path(), REALM, "jiangjin", NOW);
        let fu = district.enrol("fu", Role::SecurityOfficer, None, NOW);
        let town = Site::join(&district, base.path(), "shuangfu", Level::Town, NOW);
        settle(&[(&town, &district)], NOW);
        Self {
            _base: base,
            district,
            fu,
            town,
        }
    }

    fn settle(&self) {
        settle(&[(&self.town, &self.district)], NOW);
    }

    fn request(what: What, name: &str, text: &str) -> PublishRequest {
        PublishRequest {
            what,
            files: vec![SetFile {
                name: name.into(),
                text: text.into(),
            }],
            lowers: vec![],
            dry_run: false,
        }
    }

    fn refused(&self, request: &PublishRequest) -> String {
        let refused = self
            .district
            .registry
            .publish_plan(&self.district.officer, request, NOW);
        match refused {
            Err(RegistryError::BadRequest(words)) => words,
            other => panic!("{other:?}"),
        }
    }

    /// Publishes a list of its own on the word of two officers.
    fn publish(&self, codes: &str) {
        let registry = &self.district.registry;
        let request = Self::request(What::Codes, "dialect.csv", codes);
        let proposed = registry
            .publish_plan(&self.district.officer, &request, NOW)
            .unwrap();
        let id = plan_id(&proposed.plan.unwrap().id).unwrap();
        registry.approve(&self.fu, &id, true, NOW).unwrap();
        registry.run_plan(&self.district.officer, &id, NOW).unwrap();
    }

    /// Puts statements with their bodies at the end of the root's ledger, signed by the root's node.
    fn forge(self, statements: Vec<(Statement, Vec<u8>)>) -> Self {
        let ledger = origin("jiangjin", "authority");
        let dir = self.district.close();
        let owner = forge::keystore(&dir).sign.signing_key();
        for (statement, body) in statements {
            let entry = Entry::Authority(AuthorityEntry {
                suite: SUITE,
                statement,
                recorded_at: NOW,
            });
            let head = {
                let store = forge::open_store(&dir);
                let head = forge::head(&store, &ledger);
                (head.size, head.root)
            };
            let Entry::Act(act) = forge::act("jiangjin", head, NOW) else {
                unreachable!()
            };
            forge::append(&dir, &ledger, &owner, (entry, body), (act, &owner));
        }
        let district = Site::open(&dir, NOW);
        let fu = district
            .registry
            .login("fu", tests::realm::PASSPHRASE, NOW)
            .unwrap();
        Self {
            district,
            fu,
            ..self
        }
    }
}

fn status(site: &Site) -> PublishedStatus {
    site.registry.published_status(NOW).unwrap()
}

fn schemas_of(told_by: &Site, name: &str) -> (String, Option<String>) {
    let status = status(told_by);
    let node = status
        .nodes
        .iter()
        .find(|n| n.division == division(name))
        .unwrap();
    let schemas = node.versions.iter().find(|v| v.what == "schemas").unwrap();
    let declined = schemas.declined.as_ref().map(|d| d.reason.clone());
    (schemas.version.clone(), declined)
}

fn has(site: &Site, list: &str) -> bool {
    site.registry.catalogue().codes(list).is_some()
}

const ONE: &str = "code,name\n1,甲\n";
const TWO: &str = "code,name\n1,甲\n2,乙\n";

fn set(version: u32, program: &str, name: &str, text: &str) -> PublishedSet {
    PublishedSet {
        format: FORMAT,
        what: if name.ends_with(".json") {
            What::Schemas
        } else {
            What::Codes
        },
        version,
        program: program.into(),
        files: vec![SetFile {
            name: name.into(),
            text: text.into(),
        }],
        lowers: vec![],
    }
}

#[test]
fn a_set_that_only_the_roots_node_signed_is_adopted_nowhere_and_raises_an_alarm() {
    let world = World::new();
    let forged = set(2, "0.1.0", "dialect.csv", ONE);
    let published = Published {
        what: What::Codes,
        version: 2,
        hash: forged.hash(),
        plan: [7; 32],
    };
    let world = world.forge(vec![(Statement::Published(published), forged.encode())]);
    world.settle();
    for site in [&world.district, &world.town] {
        assert!(!has(site, "dialect"));
        let sets = status(site).sets;
        assert_eq!(sets.len(), 1);
        assert_eq!(sets[0].state, SetState::Declined);
        assert_eq!(sets[0].reason.as_deref(), Some("forged"));
        let alarms = site.registry.alarms().unwrap();
        assert!(
            alarms.iter().any(|a| a.code == "published-forged"),
            "{alarms:?}"
        );
    }
    assert_eq!(
        schemas_of(&world.district, "shuangfu"),
        ("1".into(), Some("forged".into()))
    );
    // Verifying the bytes alone finds it, too.
    let report = registry::verify::verify(&world.town.close()).unwrap();
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.what.contains("two officers")),
        "{report:?}"
    );
}

#[test]
fn an_approved_set_is_not_adopted_a_second_time_over_a_newer_one() {
    let world = World::new();
    world.publish(ONE);
    world.publish(TWO);
    world.settle();
    assert_eq!(
        world
            .town
            .registry
            .catalogue()
            .codes("dialect")
            .unwrap()
            .len(),
        2
    );
    let ledger = origin("jiangjin", "authority");
    let dir = world.district.dir.clone();
    let first = {
        let World {
            district,
            fu,
            town,
            _base,
        } = world;
        drop(district);
        let leaves = forge::leaves(&forge::open_store(&dir), &ledger);
        let first = leaves.into_iter().find_map(|(entry, body)| match entry {
            Entry::Authority(AuthorityEntry {
                statement: Statement::Published(p),
                ..
            }) => Some((p, body.unwrap())),
            _ => None,
        });
        let district = Site::open(&dir, NOW);
        (
            first.unwrap(),
            World {
                district,
                fu,
                town,
                _base,
            },
        )
    };
    let ((published, body), world) = first;
    assert_eq!(published.version, 2);
    // Replayed as it is, with everything that two officers signed.
    let world = world.forge(vec![(Statement::Published(published), body)]);
    world.settle();
    assert_eq!(
        world
            .town
            .registry
            .catalogue()
            .codes("dialect")
            .unwrap()
            .len(),
        2
    );
    assert_eq!(schemas_of(&world.district, "shuangfu").0, "3");
    let states: Vec<SetState> = status(&world.town).sets.iter().map(|s| s.state).collect();
    assert_eq!(states.len(), 3);
    assert!(
        world
            .town
            .registry
            .alarms()
            .unwrap()
            .iter()
            .any(|a| a.code == "published-forged")
    );
    // The officers go on above it.
    world.publish("code,name\n1,甲\n2,乙\n3,丙\n");
    world.settle();
    assert_eq!(schemas_of(&world.district, "shuangfu").0, "4");
    assert_eq!(
        world
            .town
            .registry
            .catalogue()
            .codes("dialect")
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn sets_that_break_a_rule_are_refused_before_a_plan_is_made() {
    let world = World::new();
    let person = world
        .district
        .registry
        .published_files(What::Schemas)
        .unwrap();
    let person = &person
        .iter()
        .find(|f| f.name == "person.json")
        .unwrap()
        .text;
    let next = person.replacen("\"version\": 1", "\"version\": 1001", 1);
    let schemas = |text: &str| World::request(What::Schemas, "person.json", text);
    for (text, why) in [
        (person.as_str(), "nothing"),
        ("{", "schema file"),
        (&"[".repeat(100_000), "schema file"),
        (
            &next.replacen("\"version\": 1001", "\"version\": 2", 1),
            "1001",
        ),
        (
            &next.replacen("\"width\": 60", "\"width\": 59", 1),
            "narrower",
        ),
        (
            &next.replacen("\"id\": \"name\"", "\"id\": \"full_name\"", 1),
            "position",
        ),
        (
            &next.replacen("\"sensitivity\": \"P3\"", "\"sensitivity\": \"P2\"", 1),
            "P3",
        ),
    ] {
        let words = world.refused(&schemas(text));
        assert!(words.contains(why), "{words}");
    }
    let phone = next.replacen("\"sensitivity\": \"P2\"", "\"sensitivity\": \"P1\"", 1);
    assert!(world.refused(&schemas(&phone)).contains("sensitivity"));
    let said = PublishRequest {
        lowers: vec!["person.name".into()],
        dry_run: true,
        ..schemas(&phone)
    };
    let registry = &world.district.registry;
    let shown = registry
        .publish_plan(&world.district.officer, &said, NOW)
        .unwrap();
    assert!(shown.opened.lines.iter().any(|l| l.field == "name"));
    let codes = |name: &str, text: &str| World::request(What::Codes, name, text);
    for request in [
        codes("sex.csv", "code,name\n1,男\n"),
        codes("../sex.csv", ONE),
        codes("person.json", &next),
        codes("dialect.csv", &"x".repeat(600_000)),
        World::request(
            What::Policies,
            "reading.cedar",
            "permit(principal, action, resource);",
        ),
    ] {
        world.refused(&request);
    }
    // Nothing of it left a trace, and a town publishes nothing.
    assert!(registry.plans(NOW).is_empty());
    let town = &world.town.registry;
    let refused = town.publish_plan(&world.town.officer, &codes("dialect.csv", ONE), NOW);
    assert!(matches!(refused, Err(RegistryError::BadRequest(_))));
    // A clerk plans nothing at all.
    let clerk = world.district.operator(Role::Clerk, None, NOW);
    let denied = registry.publish_plan(&clerk, &codes("dialect.csv", ONE), NOW);
    assert!(matches!(denied, Err(RegistryError::Denied { .. })));
}

#[test]
fn a_set_of_a_later_program_is_declined_and_what_was_in_force_stays() {
    // What a root with a later program would publish: two officers signed, this program cannot read it.
    let later = set(
        3,
        "99.0.0",
        "person.json",
        r#"{"kind":"person","version":1001,"iris":true}"#,
    );
    let unusable = set(
        3,
        "0.1.0",
        "person.json",
        r#"{"kind":"person","version":1001,"iris":true}"#,
    );
    for (set, reason) in [(later, "program-too-old"), (unusable, "unusable")] {
        let world = World::new();
        world.publish(ONE);
        let (plan, approval) = signed_for(&world, &set);
        let published = Published {
            what: set.what,
            version: set.version,
            hash: set.hash(),
            plan: plan.id(),
        };
        let world = world.forge(vec![
            (Statement::Plan(plan), vec![]),
            (Statement::Approval(approval), vec![]),
            (Statement::Published(published), set.encode()),
        ]);
        world.settle();
        assert!(has(&world.town, "dialect"));
        assert_eq!(
            schemas_of(&world.district, "shuangfu"),
            ("2".into(), Some(reason.into()))
        );
        assert_eq!(status(&world.town).sets[1].state, SetState::Declined);
        assert!(world.town.registry.alarms().unwrap().is_empty());
    }
}

/// A plan for a set as it is, approved by another officer: what this program's own root refuses to
/// make is stated with the officers' keys.
fn signed_for(world: &World, set: &PublishedSet) -> (Plan, Approval) {
    let dir = &world.district.dir;
    let plan = Plan {
        suite: SUITE,
        division: division("jiangjin"),
        work: Work::Publish {
            what: set.what,
            version: set.version,
            hash: set.hash(),
        },
        made_by: world.district.officer.operator,
        made_at: NOW,
        not_after: record::id::UnixMillis(NOW.0 + 1000),
        figures: vec![],
        nonce: [1; 16],
        signature: [0; 64],
    }
    .sign(&forge::operator_key(dir, "anquan"));
    let approval = Approval {
        suite: SUITE,
        plan: plan.id(),
        division: division("jiangjin"),
        organization: division("jiangjin"),
        operator: world.fu.operator,
        approved: true,
        signed_at: NOW,
        signature: [0; 64],
    }
    .sign(&forge::operator_key(dir, "fu"));
    (plan, approval)
}
