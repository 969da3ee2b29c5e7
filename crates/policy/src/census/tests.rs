//! Who is told to see more, in a made-up realm, and that it is what is decided.

use record::published::{FORMAT, PublishedSet, SetFile, What};

use super::*;
use crate::decision::decide;
use crate::question::Question;
use crate::set::BUILTIN;

fn division(text: &str) -> DivisionId {
    DivisionId::new(text).unwrap()
}

fn member(name: &str, level: Level, above: &[(&str, Level)]) -> Member {
    Member {
        division: division(name),
        level,
        above: above.iter().map(|(d, l)| (division(d), *l)).collect(),
    }
}

/// A district with two towns of two communities each, and two departments.
fn realm() -> Vec<Member> {
    let district = ("jiangjin", Level::District);
    let mut members = vec![
        member("jiangjin", Level::District, &[]),
        member("minzheng", Level::Department, &[district]),
        member("weijian", Level::Department, &[district]),
    ];
    for town in ["shuangfu", "dongfu"] {
        members.push(member(town, Level::Town, &[district]));
        for at in 1..=2 {
            let name = format!("{town}-{at}");
            members.push(member(
                &name,
                Level::Community,
                &[(town, Level::Town), district],
            ));
        }
    }
    members
}

fn changed(change: impl Fn(&str, &str) -> Option<String>) -> PolicySet {
    let files: Vec<(&str, String)> = BUILTIN
        .iter()
        .map(|(name, text)| (*name, change(name, text).unwrap_or((*text).to_owned())))
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    PolicySet::published(&files).unwrap()
}

fn census(before: &PolicySet, after: &PolicySet) -> Census {
    let catalogue = Catalogue::builtin();
    let side = |set| Side { set, catalogue };
    opened(side(before), side(after), &realm())
}

/// District officers see names and the like for emergencies, too.
fn wider() -> PolicySet {
    changed(|name, text| {
        (name == "reading.cedar").then(|| {
            format!("{text}\n@id(\"district-officer-reads-names\")@ask(\"区县 / the district\")\npermit(principal, action == Action::\"read\", resource) when {{ principal.role == Role::\"district-officer\" && resource in principal.organization && resource.sensitivity == 2 && context.purpose == Purpose::\"emergency\" }};")
        })
    })
}

#[test]
fn a_rule_that_opens_a_field_is_told_with_the_field_the_divisions_and_the_organizations() {
    let builtin = PolicySet::builtin().unwrap();
    let wider = wider();
    let census = census(builtin, &wider);
    assert_eq!(census.more, 0);
    assert!(!census.lines.is_empty());
    for line in &census.lines {
        assert_eq!(line.role, Role::DistrictOfficer);
        assert_eq!(line.actions, ["read"]);
        assert_eq!(line.purposes, [Purpose::new("emergency").unwrap()]);
        assert_eq!((line.before, line.after), (Shown::Withheld, Shown::Shown));
        let schema = Catalogue::builtin().schema(&line.kind).unwrap();
        let field = schema.field(&line.field).unwrap();
        assert_eq!(field.sensitivity, record::schema::Sensitivity::P2);
        assert_ne!(line.stands, Stands::Elsewhere);
    }
    let above: Vec<_> = census
        .lines
        .iter()
        .filter(|l| l.field == "name" && l.kind.as_str() == "person")
        .filter(|l| l.stands == Stands::Above(1))
        .collect();
    // The towns over their communities; the district over towns; the district over departments.
    assert_eq!(above.len(), 3);
    let of_communities = above.iter().find(|l| l.divisions.len() == 4).unwrap();
    assert_eq!(
        of_communities.organizations,
        [division("dongfu"), division("shuangfu")]
    );
    // Nothing is opened the other way.
    let side = |set| Side {
        set,
        catalogue: Catalogue::builtin(),
    };
    assert!(
        opened(side(&wider), side(builtin), &realm())
            .lines
            .is_empty()
    );
}

#[test]
fn what_the_census_tells_is_what_is_decided() {
    let builtin = PolicySet::builtin().unwrap();
    let wider = wider();
    for line in &census(builtin, &wider).lines {
        let schema = Catalogue::builtin().schema(&line.kind).unwrap();
        let realm = realm();
        let of = |name: &DivisionId| realm.iter().find(|m| m.division == *name).unwrap().clone();
        let whose = of(&line.divisions[0]);
        let organization = match line.stands {
            Stands::Own => whose.division.clone(),
            Stands::Above(at) => whose.above[at - 1].0.clone(),
            Stands::Elsewhere => unreachable!(),
        };
        let asker = Asker {
            operator: OperatorId([7; 16]),
            role: line.role,
            level: of(&organization).level,
            organization,
            grid: None,
        };
        let ancestors: Vec<DivisionId> = whose.above.iter().map(|(d, _)| d.clone()).collect();
        let question = Question {
            asker: &asker,
            action: Action::Read,
            schema,
            division: &whose.division,
            ancestors: &ancestors,
            held_by_grant: (line.stands != Stands::Own).then_some(&line.purposes[0]),
            purpose: &line.purposes[0],
        };
        let position = schema.field(&line.field).unwrap().position;
        let shown = |set: &PolicySet| {
            decide(set, &question).map_or(Shown::Withheld, |d| d.fields()[&position])
        };
        assert_eq!((shown(builtin), shown(&wider)), (line.before, line.after));
    }
}

#[test]
fn a_rule_that_names_a_division_is_told_for_that_division_alone() {
    let builtin = PolicySet::builtin().unwrap();
    let one = changed(|name, text| {
        (name == "reading.cedar").then(|| {
            format!("{text}\n@id(\"one\")@ask(\"甲 / a\")\npermit(principal, action == Action::\"read\", resource) when {{ principal.role == Role::\"clerk\" && principal.organization == Division::\"minzheng\" && resource.division == Division::\"dongfu-2\" && resource.sensitivity <= 2 }};")
        })
    });
    let census = census(builtin, &one);
    let names: BTreeSet<_> = census
        .lines
        .iter()
        .filter(|l| l.after == Shown::Shown)
        .map(|l| (l.organizations.clone(), l.divisions.clone()))
        .collect();
    assert_eq!(
        names,
        [(vec![division("minzheng")], vec![division("dongfu-2")])].into()
    );
}

#[test]
fn a_new_field_is_told_to_everybody_whom_the_rules_show_it() {
    let kind = Kind::new("person").unwrap();
    let builtin = Catalogue::builtin();
    let mut schema = serde_json::to_value(builtin.schema(&kind).unwrap()).unwrap();
    schema["version"] = 1001.into();
    schema["fields"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({
            "position": 40, "id": "tongue", "name": "语言", "english": "Language",
            "type": "text", "width": 30, "group": "identity", "sensitivity": "P3",
            "purpose": "提供语言服务"
        }));
    let set = PublishedSet {
        format: FORMAT,
        what: What::Schemas,
        version: 2,
        program: "0.1.0".into(),
        files: vec![SetFile {
            name: "person.json".into(),
            text: schema.to_string(),
        }],
        lowers: vec![],
    };
    let after = builtin.with_published(&set).unwrap();
    let rules = PolicySet::builtin().unwrap();
    let side = |catalogue| Side {
        set: rules,
        catalogue,
    };
    let census = opened(side(builtin), side(&after), &realm());
    assert_eq!(census.fields, 1);
    let clerks = census
        .lines
        .iter()
        .find(|l| l.role == Role::Clerk && l.actions.contains(&"read"))
        .unwrap();
    assert_eq!(
        (clerks.field.as_str(), clerks.stands),
        ("tongue", Stands::Own)
    );
    // P3 is nothing for a district officer.
    assert!(census.lines.iter().all(|l| l.role != Role::DistrictOfficer));
}
