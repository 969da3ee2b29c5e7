//! Made-up communities: addresses, buildings, rooms, persons, units, facilities and grids that
//! fit together, the same for the same seed on every machine.
//!
//! Nobody in them exists. Citizen numbers and credit codes carry region prefixes from 990000 to
//! 999999, which no division has, and telephone numbers begin with 154, which no carrier has;
//! their check characters are right, so they pass every check that real ones pass.
//!
//! Read in this order: this file, [`table`], then `households` (who lives together), `place`
//! (where), `people` (rows of persons), `organizations`, and what they draw from: `names`,
//! `draw`, `calendar`.
//!
//! ```
//! let community = sample::community(7, 100, &sample::Place::default());
//! assert_eq!(community.persons.rows.len(), 100);
//! let (headers, rows) = community.rows("person").expect("persons are a kind");
//! assert_eq!(headers.len(), rows[0].len());
//! ```

pub mod table;

mod calendar;
mod draw;
mod households;
mod names;
mod organizations;
mod people;
mod place;

pub use place::Place;
pub use table::Table;

use draw::Draw;

/// A community's register, one table a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Community {
    /// Standard addresses, one for each building.
    pub addresses: Table,
    /// Buildings.
    pub buildings: Table,
    /// Rooms, about one in fourteen of them empty.
    pub rooms: Table,
    /// Persons, by household.
    pub persons: Table,
    /// Units.
    pub units: Table,
    /// Facilities.
    pub facilities: Table,
    /// Grids.
    pub grids: Table,
}

/// A community of so many persons.
pub fn community(seed: u64, persons: usize, place: &Place) -> Community {
    let mut draw = Draw::new(seed, place.serial);
    let households = households::households(&mut draw, persons);
    let ground = place::ground(&mut draw, place, households.len());
    let (units, employers) = organizations::units(&mut draw, place, &ground, persons);
    let people = people::people(&mut draw, place, &ground, &households, &employers);
    Community {
        addresses: place::addresses(place, &ground),
        buildings: place::buildings(place, &ground),
        rooms: place::rooms(&ground, &people.dwellings),
        facilities: organizations::facilities(&mut draw, place, &ground, persons),
        grids: place::grids(&mut draw, place, &ground),
        persons: people.table,
        units,
    }
}

impl Community {
    /// Every kind's name and table, in the order in which offices register them:
    /// address, house, person, unit, facility.
    pub fn tables(&self) -> [(&'static str, &Table); 7] {
        [
            ("grid", &self.grids),
            ("address", &self.addresses),
            ("building", &self.buildings),
            ("room", &self.rooms),
            ("person", &self.persons),
            ("unit", &self.units),
            ("facility", &self.facilities),
        ]
    }

    /// The headers (field ids) and rows of a kind.
    pub fn rows(&self, kind: &str) -> Option<(&[&'static str], &[Vec<String>])> {
        let (_, table) = self.tables().into_iter().find(|(name, _)| *name == kind)?;
        Some((&table.headers, &table.rows))
    }
}
