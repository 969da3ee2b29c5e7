//! Imports (导入): asked of policy before the body is read, and taken in row by row.
//!
//! Owns how much of an import is in memory: its bytes, and one row beside them. Refuses a body from
//! whoever may register nothing, before a byte of it is kept; more rows, fields of a row or names of
//! fields than there can be; and more large imports at a time than there is room for.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;

use axum::Json;
use axum::body::{Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use record::id::Kind;
use registry::RegistryError;
use registry::register::{ImportOutline, ImportReport, PREVIEW_ROWS};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::ApiError;
use crate::given;
use crate::state::{AppState, Caller, now};

/// The largest import: it sends 256 rows at a time, a preview the whole file.
pub(crate) const IMPORT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Larger ones wait for their turn.
const SMALL_BYTES: u64 = 4 * 1024 * 1024;
/// How many larger ones there are at a time.
pub(crate) const LARGE_AT_ONCE: usize = 2;
/// The most fields of a row; a kind has some sixty.
const ROW_FIELDS_MAX: usize = 256;
/// The most names of fields in all rows together.
const NAMES_MAX: usize = 1024;
/// The longest name of a field, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Registers the rows of an import, or says what is wrong with them.
pub(crate) async fn import(
    State(state): State<AppState>,
    caller: Caller,
    request: Request,
) -> Result<Json<ImportReport>, Response> {
    let session = caller.session.clone();
    let allowed = state
        .run(move |registry| registry.may_import(&session))
        .await;
    if let Err(refused) = allowed {
        // Beside the answer: whoever sends all of it first reads that then, and not a broken line.
        tokio::spawn(let_pass(request));
        return Err(refused.into_response());
    }
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let turn = match length {
        Some(length) if length <= SMALL_BYTES => None,
        _ => state.large.clone().acquire_owned().await.ok(),
    };
    let body = given::document(request).await?;
    let outline = outline(&body).map_err(|refused| *refused)?;
    state
        .run(move |registry| {
            // Held until the work is done, also when whoever sent it has gone.
            let _turn = turn;
            let rows = &mut |take: &mut dyn FnMut(Row)| each_row(&body, take);
            registry.import_rows(&caller.session, &outline, rows, now())
        })
        .await
        .map(Json)
        .map_err(IntoResponse::into_response)
}

/// Takes what is still being sent, and keeps none of it.
async fn let_pass(request: Request) {
    let mut body = std::pin::pin!(request.into_body());
    let mut left = IMPORT_BYTES_MAX;
    while let Some(Ok(frame)) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let len = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(len) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

type Row = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    kind: Kind,
    source: String,
    numbers: Numbers,
    rows: Names,
    #[serde(default)]
    dry_run: bool,
}

/// What there is to know before a row is kept: nothing in it grows with a row's content.
fn outline(body: &Bytes) -> Result<ImportOutline, Box<Response>> {
    let head: Head =
        serde_json::from_slice(body).map_err(|error| Box::new(given::broken(&error)))?;
    if let Some(too_many) = head.rows.too_many {
        let error = ApiError(RegistryError::BadRequest(too_many.into()));
        return Err(Box::new(error.into_response()));
    }
    Ok(ImportOutline {
        kind: head.kind,
        source: head.source,
        numbers: head.numbers.0,
        rows: head.rows.rows,
        fields: head.rows.fields,
        dry_run: head.dry_run,
    })
}

/// Gives each row of a body whose outline was taken.
fn each_row(body: &Bytes, take: &mut dyn FnMut(Row)) -> Result<(), RegistryError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seed = Parts { take };
    seed.deserialize(&mut reader).map_err(|_| {
        RegistryError::BadRequest(
            "请求不是完整的 JSON / the request is no whole JSON document; send it again".into(),
        )
    })
}

/// Row numbers; no more than a preview has rows.
struct Numbers(Vec<u64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Numbers;
            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("row numbers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Numbers, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = from.next_element()? {
                    if numbers.len() > PREVIEW_ROWS {
                        // One too many is enough to be refused by.
                        continue;
                    }
                    numbers.push(number);
                }
                Ok(Numbers(numbers))
            }
        }
        from.deserialize_seq(Counting)
    }
}

/// How many rows there are, and what fields they name.
#[derive(Default)]
struct Names {
    rows: usize,
    fields: BTreeSet<String>,
    too_many: Option<&'static str>,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Looking;
        impl<'de> Visitor<'de> for Looking {
            type Value = Names;
            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("rows")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Names, A::Error> {
                let mut names = Names::default();
                while from.next_element_seed(RowNames(&mut names))?.is_some() {
                    names.rows += 1;
                }
                Ok(names)
            }
        }
        from.deserialize_seq(Looking)
    }
}

/// The names of one row's fields; that each has a text is checked, the text is not kept.
struct RowNames<'a>(&'a mut Names);

impl<'de> DeserializeSeed<'de> for RowNames<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowNames<'_> {
    type Value = ();
    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("a row")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        let names = self.0;
        let mut count = 0;
        while from.next_key_seed(Name(names))?.is_some() {
            from.next_value_seed(Text)?;
            count += 1;
        }
        if count > ROW_FIELDS_MAX {
            names.too_many = Some(
                "一行的字段过多（至多 256）/ a row has more than 256 fields; leave out what is no field of the kind",
            );
        }
        Ok(())
    }
}

struct Name<'a>(&'a mut Names);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = ();
    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("a field's name")
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        let names = self.0;
        if name.len() > NAME_BYTES_MAX || names.fields.len() >= NAMES_MAX {
            names.too_many = Some(
                "字段名过长或过多 / the rows name too many fields, or one of a name that is too long; see `fangzhi schema show`",
            );
        } else if !names.fields.contains(name) {
            names.fields.insert(name.to_owned());
        }
        Ok(())
    }
}

/// A text that is not kept.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = ();
    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("a text")
    }
    fn visit_str<E: Error>(self, _text: &str) -> Result<(), E> {
        Ok(())
    }
}

/// The parts of an import, of which the rows are given on.
struct Parts<'a> {
    take: &'a mut dyn FnMut(Row),
}

impl<'de> DeserializeSeed<'de> for Parts<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Parts<'_> {
    type Value = ();
    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("an import")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        while let Some(part) = from.next_key::<String>()? {
            if part == "rows" {
                from.next_value_seed(Giving(&mut *self.take))?;
            } else {
                from.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Giving<'a>(&'a mut dyn FnMut(Row));

impl<'de> DeserializeSeed<'de> for Giving<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Giving<'_> {
    type Value = ();
    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("rows")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        while let Some(row) = from.next_element()? {
            (self.0)(row);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(body: &str) -> Result<ImportOutline, u16> {
        outline(&Bytes::copy_from_slice(body.as_bytes()))
            .map_err(|response| response.status().as_u16())
    }

    #[test]
    fn an_outline_has_the_names_of_all_rows_and_the_rows_follow_one_by_one() {
        let body = r#"{"rows":[{"name":"甲\n","sex":"1"},{"phone":""}],"kind":"person","source":"ab","numbers":[4,9]}"#;
        let outline = looked(body).unwrap();
        assert_eq!((outline.rows, outline.numbers), (2, vec![4, 9]));
        let names: Vec<&str> = outline.fields.iter().map(String::as_str).collect();
        assert_eq!(names, ["name", "phone", "sex"]);
        let mut rows = Vec::new();
        each_row(&Bytes::from_static(body.as_bytes()), &mut |row| {
            rows.push(row)
        })
        .unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["name"], "甲\n");
    }

    #[test]
    fn what_is_no_import_is_refused_before_a_row_is_looked_at() {
        let with = |rows: &str| {
            looked(&format!(
                r#"{{"kind":"person","source":"ab","numbers":[1],"rows":{rows}}}"#
            ))
            .map(|outline| outline.rows)
        };
        assert_eq!(with(r#"[{"name":"x"}]"#), Ok(1));
        for wrong in [
            "7",
            "{}",
            "[7]",
            r#"[{"name":7}]"#,
            r#"[{"name":{"a":[]}}]"#,
        ] {
            assert_eq!(with(wrong), Err(422), "{wrong}");
        }
        assert_eq!(with("["), Err(400));
        let many = |count: usize| {
            let fields: Vec<String> = (0..count).map(|n| format!(r#""f{n}":"""#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        assert_eq!(with(&format!("[{}]", many(ROW_FIELDS_MAX))), Ok(1));
        assert_eq!(with(&format!("[{}]", many(ROW_FIELDS_MAX + 1))), Err(400));
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        assert_eq!(with(&format!(r#"[{{"{long}":""}}]"#)), Err(400));
        let numbers = vec!["1"; PREVIEW_ROWS * 2].join(",");
        let body = format!(r#"{{"kind":"person","source":"ab","numbers":[{numbers}],"rows":[]}}"#);
        assert_eq!(looked(&body).unwrap().numbers.len(), PREVIEW_ROWS + 1);
    }
}
