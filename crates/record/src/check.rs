//! [`Draft::check`]: every value in its one canonical form, or every reason why not.
//!
//! Reasons are for the clerk, in Chinese and then, after ` / `, in English. They say what to do
//! and never repeat the value, so that they may be logged and sent back.

use std::collections::BTreeMap;

use crate::codes;
use crate::dates;
use crate::draft::{Checked, Draft, Violation};
use crate::numbers::{self, narrow};
use crate::refused::is_refused;
use crate::rules;
use crate::schema::{
    CHANGED, Catalogue, Field, FieldType, GRID, Position, STATUS, Schema, VALID_FROM,
};

/// The status of a record that gives none: in use.
pub const STATUS_DEFAULT: &str = "10";
/// Longest text that is looked at; anything longer is too wide for every field.
const GIVEN_MAX: usize = 16 * 1024;
/// What offices write where there is nothing to write.
const ABSENT: [&str; 12] = [
    "", "-", "--", "—", "——", "/", "无", "暂无", "N/A", "n/a", "NULL", "null",
];

impl Draft {
    /// Checks every field, completes what follows from others, and returns all violations at once.
    ///
    /// Absent are empty texts, `-`, `/`, `无`, `N/A` and the like. `today` is `YYYY-MM-DD`: the
    /// default of `valid_from`, and the last day on which a birth can lie. The list of changed
    /// fields is never taken from a draft; [`Checked::since`] writes it.
    ///
    /// # Errors
    /// All violations, by ascending position, those of unknown fields first.
    pub fn check(
        &self,
        schema: &Schema,
        catalogue: &Catalogue,
        today: &str,
    ) -> Result<Checked, Vec<Violation>> {
        let mut review = Review::new(schema);
        for id in self.fields.keys().filter(|id| schema.field(id).is_none()) {
            review.unknown(id);
        }
        for field in schema
            .fields
            .iter()
            .filter(|field| field.position != CHANGED)
        {
            let given = self.fields.get(&field.id).map_or("", String::as_str);
            let given = match (field.position, is_absent(given)) {
                (STATUS, true) => STATUS_DEFAULT,
                (VALID_FROM, true) => today,
                _ => given,
            };
            match canonical(field, catalogue, given) {
                Ok(Some(value)) => review.set(field.position, value),
                Ok(None) => {}
                Err(reason) => review.refuse(&field.id, reason),
            }
        }
        rules::apply(&mut review, today);
        for field in schema.fields.iter().filter(|field| field.required) {
            if review.value(&field.id).is_none() && !review.is_refused(&field.id) {
                review.refuse(
                    &field.id,
                    told(field, "为必填项，请填写", "is required; fill it in"),
                );
            }
        }
        review.finish()
    }
}

/// What has been found while a draft is checked.
pub(crate) struct Review<'a> {
    pub(crate) schema: &'a Schema,
    values: BTreeMap<Position, String>,
    unknown: Vec<Violation>,
    violations: BTreeMap<Position, Violation>,
}

impl<'a> Review<'a> {
    fn new(schema: &'a Schema) -> Self {
        Review {
            schema,
            values: BTreeMap::new(),
            unknown: Vec::new(),
            violations: BTreeMap::new(),
        }
    }

    /// The canonical value of a field, if the schema has it and it holds.
    pub(crate) fn value(&self, id: &str) -> Option<&str> {
        let position = self.schema.field(id)?.position;
        self.values.get(&position).map(String::as_str)
    }

    /// Whether the field has a violation already.
    pub(crate) fn is_refused(&self, id: &str) -> bool {
        let position = self.schema.field(id).map(|field| field.position);
        position.is_some_and(|position| self.violations.contains_key(&position))
    }

    fn set(&mut self, position: Position, value: String) {
        self.values.insert(position, value);
    }

    /// Gives a field the value that follows from another; ignored if the schema lacks the field
    /// or what was given is refused already.
    pub(crate) fn complete(&mut self, id: &str, value: String) {
        if let Some(field) = self.schema.field(id)
            && !self.is_refused(id)
        {
            self.set(field.position, value);
        }
    }

    /// Records a violation; the first one of a field stays.
    pub(crate) fn refuse(&mut self, id: &str, reason: String) {
        if let Some(field) = self.schema.field(id) {
            self.violations.entry(field.position).or_insert(Violation {
                field: id.to_owned(),
                reason,
            });
        }
    }

    fn unknown(&mut self, id: &str) {
        let reason = if is_refused(id) {
            "本系统不登记宗教、生物特征、行踪、风险和评分等内容，请删去该列 / the register keeps no religion, biometrics, movements, risks or scores; remove the column"
        } else {
            "这一类登记没有这个字段，请删去该列或改正列名 / this kind of record has no such field; remove the column, or correct its title"
        };
        self.unknown.push(Violation {
            // A header may be anything; enough of it to be found again.
            field: id.chars().take(64).collect(),
            reason: reason.to_owned(),
        });
    }

    fn finish(self) -> Result<Checked, Vec<Violation>> {
        let violations: Vec<Violation> = self
            .unknown
            .into_iter()
            .chain(self.violations.into_values())
            .collect();
        if violations.is_empty() {
            Ok(Checked {
                kind: self.schema.kind.clone(),
                schema: self.schema.version,
                values: self.values,
            })
        } else {
            Err(violations)
        }
    }
}

fn is_absent(given: &str) -> bool {
    ABSENT.contains(&trimmed(given).as_str())
}

/// Without the characters that nobody sees and no script needs, and without space at the ends.
fn trimmed(given: &str) -> String {
    let seen = |c: &char| !matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}');
    let text: String = given.chars().filter(seen).collect();
    text.trim().to_owned()
}

/// The canonical form of one value; `None` when it is absent.
///
/// # Errors
/// What is wrong and what to do, in words that do not repeat the value.
pub fn canonical(
    field: &Field,
    catalogue: &Catalogue,
    given: &str,
) -> Result<Option<String>, String> {
    let too_wide = || {
        let characters = usize::from(field.width) / 3;
        let width = field.width;
        told(
            field,
            &format!("过长，最多 {width} 字节（约 {characters} 个汉字），请缩短"),
            &format!(
                "is too long: at most {width} bytes, some {characters} Chinese characters; shorten it"
            ),
        )
    };
    if given.len() > GIVEN_MAX {
        return Err(too_wide());
    }
    if is_absent(given) {
        return Ok(None);
    }
    let text = trimmed(given);
    // Marks that turn the writing direction can make one address look like another.
    let steers = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.chars().any(|c| c.is_control() || steers(c)) {
        return Err(told(
            field,
            "含有换行、制表符或不可见的控制字符，请删去后重填",
            "contains a line break, a tab or control characters that nobody sees; remove them",
        ));
    }
    let value = match field.field_type {
        FieldType::Text if is_code_like(field) => narrow(&text),
        FieldType::Text => text,
        FieldType::Code => code(field, catalogue, &text)?,
        FieldType::CitizenNumber => numbers::citizen(&text).map_err(|e| e.to_string())?,
        FieldType::CreditCode => numbers::credit(&text).map_err(|e| e.to_string())?,
        FieldType::DivisionCode => numbers::division(&text).map_err(|e| e.to_string())?,
        FieldType::Phone => numbers::phone(&text).map_err(|e| e.to_string())?,
        FieldType::Date => dates::canonical(&text).map_err(|e| e.to_string())?,
        FieldType::Integer => decimal(&text, false).ok_or_else(|| {
            told(
                field,
                "应为整数，请只填数字",
                "is a whole number; give digits only",
            )
        })?,
        FieldType::Decimal => decimal(&text, true).ok_or_else(|| {
            told(
                field,
                "应为数值，请只填数字和小数点",
                "is a number; give digits and a decimal point only",
            )
        })?,
        FieldType::Reference => reference(&text).ok_or_else(|| {
            told(
                field,
                "应为 32 位十六进制登记编号，请重新选择",
                "is a record's number of 32 hexadecimal digits; choose the record again",
            )
        })?,
        FieldType::Positions => {
            return Err(told(
                field,
                "由系统填写，请删去",
                "is filled in by the system; remove it",
            ));
        }
    };
    if value.len() > usize::from(field.width) {
        return Err(too_wide());
    }
    Ok(Some(value))
}

/// What is wrong with a field, by both of its names.
fn told(field: &Field, chinese: &str, english: &str) -> String {
    format!("“{}”{chinese} / `{}` {english}", field.name, field.english)
}

/// Texts by which records are linked must not differ by full-width characters or spaces.
fn is_code_like(field: &Field) -> bool {
    field.unique || field.position == GRID || field.id.ends_with("_code")
}

fn code(field: &Field, catalogue: &Catalogue, text: &str) -> Result<String, String> {
    let list = field
        .list
        .as_ref()
        .and_then(|name| catalogue.lists.get(name));
    list.and_then(|list| codes::resolve(list, text))
        .ok_or_else(|| {
            let list = field.list.as_deref().unwrap_or_default();
            told(
                field,
                &format!("不在代码表 {list} 中，请填写表中的代码或名称"),
                &format!("is not in the code list {list}; give a code or a name of that list"),
            )
        })
}

/// A number without needless signs and zeros: `+007.50` is `7.5`.
fn decimal(text: &str, fraction: bool) -> Option<String> {
    let text = narrow(text);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(&text)),
    };
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(rest) || whole.len() + rest.len() > 18 {
        return None;
    }
    let (whole, rest) = (whole.trim_start_matches('0'), rest.trim_end_matches('0'));
    if !fraction && !rest.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(match (whole, rest) {
        ("0", "") => "0".to_owned(),
        (_, "") => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{rest}"),
    })
}

fn reference(text: &str) -> Option<String> {
    let id = narrow(text).to_ascii_lowercase();
    id.parse::<crate::id::RecordId>()
        .ok()
        .map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Kind;

    const TODAY: &str = "2026-06-30";

    fn check(kind: &str, fields: &[(&str, &str)]) -> Result<Checked, Vec<Violation>> {
        let catalogue = Catalogue::builtin();
        let schema = catalogue.schema(&Kind::new(kind).unwrap()).unwrap();
        let fields = fields
            .iter()
            .map(|(id, text)| ((*id).to_owned(), (*text).to_owned()))
            .collect();
        Draft { fields }.check(schema, catalogue, TODAY)
    }

    fn value(checked: &Checked, id: &str) -> Option<String> {
        let schema = Catalogue::builtin().schema(checked.kind()).unwrap();
        checked
            .value(schema.field(id).unwrap().position)
            .map(str::to_owned)
    }

    fn refused(kind: &str, fields: &[(&str, &str)]) -> Vec<String> {
        let violations = check(kind, fields).unwrap_err();
        for violation in &violations {
            for (_, given) in fields.iter().filter(|(_, given)| given.len() > 3) {
                assert!(!violation.reason.contains(given), "{violation:?}");
            }
        }
        violations.into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn a_row_as_offices_write_it_becomes_canonical() {
        let person = check(
            "person",
            &[
                ("name", " 张　三 "),
                ("citizen_number", "11010519491231002x"),
                ("ethnicity", "汉族"),
                ("education", "本科"),
                ("phone", "+86 138 0013 8000"),
                ("family_relation", "2"),
                ("room_code", "Ｂ１-1 -201"),
                ("employer", "无"),
                ("welfare", "-"),
                ("marital", "N/A"),
            ],
        )
        .unwrap();
        for (id, expected) in [
            ("name", Some("张　三")),
            ("citizen_number", Some("11010519491231002X")),
            ("birth_date", Some("1949-12-31")),
            ("sex", Some("2")),
            ("ethnicity", Some("01")),
            ("education", Some("20")),
            ("phone", Some("13800138000")),
            ("family_relation", Some("02")),
            ("room_code", Some("B1-1-201")),
            ("employer", None),
            ("welfare", None),
            ("marital", None),
            ("status", Some("10")),
            ("valid_from", Some(TODAY)),
            ("changed", None),
        ] {
            assert_eq!(value(&person, id).as_deref(), expected, "{id}");
        }
    }

    #[test]
    fn every_violation_of_a_draft_is_told_at_once() {
        let fields = refused(
            "person",
            &[
                ("citizen_number", "110105194912310021"),
                ("birth_date", "1949-02-30"),
                ("sex", "丙种"),
                ("phone", "5199"),
                ("employer", "甲公司\n乙公司"),
                ("hobby", "钓鱼钓鱼"),
                ("religion", "某某"),
            ],
        );
        assert_eq!(
            fields,
            [
                "hobby",
                "religion",
                "name",
                "citizen_number",
                "sex",
                "birth_date",
                "phone",
                "employer"
            ]
        );
    }

    #[test]
    fn every_reason_is_told_in_chinese_and_then_in_english() {
        let number = |birth: &str| {
            let body = format!("110105{birth}001");
            let end = numbers::citizen_check(&body).unwrap();
            format!("{body}{end}")
        };
        let person = |id: &str, text: &str| {
            let name = ("name", "王五");
            let violations = check("person", &[name, (id, text)]).unwrap_err();
            assert_eq!(violations.len(), 1, "{id}: {violations:?}");
            violations
        };
        let schema = Catalogue::builtin()
            .schema(&Kind::new("person").unwrap())
            .unwrap();
        let typed = |field_type: FieldType, text: &str| {
            let mut field = schema.field("name").unwrap().clone();
            field.field_type = field_type;
            canonical(&field, Catalogue::builtin(), text).unwrap_err()
        };
        let mut reasons: Vec<String> = [
            person("citizen_number", "12345"),
            person("citizen_number", "1101051949123100XX"),
            person("citizen_number", "110105194913310021"),
            person("citizen_number", "110105194912310021"),
            person("citizen_number", &number("20990101")),
            person("phone", "5199"),
            person("birth_date", "九月"),
            person("birth_date", "1949-02-30"),
            person("birth_date", "1700-01-01"),
            person("sex", "丙种"),
            person("employer", "甲公司\n乙公司"),
            person("employer", &"字".repeat(400)),
            person("hobby", "钓鱼"),
            person("religion", "某某"),
            check("person", &[]).unwrap_err(),
            check(
                "person",
                &[
                    ("name", "王五"),
                    ("citizen_number", "11010519491231002X"),
                    ("birth_date", "1949-12-30"),
                    ("sex", "男"),
                ],
            )
            .unwrap_err(),
            check("unit", &[("credit_code", "1")]).unwrap_err(),
            check("unit", &[("credit_code", "9150011674286959O8")]).unwrap_err(),
            check("unit", &[("credit_code", "9150011674286959X9")]).unwrap_err(),
            check("grid", &[("division_code", "500116004001")]).unwrap_err(),
            check("grid", &[("division_code", "5001")]).unwrap_err(),
            check("grid", &[("division_code", "000000")]).unwrap_err(),
            check("address", &[("longitude", "29.29"), ("latitude", "29")]).unwrap_err(),
            check(
                "address",
                &[
                    ("longitude", "29.29"),
                    ("latitude", "106.25"),
                    ("crs", "wgs84"),
                ],
            )
            .unwrap_err(),
        ]
        .into_iter()
        .flatten()
        .map(|violation| violation.reason)
        .collect();
        for field_type in [
            FieldType::Integer,
            FieldType::Decimal,
            FieldType::Reference,
            FieldType::Positions,
        ] {
            reasons.push(typed(field_type, "某"));
        }
        for reason in &reasons {
            let han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
            let (chinese, english) = reason.split_once(" / ").expect(reason);
            assert!(chinese.contains(han), "{reason}");
            assert!(
                !english.contains(han) && !english.contains(" / "),
                "{reason}"
            );
        }
        let kinds: std::collections::BTreeSet<&String> = reasons.iter().collect();
        assert!(kinds.len() >= 28, "{kinds:#?}");
    }

    #[test]
    fn a_value_may_fill_its_width_and_no_more() {
        let fits = "字".repeat(20);
        assert!(check("person", &[("name", &fits)]).is_ok());
        let over = fits + "字";
        assert_eq!(refused("person", &[("name", &over)]), ["name"]);
        let huge = "9".repeat(100_000);
        assert_eq!(
            refused("person", &[("name", "王"), ("phone", &huge)]),
            ["phone"]
        );
    }

    #[test]
    fn marks_that_nobody_sees_are_dropped_or_refused() {
        let person = check("person", &[("name", "\u{feff}王\u{200b}五")]).unwrap();
        assert_eq!(value(&person, "name").as_deref(), Some("王五"));
        for hidden in ["王\u{202e}五", "王\t五", "王\u{0}五", "王\u{2067}五"] {
            assert_eq!(refused("person", &[("name", hidden)]), ["name"]);
        }
    }

    #[test]
    fn numbers_have_one_form() {
        for (given, integer, decimal_form) in [
            ("7", Some("7"), Some("7")),
            ("+007.50", None, Some("7.5")),
            ("－２", Some("-2"), Some("-2")),
            ("-0", Some("0"), Some("0")),
            ("-0.50", None, Some("-0.5")),
            ("3.0", Some("3"), Some("3")),
            ("1,200", None, None),
            ("1e3", None, None),
            (".5", None, None),
            ("--1", None, None),
            ("九", None, None),
            ("1234567890123456789", None, None),
        ] {
            assert_eq!(decimal(given, false).as_deref(), integer, "{given}");
            assert_eq!(decimal(given, true).as_deref(), decimal_form, "{given}");
        }
    }

    #[test]
    fn the_enterprise_register_gives_units_without_an_address_code() {
        let unit = check(
            "unit",
            &[
                ("unit_name", "重庆某某有限公司"),
                ("credit_code", "9150011674286959x8"),
                ("registered_on", "1978/01/01"),
                ("unit_type", "N/A"),
                ("registered_address", "江津区双福街道"),
            ],
        )
        .unwrap();
        assert_eq!(
            value(&unit, "credit_code").as_deref(),
            Some("9150011674286959X8")
        );
        assert_eq!(value(&unit, "unit_type"), None);
    }

    #[test]
    fn the_list_of_changes_is_never_taken_from_a_draft() {
        let person = check("person", &[("name", "王五"), ("changed", "1,2,3")]).unwrap();
        assert_eq!(value(&person, "changed"), None);
    }

    #[test]
    fn no_text_makes_a_check_panic() {
        let catalogue = Catalogue::builtin();
        let pieces = [
            "字", "9", "X", "é", "-", "𠮷", "年", "0086", "１", "\u{202e}", ".",
        ];
        for schema in catalogue.kinds() {
            for (at, first) in pieces.iter().enumerate() {
                for length in 1..=20 {
                    let second = pieces[(at + length) % pieces.len()];
                    let text = first.repeat(length) + &second.repeat(length / 3);
                    let fields = schema
                        .fields
                        .iter()
                        .map(|field| (field.id.clone(), text.clone()))
                        .collect();
                    let _ = Draft { fields }.check(schema, catalogue, TODAY);
                }
            }
        }
    }
}
