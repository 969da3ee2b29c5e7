//! The index against a plain list that is searched from end to end.

use std::collections::BTreeMap;

use index::{Attributes, CLOSED, FindError, Found, Index, Match, PAGE_BYTES_MAX, PageError};
use proptest::prelude::*;
use record::id::RecordId;
use record::schema::{GRID, Position, STATUS, Schema, VALID_FROM};

const NAME: Position = 4;
const NUMBER: Position = 5;
const NOTE: Position = 6;

fn schema() -> Schema {
    let field = |position: u8, id: &str, searchable: bool, unique: bool| {
        format!(
            r#"{{"position": {position}, "id": "{id}", "name": "{id}", "english": "{id}",
                "type": "text", "width": 60, "group": "core", "sensitivity": "P2",
                "purpose": "test", "searchable": {searchable}, "unique": {unique}}}"#
        )
    };
    let fields = [
        field(STATUS, "status", true, false),
        field(VALID_FROM, "valid_from", false, false),
        field(GRID, "grid", false, false),
        field(NAME, "name", true, false),
        field(NUMBER, "number", true, true),
        field(NOTE, "note", false, false),
    ];
    let text = format!(
        r#"{{"kind": "person", "version": 3, "name": "人口", "english": "person", "fields": [{}]}}"#,
        fields.join(",")
    );
    serde_json::from_str(&text).expect("a schema")
}

type Values = BTreeMap<Position, String>;

#[derive(Clone, Debug)]
struct Model(BTreeMap<RecordId, (u64, u64, Values)>);

impl Model {
    fn find(
        &self,
        filters: &[(Position, Match)],
        rows: &dyn Fn(&Attributes<'_>) -> bool,
        limit: usize,
        after: Option<RecordId>,
    ) -> (Vec<Found>, bool) {
        let holds = |values: &Values| {
            filters.iter().all(|(position, wanted)| {
                let status = String::new();
                let value = match values.get(position) {
                    None if *position == STATUS => Some(&status),
                    other => other,
                };
                value.is_some_and(|value| match wanted {
                    Match::Equals(text) => value == text,
                    Match::Prefix(text) => value.starts_with(text),
                    Match::Contains(text) => value.contains(text),
                })
            }) && rows(&Attributes {
                grid: values.get(&GRID).map(String::as_str),
                status: values.get(&STATUS).map_or("", String::as_str),
            })
        };
        let all: Vec<Found> = (self.0.iter())
            .filter(|(record, (_, _, values))| after.is_none_or(|a| **record > a) && holds(values))
            .map(|(record, (version, at, _))| Found {
                record: *record,
                version: *version,
                at: *at,
            })
            .collect();
        (all.iter().take(limit).copied().collect(), all.len() > limit)
    }
}

fn id(number: u8) -> RecordId {
    RecordId([number; 16])
}

fn text() -> impl Strategy<Value = String> {
    // Few values, so that they collide, share prefixes and come back.
    prop::sample::select(vec![
        "",
        "王",
        "王芳",
        "王小芳",
        "李芳",
        "a",
        "ab",
        "abc",
        "bc",
    ])
    .prop_map(str::to_owned)
}

fn values() -> impl Strategy<Value = Values> {
    let status = prop::option::of(prop::sample::select(vec!["10", "20", CLOSED]));
    let grid = prop::option::of(prop::sample::select(vec!["g1", "g2"]));
    let day = prop::option::of(prop::sample::select(vec!["2026-01-01", "2026-02-01"]));
    let fields = prop::collection::btree_map(NAME..=NOTE, text(), 0..=3);
    (status, grid, day, fields).prop_map(|(status, grid, day, mut values)| {
        for (position, value) in [(STATUS, status), (GRID, grid), (VALID_FROM, day)] {
            values.extend(value.map(|value| (position, value.to_owned())));
        }
        values
    })
}

#[derive(Clone, Debug)]
enum Step {
    Upsert(u8, u64, u64, Values),
    Remove(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let upsert = (0..24_u8, 0..9_u64, any::<u64>(), values())
        .prop_map(|(record, version, at, values)| Step::Upsert(record, version, at, values));
    let remove = (0..24_u8).prop_map(Step::Remove);
    prop::collection::vec(prop_oneof![3 => upsert, 1 => remove], 0..80)
}

fn filters() -> impl Strategy<Value = Vec<(Position, Match)>> {
    let wanted = (text(), 0..3).prop_map(|(text, way)| match way {
        0 => Match::Equals(text),
        1 => Match::Prefix(text),
        _ => Match::Contains(text),
    });
    let status = prop::sample::select(vec!["", "1", "10"])
        .prop_map(|text| (STATUS, Match::Prefix(text.to_owned())));
    prop::collection::vec(prop_oneof![(NAME..=NUMBER, wanted), status], 0..3)
}

fn run(steps: &[Step]) -> (Index, Model) {
    let mut index = Index::new(&schema());
    let mut model = Model(BTreeMap::new());
    for step in steps {
        match step {
            Step::Upsert(record, version, at, values) => {
                index.upsert(id(*record), *version, *at, values);
                model.0.insert(id(*record), (*version, *at, values.clone()));
            }
            Step::Remove(record) => {
                index.remove(id(*record));
                model.0.remove(&id(*record));
            }
        }
    }
    (index, model)
}

proptest! {
    #[test]
    fn a_search_finds_what_a_plain_list_finds(
        steps in steps(),
        filters in filters(),
        limit in 0..6_usize,
        after in prop::option::of(0..24_u8),
        in_force_only: bool,
    ) {
        let (index, model) = run(&steps);
        let rows = |a: &Attributes<'_>| !in_force_only || a.status != CLOSED;
        let page = index.find(&filters, &rows, limit, after.map(id)).unwrap();
        let (found, more) = model.find(&filters, &rows, limit, after.map(id));
        prop_assert_eq!((page.found, page.more), (found, more));
    }

    #[test]
    fn single_answers_and_totals_agree_with_a_plain_list(steps in steps(), number in text()) {
        let (index, model) = run(&steps);
        prop_assert_eq!(index.len(), model.0.len());
        prop_assert_eq!(index.is_empty(), model.0.is_empty());
        for record in (0..24).map(id) {
            let expected = model.0.get(&record);
            let found = expected.map(|(version, at, _)| Found { record, version: *version, at: *at });
            prop_assert_eq!(index.get(record), found);
            let day = expected.and_then(|(_, _, values)| values.get(&VALID_FROM));
            prop_assert_eq!(index.valid_from(record), day.map(String::as_str));
        }
        let status = |values: &Values| values.get(&STATUS).cloned().unwrap_or_default();
        let holder = model.0.iter().find(|(_, (_, _, values))| {
            values.get(&NUMBER) == Some(&number) && status(values) != CLOSED
        });
        prop_assert_eq!(index.exists(NUMBER, &number), holder.map(|(record, _)| *record));

        let mut by_status: BTreeMap<String, usize> = BTreeMap::new();
        let mut by_grid: BTreeMap<Option<String>, usize> = BTreeMap::new();
        let mut distinct = std::collections::BTreeSet::new();
        for (_, _, values) in model.0.values() {
            *by_status.entry(status(values)).or_default() += 1;
            *by_grid.entry(values.get(&GRID).cloned()).or_default() += 1;
            distinct.insert((values.get(&GRID).cloned(), status(values)));
        }
        prop_assert_eq!(index.counts().by_status, by_status);
        prop_assert_eq!(index.counts().by_grid, by_grid);
        let pairs = index.distinct().into_iter();
        let pairs: Vec<_> = pairs.map(|a| (a.grid.map(str::to_owned), a.status.to_owned())).collect();
        prop_assert_eq!(pairs, distinct.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn paging_visits_every_match_once(steps in steps(), limit in 1..5_usize) {
        let (index, model) = run(&steps);
        let mut seen = Vec::new();
        loop {
            let after = seen.last().map(|found: &Found| found.record);
            let page = index.find(&[], &|_| true, limit, after).unwrap();
            seen.extend(page.found);
            if !page.more {
                break;
            }
        }
        prop_assert_eq!(seen, model.find(&[], &|_| true, usize::MAX, None).0);
    }

    #[test]
    fn an_index_read_from_its_pages_is_the_same(steps in steps(), filters in filters(), applied: u64) {
        let (mut index, model) = run(&steps);
        index.set_applied(applied);
        let pages = index.to_pages();
        let restored = Index::from_pages(&schema(), &pages).unwrap();
        prop_assert_eq!(restored.applied(), applied);
        prop_assert_eq!(&restored.to_pages(), &pages);
        let found = restored.find(&filters, &|_| true, usize::MAX, None).unwrap().found;
        prop_assert_eq!(found, model.find(&filters, &|_| true, usize::MAX, None).0);
    }

    #[test]
    fn one_altered_byte_is_noticed(steps in steps(), page: prop::sample::Index, at: prop::sample::Index, mask in 1..=255_u8) {
        let (index, _) = run(&steps);
        let mut pages: Vec<Vec<u8>> = index.to_pages().iter().map(|page| page.to_vec()).collect();
        let page = page.index(pages.len());
        let at = at.index(pages[page].len());
        pages[page][at] ^= mask;
        prop_assert!(Index::from_pages(&schema(), &pages).is_err());
    }
}

fn two() -> Index {
    let mut index = Index::new(&schema());
    let values = |name: &str, number: &str| {
        Values::from([
            (STATUS, "10".to_owned()),
            (NAME, name.to_owned()),
            (NUMBER, number.to_owned()),
            (NOTE, "never kept".to_owned()),
        ])
    };
    index.upsert(id(1), 1, 0, &values("王芳", "n1"));
    index.upsert(id(2), 1, 1, &values("李雷", "n2"));
    index
}

fn find(index: &Index, position: Position, wanted: Match) -> Vec<RecordId> {
    let page = index
        .find(&[(position, wanted)], &|_| true, 10, None)
        .expect("a searchable field");
    page.found.iter().map(|found| found.record).collect()
}

#[test]
fn an_amended_record_is_found_by_its_new_value_only() {
    let mut index = two();
    index.upsert(id(1), 2, 2, &Values::from([(NAME, "王小芳".to_owned())]));
    assert_eq!(find(&index, NAME, Match::Equals("王芳".into())), []);
    assert_eq!(find(&index, NAME, Match::Contains("芳".into())), [id(1)]);
    assert_eq!(find(&index, NUMBER, Match::Equals("n1".into())), []);
    assert_eq!(
        index.get(id(1)).map(|found| (found.version, found.at)),
        Some((2, 2))
    );
}

#[test]
fn a_removed_record_is_found_by_no_value_and_its_row_serves_another() {
    let mut index = two();
    index.remove(id(1));
    index.remove(id(1));
    for (position, text) in [(NAME, "王芳"), (NUMBER, "n1"), (STATUS, "10")] {
        for wanted in [
            Match::Equals(text.into()),
            Match::Prefix(text.into()),
            Match::Contains(text.into()),
        ] {
            assert!(!find(&index, position, wanted).contains(&id(1)));
        }
    }
    assert_eq!(index.exists(NUMBER, "n1"), None);
    assert_eq!((index.len(), index.get(id(1))), (1, None));
    index.upsert(id(3), 1, 2, &Values::from([(NUMBER, "n3".to_owned())]));
    assert_eq!(find(&index, NUMBER, Match::Equals("n3".into())), [id(3)]);
    assert_eq!(find(&index, NAME, Match::Prefix("王".into())), []);
}

#[test]
fn a_closed_record_does_not_hold_its_unique_value() {
    let mut index = two();
    assert_eq!(index.exists(NUMBER, "n1"), Some(id(1)));
    let closed = Values::from([(STATUS, CLOSED.to_owned()), (NUMBER, "n1".to_owned())]);
    index.upsert(id(1), 2, 2, &closed);
    assert_eq!(index.exists(NUMBER, "n1"), None);
    assert_eq!(find(&index, NUMBER, Match::Equals("n1".into())), [id(1)]);
}

#[test]
fn a_field_that_is_not_searchable_is_refused_even_where_it_is_kept() {
    let index = two();
    for position in [VALID_FROM, GRID, NOTE, 63] {
        let filters = [
            (NAME, Match::Prefix("王".into())),
            (position, Match::Equals("x".into())),
        ];
        assert_eq!(
            index.find(&filters, &|_| true, 10, None),
            Err(FindError::NotSearchable { position })
        );
    }
}

#[test]
fn the_row_predicate_is_asked_once_for_each_grid_and_status() {
    let mut index = Index::new(&schema());
    for number in 0..200 {
        let grid = if number % 2 == 0 { "g1" } else { "g2" };
        index.upsert(id(number), 1, 0, &Values::from([(GRID, grid.to_owned())]));
    }
    let asked = std::cell::Cell::new(0);
    let rows = |row: &Attributes<'_>| {
        asked.set(asked.get() + 1);
        row.grid == Some("g2")
    };
    let page = index.find(&[], &rows, 500, None).unwrap();
    assert_eq!((page.found.len(), asked.get()), (100, 2));
}

#[test]
fn nothing_of_a_search_or_an_index_shows_in_debug_output() {
    let wanted = Match::Equals("500116199001010017".into());
    assert_eq!(format!("{wanted:?}"), "Equals(..)");
    assert_eq!(format!("{:?}", two()), "Index(person, 2 records)");
}

fn large() -> Index {
    let mut index = Index::new(&schema());
    for number in 0..60_000_u32 {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let values = Values::from([
            (STATUS, "10".to_owned()),
            (GRID, format!("g{}", number % 7)),
            (NAME, format!("a name of thirty bytes {number:07}")),
        ]);
        index.upsert(RecordId(bytes), 1, u64::from(number), &values);
    }
    index
}

#[test]
fn pages_are_bounded_and_any_missing_doubled_or_swapped_page_is_noticed() {
    let pages: Vec<Vec<u8>> = large()
        .to_pages()
        .iter()
        .map(|page| page.to_vec())
        .collect();
    assert!(pages.len() > 5);
    assert!(pages.iter().all(|page| page.len() <= PAGE_BYTES_MAX));
    assert_eq!(Index::from_pages(&schema(), &pages).unwrap().len(), 60_000);

    for page in 0..pages.len() {
        let mut missing = pages.clone();
        missing.remove(page);
        let mut cut = pages.clone();
        cut[page].pop();
        let mut longer = pages.clone();
        longer[page].push(0);
        let mut doubled = pages.clone();
        doubled.insert(page, pages[page].clone());
        for wrong in [missing, cut, longer, doubled] {
            assert!(Index::from_pages(&schema(), &wrong).is_err());
        }
    }
    let mut swapped = pages.clone();
    swapped.swap(2, 3);
    assert_eq!(
        Index::from_pages(&schema(), &swapped).err(),
        Some(PageError::Damaged { page: 2 })
    );
    let mut mixed = pages.clone();
    mixed[3] = two().to_pages()[3].to_vec();
    assert!(Index::from_pages(&schema(), &mixed).is_err());
}

#[test]
fn pages_of_another_schema_are_refused_and_so_are_no_pages() {
    let pages = two().to_pages();
    let mut newer = schema();
    newer.version += 1;
    assert_eq!(
        Index::from_pages(&newer, &pages).err(),
        Some(PageError::OtherSchema)
    );
    let mut wider = schema();
    wider.fields[5].searchable = true;
    assert_eq!(
        Index::from_pages(&wider, &pages).err(),
        Some(PageError::OtherSchema)
    );
    assert!(two().is_for(&schema()) && !two().is_for(&newer) && !two().is_for(&wider));
    let none: [&[u8]; 0] = [];
    assert!(matches!(
        Index::from_pages(&schema(), &none).err(),
        Some(PageError::Count { given: 0, .. })
    ));
}
