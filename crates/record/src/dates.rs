//! Dates: from the ways offices write a day to `YYYY-MM-DD`.
//!
//! Days that the calendar does not have are refused, and years before 1850 or after 2100:
//! they are slips of the keyboard.

use std::ops::RangeInclusive;

/// The years that a register can speak of.
pub const YEARS: RangeInclusive<u32> = 1850..=2100;

/// Why a text is not a date. The text is for the clerk and never repeats the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DateError {
    /// None of the accepted forms.
    #[error(
        "日期应写成 2026-01-31 或 20260131 的形式，请改写 / a date is written 2026-01-31 or 20260131; write it so"
    )]
    Form,
    /// No such day.
    #[error("日历上没有这一天，请核对日期 / there is no such day in the calendar; check the date")]
    Calendar,
    /// Outside [`YEARS`].
    #[error(
        "年份应在 1850 至 2100 之间，请核对日期 / the year lies between 1850 and 2100; check the date"
    )]
    Year,
}

/// A date as `YYYY-MM-DD`, from that form, `YYYYMMDD`, or year, month and day parted by
/// `/`, `.`, `-` or 年 月 日. A time of midnight behind it, as spreadsheets add it, is dropped.
///
/// # Errors
/// [`DateError`].
pub fn canonical(text: &str) -> Result<String, DateError> {
    let text: String = text.chars().map(crate::numbers::narrow_char).collect();
    let text = without_midnight(text.trim());
    let parts: Vec<&str> = if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) {
        vec![&text[..4], &text[4..6], &text[6..]]
    } else if text.contains('年') {
        let text = text.strip_suffix(['日', '号']).ok_or(DateError::Form)?;
        text.split(['年', '月']).map(str::trim).collect()
    } else {
        let separator = ['-', '/', '.'].into_iter().find(|c| text.contains(*c));
        text.split(separator.ok_or(DateError::Form)?).collect()
    };
    let [year, month, day] = parts.as_slice() else {
        return Err(DateError::Form);
    };
    let number = |part: &str, digits: RangeInclusive<usize>| {
        let fits = digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let value = if fits { part.parse::<u32>().ok() } else { None };
        value.ok_or(DateError::Form)
    };
    let (year, month, day) = (
        number(year, 4..=4)?,
        number(month, 1..=2)?,
        number(day, 1..=2)?,
    );
    if !YEARS.contains(&year) {
        return Err(DateError::Year);
    }
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return Err(DateError::Calendar);
    }
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

fn without_midnight(text: &str) -> &str {
    [" 00:00:00", " 0:00:00", "T00:00:00", " 00:00", " 0:00"]
        .iter()
        .find_map(|end| text.strip_suffix(end))
        .unwrap_or(text)
}

/// The number of days in a month of the Gregorian calendar; `month` is 1 to 12.
pub fn days_in(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_one_form_however_it_was_written() {
        for text in [
            "2019-04-03",
            "20190403",
            "2019/4/3",
            "2019.4.3",
            "2019．04．03",
            "2019年4月3日",
            "2019 年 4 月 3 日",
            "２０１９－４－３",
            "2019/4/3 0:00:00",
        ] {
            assert_eq!(canonical(text).as_deref(), Ok("2019-04-03"), "{text}");
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for (text, error) in [
            ("", DateError::Form),
            ("昨天", DateError::Form),
            ("2019-04", DateError::Form),
            ("2019年4月", DateError::Form),
            ("19-04-03", DateError::Form),
            ("2019-04-03-01", DateError::Form),
            ("2019/04-03", DateError::Form),
            ("2019-04-03 12:30", DateError::Form),
            ("+2019-4-3", DateError::Form),
            ("2019-13-01", DateError::Calendar),
            ("2019-00-01", DateError::Calendar),
            ("2019-04-31", DateError::Calendar),
            ("1900-02-29", DateError::Calendar),
            ("1849-12-31", DateError::Year),
            ("2101-01-01", DateError::Year),
        ] {
            assert_eq!(canonical(text), Err(error), "{text}");
        }
        assert!(canonical("2000-02-29").is_ok());
    }
}
