//! Which column of somebody's file is which field.
//!
//! A header is recognized by a field's id, Chinese name, English name or an alias, without
//! regard to spaces, case, full-width characters and a required-mark `*`. What is not
//! recognized is reported, never dropped in silence.

use std::collections::BTreeMap;

use crate::catalogue::header_keys;
use crate::numbers::narrow;
use crate::refused::is_refused;
use crate::schema::Schema;

/// The fields of a file's columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderMap {
    /// For each column its field's id, or nothing if it is to be left out.
    pub columns: Vec<Option<String>>,
    /// Headers that mean no field of this kind; a column without a header by its number, `#3`.
    pub unknown: Vec<String>,
    /// Headers that mean a field which an earlier column already means.
    pub doubled: Vec<String>,
    /// Headers that ask for what the register refuses to keep.
    pub refused: Vec<String>,
    /// Ids of required fields that no column means.
    pub missing_required: Vec<String>,
}

/// A header reduced to what is compared.
pub(crate) fn key(header: &str) -> String {
    let text = narrow(header.trim_start_matches('\u{feff}')).to_lowercase();
    text.trim_matches(['*', ':'])
        .replace(['_', '-', '(', ')'], "")
}

/// Finds the field of each column.
pub fn map(schema: &Schema, headers: &[&str]) -> HeaderMap {
    let known: BTreeMap<String, &str> = schema
        .fields
        .iter()
        .flat_map(|field| {
            header_keys(field)
                .into_iter()
                .map(|key| (key, field.id.as_str()))
        })
        .collect();
    let mut map = HeaderMap::default();
    for (at, header) in headers.iter().enumerate() {
        let shown = || {
            header
                .trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
                .to_owned()
        };
        let reduced = key(header);
        let column = match known.get(&reduced) {
            Some(id) if map.columns.iter().flatten().any(|earlier| earlier == id) => {
                map.doubled.push(shown());
                None
            }
            Some(id) => Some((*id).to_owned()),
            None if reduced.is_empty() => {
                map.unknown.push(format!("#{}", at + 1));
                None
            }
            None if is_refused(header) => {
                map.refused.push(shown());
                None
            }
            None => {
                map.unknown.push(shown());
                None
            }
        };
        map.columns.push(column);
    }
    map.missing_required = schema
        .fields
        .iter()
        .filter(|field| field.required && !map.columns.iter().flatten().any(|id| *id == field.id))
        .map(|field| field.id.clone())
        .collect();
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Kind;
    use crate::schema::Catalogue;

    fn mapped(kind: &str, headers: &[&str]) -> HeaderMap {
        let catalogue = Catalogue::builtin();
        map(
            catalogue.schema(&Kind::new(kind).unwrap()).unwrap(),
            headers,
        )
    }

    fn ids(map: &HeaderMap) -> Vec<&str> {
        map.columns
            .iter()
            .map(|id| id.as_deref().unwrap_or(""))
            .collect()
    }

    #[test]
    fn headers_are_known_by_id_chinese_name_english_name_and_alias() {
        let map = mapped(
            "person",
            &[
                "\u{feff}姓名*",
                "身份证号码",
                "Birth date",
                "sex",
                " 联系 电话：",
                "户室编码",
            ],
        );
        assert_eq!(
            ids(&map),
            [
                "name",
                "citizen_number",
                "birth_date",
                "sex",
                "phone",
                "room_code"
            ]
        );
        assert!(map.unknown.is_empty() && map.missing_required.is_empty());
    }

    #[test]
    fn the_headers_of_the_enterprise_register_are_known() {
        let map = mapped(
            "unit",
            &[
                "unit_name",
                "uscc",
                "uscc_valid",
                "reg_date",
                "unit_type",
                "province",
                "city",
                "address",
            ],
        );
        assert_eq!(
            ids(&map),
            [
                "unit_name",
                "credit_code",
                "",
                "registered_on",
                "unit_type",
                "",
                "",
                "registered_address"
            ]
        );
        assert_eq!(map.unknown, ["uscc_valid", "province", "city"]);
    }

    #[test]
    fn unknown_doubled_refused_and_missing_columns_are_reported() {
        let map = mapped("person", &["手机", "电话", "宗教信仰", "爱好", ""]);
        assert_eq!(ids(&map), ["phone", "", "", "", ""]);
        assert_eq!(map.doubled, ["电话"]);
        assert_eq!(map.refused, ["宗教信仰"]);
        assert_eq!(map.unknown, ["爱好", "#5"]);
        assert_eq!(map.missing_required, ["name"]);
    }
}
