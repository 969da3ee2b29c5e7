//! The line beside every answer that people see.
//!
//! Owns its words and its clock (Beijing time, UTC+8, all year). It refuses to carry
//! anything but letters, digits and hyphens of who read: one line, no comma, no quote,
//! so that it can stand in a CSV footer as it is.

use record::id::UnixMillis;

use crate::mark::Mark;

/// Characters of the operator's id that are shown.
const WHO_CHARACTERS_MAX: usize = 16;
const UTC8_SECONDS: u64 = 8 * 3600;
/// The last second of the year 9999 in UTC+8.
const LAST_SECOND: u64 = 253_402_300_799;

/// One line in Chinese and English: the mark, who read, and when.
///
/// `who` is the beginning of an operator's id, never a name.
pub fn banner(mark: &Mark, who: &str, when: UnixMillis) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let who: String = who
        .chars()
        .filter(allowed)
        .take(WHO_CHARACTERS_MAX)
        .collect();
    let when = beijing(when);
    format!(
        "标记 {mark} · 操作员 {who} · {when} · 本次查阅已登记，可追溯 | \
         Mark {mark} · operator {who} · {when} · this reading is on record and traceable"
    )
}

/// `YYYY-MM-DD hh:mm:ss +08:00`; times after the year 9999 show its last second.
fn beijing(when: UnixMillis) -> String {
    let seconds = (when.secs().saturating_add(UTC8_SECONDS)).min(LAST_SECOND);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +08:00")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    (
        year,
        if month < 10 { month + 3 } else { month - 9 },
        day_of_month,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_beijing_has_it() {
        for (seconds, shown) in [
            (0, "1970-01-01 08:00:00 +08:00"),
            (951_811_200, "2000-02-29 16:00:00 +08:00"),
            (1_709_222_399, "2024-02-29 23:59:59 +08:00"),
            (1_709_222_400, "2024-03-01 00:00:00 +08:00"),
            (1_790_000_000, "2026-09-21 22:13:20 +08:00"),
            (4_107_542_399, "2100-03-01 07:59:59 +08:00"),
        ] {
            assert_eq!(beijing(UnixMillis(seconds * 1000)), shown);
        }
        assert_eq!(beijing(UnixMillis(u64::MAX)), "9999-12-31 23:59:59 +08:00");
    }

    #[test]
    fn a_banner_is_one_line_that_no_input_can_break() {
        let mark: Mark = "FZ-0000-0000-0000-0000-0".parse().unwrap();
        let line = banner(&mark, "3fa9\r\n\",=cmd|<b>-1", UnixMillis(0));
        assert_eq!(line.matches("3fa9cmdb-1").count(), 2);
        assert_eq!(line.matches("FZ-0000-0000-0000-0000-0").count(), 2);
        assert!(!line.contains(['\r', '\n', '"', ',', '<', '=']));
        let long = banner(&mark, &"a".repeat(1000), UnixMillis(0));
        assert!(long.len() < 300);
    }
}
