//! What a made-up community promises: reproducible, checked, unique, and made of real households.

use std::collections::{BTreeMap, BTreeSet};

use record::id::Kind;
use record::schema::{Catalogue, Schema};
use sample::{Community, Place, Table, community};

fn schema(kind: &str) -> &'static Schema {
    let kind = Kind::new(kind).expect("a kind is a slug");
    Catalogue::builtin()
        .schema(&kind)
        .expect("every kind has a schema")
}

fn bytes(community: &Community) -> Vec<String> {
    community.tables().iter().map(|(_, t)| t.csv()).collect()
}

/// The cells of some columns, row by row.
fn cells<'a>(table: &'a Table, headers: &[&str]) -> Vec<Vec<&'a str>> {
    let columns: Vec<Vec<&str>> = headers.iter().map(|h| table.column(h).collect()).collect();
    (0..table.rows.len())
        .map(|row| columns.iter().map(|column| column[row]).collect())
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_or_place_others() {
    let first = community(1, 500, &Place::default());
    assert_eq!(bytes(&first), bytes(&community(1, 500, &Place::default())));
    assert_ne!(bytes(&first), bytes(&community(2, 500, &Place::default())));
    assert_ne!(
        bytes(&first),
        bytes(&community(1, 500, &Place::numbered(3)))
    );
}

#[test]
fn a_community_has_as_many_persons_as_asked_for() {
    for persons in [0, 1, 2, 3, 17, 250] {
        for seed in 0..5 {
            let community = community(seed, persons, &Place::default());
            assert_eq!(community.persons.rows.len(), persons);
            assert!(!community.grids.rows.is_empty());
        }
    }
}

#[test]
fn every_row_of_every_kind_checks_clean() {
    for (seed, persons, place) in [
        (1, 3000, Place::default()),
        (2, 40, Place::numbered(0)),
        (3, 400, Place::numbered(9_998)),
    ] {
        for (kind, table) in community(seed, persons, &place).tables() {
            let schema = schema(kind);
            for (at, draft) in table.drafts().enumerate() {
                let checked = draft.check(schema, Catalogue::builtin(), "2026-06-30");
                let checked =
                    checked.unwrap_or_else(|violations| panic!("{kind} {at}: {violations:?}"));
                for (id, cell) in table.headers.iter().zip(&table.rows[at]) {
                    let position = schema.field(id).unwrap().position;
                    let kept = checked.value(position).unwrap_or_default();
                    let number = matches!(*id, "longitude" | "latitude");
                    assert!(number || kept == cell, "{kind} {at} {id}: not canonical");
                }
            }
        }
    }
}

#[test]
fn no_two_rows_share_a_unique_value_not_even_between_communities() {
    let all = [
        community(1, 4000, &Place::numbered(1)),
        community(1, 4000, &Place::numbered(2)),
    ];
    for kind in [
        "grid", "address", "building", "room", "person", "unit", "facility",
    ] {
        for field in schema(kind).fields.iter().filter(|field| field.unique) {
            let mut seen = BTreeSet::new();
            for community in &all {
                let (headers, rows) = community.rows(kind).unwrap();
                let at = headers.iter().position(|h| *h == field.id).unwrap();
                for row in rows.iter().filter(|row| !row[at].is_empty()) {
                    assert!(seen.insert(row[at].clone()), "{kind} {}", field.id);
                }
            }
        }
    }
}

#[test]
fn a_household_has_one_head_one_room_and_births_that_can_be() {
    let community = community(5, 5000, &Place::default());
    let headers = [
        "household_code",
        "room_code",
        "family_relation",
        "birth_date",
        "grid",
    ];
    let mut households: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for row in cells(&community.persons, &headers) {
        households.entry(row[0]).or_default().push(row);
    }
    let rooms: BTreeMap<&str, &str> = cells(&community.rooms, &["room_code", "grid"])
        .iter()
        .map(|row| (row[0], row[1]))
        .collect();
    let mut taken = BTreeSet::new();
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for members in households.values() {
        *sizes.entry(members.len()).or_default() += 1;
        assert_eq!(
            members.iter().filter(|m| m[2] == "02").count(),
            1,
            "one head"
        );
        assert!(
            members
                .iter()
                .filter(|m| matches!(m[2], "11" | "12"))
                .count()
                <= 1
        );
        assert!(members.iter().all(|m| m[1] == members[0][1]), "one room");
        assert_eq!(
            rooms.get(members[0][1]),
            Some(&members[0][4]),
            "the room's grid"
        );
        assert!(taken.insert(members[0][1]), "a room of its own");
        let year = |m: &Vec<&str>| m[3][..4].parse::<i32>().unwrap();
        let head = members.iter().find(|m| m[2] == "02").unwrap();
        for member in members {
            let apart = year(member) - year(head);
            match member[2] {
                "21" | "22" | "23" | "24" | "31" | "32" | "33" | "34" => {
                    assert!((16..=43).contains(&apart), "{apart}");
                }
                "41" | "42" => assert!(apart >= 35),
                "51" | "52" => assert!((-40..=-18).contains(&apart), "{apart}"),
                "11" | "12" => assert!(apart.abs() <= 6),
                _ => {}
            }
        }
        let children: Vec<&Vec<&str>> = members
            .iter()
            .filter(|m| m[2].starts_with(['2', '3']))
            .collect();
        assert!(
            children.iter().is_sorted_by(|a, b| a[3] < b[3]),
            "eldest first"
        );
        let only = children.iter().any(|m| matches!(m[2], "21" | "31"));
        assert!(!only || children.len() == 1);
    }
    assert!(sizes.len() >= 5, "{sizes:?}");
    assert!(rooms.len() > households.len(), "some rooms are empty");
}

#[test]
fn the_ages_are_those_of_a_town() {
    let community = community(9, 20_000, &Place::default());
    let ages: Vec<i32> = community
        .persons
        .column("birth_date")
        .map(|date| 2026 - date[..4].parse::<i32>().unwrap())
        .collect();
    let share = |low, high| {
        let inside = ages
            .iter()
            .filter(|age| (low..=high).contains(*age))
            .count();
        inside * 100 / ages.len()
    };
    assert!((12..=22).contains(&share(0, 14)), "{}", share(0, 14));
    assert!((55..=72).contains(&share(15, 59)), "{}", share(15, 59));
    assert!((15..=28).contains(&share(60, 130)), "{}", share(60, 130));
}

#[test]
fn nobody_in_it_can_be_somebody() {
    let community = community(4, 2000, &Place::numbered(17));
    let numbers = community.persons.column("citizen_number");
    assert!(
        numbers
            .filter(|n| !n.is_empty())
            .all(|n| n.starts_with("990017"))
    );
    let phones = community.persons.column("phone");
    assert!(
        phones
            .filter(|p| !p.is_empty())
            .all(|p| p.starts_with("154"))
    );
    let codes = community.units.column("credit_code");
    assert!(
        codes
            .map(|code| &code[2..8])
            .all(|region| region == "990017")
    );
}
