//! Rows (样本): synthetic persons whose values come to about 600 bytes, as long as such records are.
//!
//! Nobody in them exists; see the crate `sample`.

use std::collections::BTreeMap;

use record::id::Kind;
use record::schema::{Catalogue, Schema};

use crate::fault::{Fault, Result};

/// A row as an import sends it.
pub type Row = BTreeMap<String, String>;

/// Fields made longer, with what they are filled with and up to how many bytes.
const PADDED: [(&str, &str, usize); 3] = [
    ("hukou_address", "样例路一百二十三号附五号院", 237),
    ("employer", "样例制造有限责任公司第二车间", 177),
    ("guardian_name", "样例监护人", 45),
];

/// The kind that is measured.
pub fn kind() -> Result<Kind> {
    Kind::new("person").map_err(|e| Fault::failed(e.to_string()))
}

/// Its schema.
pub fn schema() -> Result<&'static Schema> {
    Catalogue::builtin()
        .schema(&kind()?)
        .ok_or_else(|| Fault::failed("the catalogue lacks the kind `person`"))
}

/// How many fields it has.
pub fn fields() -> Result<usize> {
    Ok(schema()?.fields.len())
}

/// Persons of a made-up community.
pub fn rows(count: usize) -> Result<Vec<Row>> {
    let community = sample::community(1, count, &sample::Place::default());
    Ok(community
        .persons
        .drafts()
        .map(|draft| padded(draft.fields))
        .collect())
}

fn padded(mut row: Row) -> Row {
    for (field, filler, bytes) in PADDED {
        let text = row.entry(field.to_owned()).or_default();
        for character in filler.chars().cycle() {
            if text.len() + character.len_utf8() > bytes {
                break;
            }
            text.push(character);
        }
    }
    row
}

/// Bytes of the values of a row, on average.
pub fn value_bytes(rows: &[Row]) -> f64 {
    let all: usize = rows
        .iter()
        .flat_map(|row| row.values())
        .map(String::len)
        .sum();
    all as f64 / rows.len() as f64
}

/// Bytes that sealing fills the values of these rows up to, on average: the widths of the fields.
pub fn width_bytes() -> Result<f64> {
    let widths = schema()?.fields.iter().map(|field| f64::from(field.width));
    Ok(widths.sum())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn rows_have_about_600_bytes_and_break_no_rule() {
        let rows = rows(300).unwrap();
        let bytes = value_bytes(&rows);
        assert!((550.0..700.0).contains(&bytes), "{bytes} bytes");
        for fields in rows {
            let draft = record::draft::Draft { fields };
            let checked = draft.check(schema().unwrap(), Catalogue::builtin(), "2026-06-30");
            assert!(checked.is_ok(), "{checked:?}");
        }
    }
}
