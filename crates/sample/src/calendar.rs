//! Days as numbers, so that ages can be counted.

/// The number of a day of the Gregorian calendar; 1970-01-01 is 0.
pub(crate) fn number((year, month, day): (u32, u32, u32)) -> i32 {
    // The year begins with March, so that the leap day is its last.
    let shifted = year as i32 - i32::from(month <= 2);
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * ((month as i32 + 9) % 12) + 2) / 5 + day as i32 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The day of a number as `YYYY-MM-DD`.
pub(crate) fn text(number: i32) -> String {
    let shifted = number + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i32::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_two_centuries_keeps_its_number() {
        assert_eq!(number((1970, 1, 1)), 0);
        let mut expected = number((1900, 1, 1));
        assert_eq!(expected, -25_567);
        for year in 1900..2100 {
            for month in 1..=12 {
                for day in 1..=record::dates::days_in(year, month) {
                    assert_eq!(number((year, month, day)), expected);
                    assert_eq!(text(expected), format!("{year:04}-{month:02}-{day:02}"));
                    expected += 1;
                }
            }
        }
    }
}
