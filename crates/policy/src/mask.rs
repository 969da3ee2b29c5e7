//! The outline of a value for those who may recognize it, not read it.
//!
//! Owns the shape of masks (GB/T 35273: masked on display). Refuses to show more
//! than the ends of a number, the first character of a text or the year of a date.

use record::schema::FieldType;

const HIDDEN: char = '*';

/// Masks a value: `500***...12` for numbers, `张**` for texts, `1990-**-**` for dates,
/// and nothing of codes, references and amounts.
///
/// The length of a number or text remains visible; a short one is hidden whole.
pub fn mask(value: &str, field_type: FieldType) -> String {
    match field_type {
        FieldType::CitizenNumber
        | FieldType::CreditCode
        | FieldType::DivisionCode
        | FieldType::Phone => keep(value, 3, 2),
        FieldType::Text => keep(value, 1, 0),
        FieldType::Date => match value.get(..4) {
            Some(year) if value.len() == 10 && year.bytes().all(|b| b.is_ascii_digit()) => {
                format!("{year}-**-**")
            }
            _ => hidden(),
        },
        FieldType::Code
        | FieldType::Integer
        | FieldType::Decimal
        | FieldType::Reference
        | FieldType::Positions => hidden(),
    }
}

fn hidden() -> String {
    std::iter::repeat_n(HIDDEN, 3).collect()
}

/// Keeps the ends when they are less than half of the value.
fn keep(value: &str, first: usize, last: usize) -> String {
    let length = value.chars().count();
    if length < 2 || (first + last) * 2 > length {
        return hidden();
    }
    let outline = |(at, c)| {
        if at < first || at >= length - last {
            c
        } else {
            HIDDEN
        }
    };
    value.chars().enumerate().map(outline).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_first_three_and_last_two_characters() {
        assert_eq!(
            mask("11010519491231002X", FieldType::CitizenNumber),
            "110*************2X"
        );
        assert_eq!(mask("13800000012", FieldType::Phone), "138******12");
    }

    #[test]
    fn a_short_value_is_hidden_whole() {
        assert_eq!(mask("12345", FieldType::Phone), "***");
        assert_eq!(mask("张", FieldType::Text), "***");
        assert_eq!(mask("", FieldType::Text), "***");
    }

    #[test]
    fn texts_keep_one_character_and_dates_the_year() {
        assert_eq!(mask("张三丰", FieldType::Text), "张**");
        assert_eq!(mask("1990-02-03", FieldType::Date), "1990-**-**");
        assert_eq!(mask("不是日期啊", FieldType::Date), "***");
    }

    #[test]
    fn a_code_shows_nothing() {
        assert_eq!(mask("poor-household", FieldType::Code), "***");
    }
}
