//! Rows of persons: names, numbers, births, where they live and how they are related.

use std::collections::BTreeMap;

use record::numbers::citizen_check;

use crate::calendar;
use crate::draw::Draw;
use crate::households::{Member, Part};
use crate::names;
use crate::place::{Dwelling, Ground, Place};
use crate::table::Table;

/// Persons, and who dwells in each room.
pub(crate) struct People {
    pub table: Table,
    pub dwellings: Vec<Dwelling>,
}

/// A mobile number under a prefix that no carrier has.
pub(crate) fn phone(draw: &mut Draw) -> String {
    format!("154{:08}", draw.below(100_000_000))
}

/// Citizen numbers already given, by birth date and sex.
struct Numbers {
    region: u32,
    given: BTreeMap<(i32, bool), u32>,
}

impl Numbers {
    /// The next number of that day and sex. When its 500 sequence numbers are used up, the
    /// person is born a day earlier; the birth date returned is the number's.
    fn next(&mut self, mut birth: i32, male: bool) -> (i32, String) {
        loop {
            let count = self.given.entry((birth, male)).or_insert(0);
            if *count < 500 {
                let sequence = *count * 2 + u32::from(male);
                *count += 1;
                let date = calendar::text(birth).replace('-', "");
                let digits = format!("{}{date}{sequence:03}", self.region);
                let check = citizen_check(&digits).expect("17 digits were just written");
                return (birth, format!("{digits}{check}"));
            }
            birth -= 1;
        }
    }
}

/// One person with a name, before the row is written.
struct Named {
    member: Member,
    birth: i32,
    number: String,
    name: String,
}

/// Every household in a room of its own.
pub(crate) fn people(
    draw: &mut Draw,
    place: &Place,
    ground: &Ground,
    households: &[Vec<Member>],
    employers: &[String],
) -> People {
    let mut numbers = Numbers {
        region: place.region(),
        given: BTreeMap::new(),
    };
    let mut people = People {
        table: Table::new(&[
            "valid_from",
            "grid",
            "name",
            "citizen_number",
            "sex",
            "birth_date",
            "ethnicity",
            "education",
            "marital",
            "phone",
            "room_code",
            "household_code",
            "family_relation",
            "residence_kind",
            "hukou_address",
            "employer",
            "welfare",
            "guardian_name",
        ]),
        dwellings: vec![
            Dwelling {
                occupancy: "40",
                ..Dwelling::default()
            };
            ground.rooms.len()
        ],
    };
    let mut room = 0;
    for (at, household) in households.iter().enumerate() {
        let (rooms_left, households_left) = (ground.rooms.len() - room, households.len() - at);
        if rooms_left > households_left && draw.chance(7) {
            room += 1;
        }
        let named = named(draw, place, household, &mut numbers);
        let household = Household::new(draw, place, ground, room, at);
        people.dwellings[room] = household.dwelling(draw, &named);
        for person in 0..named.len() {
            let row = household.row(draw, place, &named, person, employers);
            people.table.push(row);
        }
        room += 1;
    }
    people
}

fn named(
    draw: &mut Draw,
    place: &Place,
    household: &[Member],
    numbers: &mut Numbers,
) -> Vec<Named> {
    let head = names::surname(draw);
    let spouse = names::surname(draw);
    let head_is_male = household.first().is_some_and(|head| head.male);
    // Children bear the father's name; where only a mother lives with them, hers.
    let has_spouse = household.iter().any(|m| m.part == Part::Spouse);
    let family = if head_is_male || !has_spouse {
        &head
    } else {
        &spouse
    };
    household
        .iter()
        .map(|member| {
            let surname = match member.part {
                Part::Head => head.clone(),
                Part::Spouse => spouse.clone(),
                Part::Child | Part::Grandchild => family.clone(),
                Part::Parent if member.male => head.clone(),
                Part::Parent | Part::Tenant => names::surname(draw),
            };
            let days = f64::from(member.age) * 365.2425;
            let birth = place.today() - days as i32 - 1 - draw.between(0, 363);
            let (birth, number) = numbers.next(birth, member.male);
            let year = place.as_of.0 as i32 - member.age;
            Named {
                member: *member,
                birth,
                number,
                name: surname + &names::given(draw, member.male, year),
            }
        })
        .collect()
}

/// What the members of one household share.
struct Household<'a> {
    code: String,
    room_code: &'a str,
    grid: &'a str,
    /// Registered here, or come from elsewhere.
    local: bool,
    hukou_address: String,
    ethnicity: &'static str,
    since: i32,
}

impl<'a> Household<'a> {
    fn new(draw: &mut Draw, place: &Place, ground: &'a Ground, room: usize, at: usize) -> Self {
        let local = draw.chance(74);
        let dwelling = &ground.rooms[room];
        Household {
            code: format!("{}H{:06}", place.division_code, at + 1),
            room_code: &dwelling.code,
            grid: &ground.buildings[dwelling.building].grid,
            local,
            hukou_address: if local {
                dwelling.address.clone()
            } else {
                let village = draw.pick(&["上坝村", "石桥村", "红岩村", "大湾村", "龙井村"]);
                format!(
                    "远山县古桥镇{village}{}组{}号",
                    draw.between(1, 9),
                    draw.between(1, 99)
                )
            },
            ethnicity: draw.weighted(&[
                ("01", 920),
                ("15", 25),
                ("06", 20),
                ("03", 10),
                ("07", 10),
                ("12", 6),
                ("08", 5),
                ("11", 4),
            ]),
            since: place.today() - draw.between(1, 1500),
        }
    }

    fn dwelling(&self, draw: &mut Draw, named: &[Named]) -> Dwelling {
        let shared = named.iter().any(|p| p.member.part == Part::Tenant);
        if self.local && !shared {
            return Dwelling {
                owner: named
                    .first()
                    .map_or(String::new(), |head| head.name.clone()),
                owner_phone: phone(draw),
                occupancy: "10",
            };
        }
        let male = draw.chance(60);
        Dwelling {
            owner: names::surname(draw) + &names::given(draw, male, 1970),
            owner_phone: phone(draw),
            occupancy: if shared { "21" } else { "20" },
        }
    }

    fn row(
        &self,
        draw: &mut Draw,
        place: &Place,
        named: &[Named],
        at: usize,
        employers: &[String],
    ) -> [String; 18] {
        let person = &named[at];
        let Member { part, male, age } = person.member;
        // Some newborn children have no citizen number yet.
        let unnumbered = age < 1 && draw.chance(40);
        let works = (20..60).contains(&age) && !employers.is_empty() && draw.chance(66);
        [
            calendar::text(self.since.max(person.birth)),
            self.grid.to_owned(),
            person.name.clone(),
            if unnumbered {
                String::new()
            } else {
                person.number.clone()
            },
            if male { "1" } else { "2" }.to_owned(),
            calendar::text(person.birth),
            self.ethnicity.to_owned(),
            education(draw, age, place.as_of.0 as i32 - age).to_owned(),
            marital(draw, named, at).to_owned(),
            if age >= 14 {
                phone(draw)
            } else {
                String::new()
            },
            self.room_code.to_owned(),
            self.code.clone(),
            relation(named, at).to_owned(),
            if self.local { "10" } else { "20" }.to_owned(),
            self.hukou_address.clone(),
            if works {
                employers[draw.below(employers.len())].clone()
            } else {
                String::new()
            },
            welfare(draw, part, age).to_owned(),
            if age < 18 {
                guardian(named)
            } else {
                String::new()
            },
        ]
    }
}

/// The code of GB/T 4761 for what somebody is to the head.
fn relation(named: &[Named], at: usize) -> &'static str {
    const SONS: [&str; 3] = ["22", "23", "24"];
    const DAUGHTERS: [&str; 3] = ["32", "33", "34"];
    let Member { part, male, .. } = named[at].member;
    let children = |named: &[Named], only: Option<bool>| {
        let counts = |p: &&Named| {
            p.member.part == Part::Child && only.is_none_or(|male| p.member.male == male)
        };
        named.iter().filter(counts).count()
    };
    match (part, male) {
        (Part::Head, _) => "02",
        (Part::Spouse, true) => "11",
        (Part::Spouse, false) => "12",
        (Part::Child, _) if children(named, None) == 1 => {
            if male {
                "21"
            } else {
                "31"
            }
        }
        // Sons and daughters are each counted by age, and the eldest comes first.
        (Part::Child, true) => SONS[children(&named[..at], Some(true)).min(2)],
        (Part::Child, false) => DAUGHTERS[children(&named[..at], Some(false)).min(2)],
        (Part::Parent, true) => "51",
        (Part::Parent, false) => "52",
        (Part::Grandchild, true) => "41",
        (Part::Grandchild, false) => "42",
        (Part::Tenant, _) => "99",
    }
}

fn marital(draw: &mut Draw, named: &[Named], at: usize) -> &'static str {
    let Member { part, age, .. } = named[at].member;
    let lives_with = |part: Part| named.iter().filter(|p| p.member.part == part).count();
    match part {
        Part::Head | Part::Spouse if lives_with(Part::Spouse) > 0 => "20",
        Part::Parent if lives_with(Part::Parent) > 1 => "20",
        Part::Parent => "30",
        Part::Head if lives_with(Part::Child) > 0 => draw.weighted(&[("40", 80), ("30", 20)]),
        Part::Head if age >= 58 => draw.weighted(&[("30", 75), ("40", 15), ("10", 10)]),
        Part::Head if age >= 35 => draw.weighted(&[("10", 55), ("40", 45)]),
        _ => "10",
    }
}

fn education(draw: &mut Draw, age: i32, birth_year: i32) -> &'static str {
    match age {
        ..7 => "",
        7..13 => "80",
        13..16 => "70",
        16..19 => draw.weighted(&[("60", 60), ("40", 40)]),
        _ if birth_year < 1960 => draw.weighted(&[("80", 50), ("70", 30), ("60", 15), ("30", 5)]),
        _ if birth_year < 1980 => {
            draw.weighted(&[("80", 18), ("70", 44), ("60", 22), ("30", 10), ("20", 6)])
        }
        _ => draw.weighted(&[
            ("70", 22),
            ("60", 18),
            ("41", 12),
            ("30", 24),
            ("20", 21),
            ("10", 3),
        ]),
    }
}

fn welfare(draw: &mut Draw, part: Part, age: i32) -> &'static str {
    let percent = if age >= 65 && part == Part::Head {
        6
    } else {
        1
    };
    if draw.chance(percent) {
        draw.weighted(&[("10", 70), ("50", 20), ("20", 10)])
    } else {
        ""
    }
}

/// A minor's guardian: the head, who is a parent or grandparent.
fn guardian(named: &[Named]) -> String {
    named
        .first()
        .map_or(String::new(), |head| head.name.clone())
}
