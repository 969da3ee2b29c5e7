//! Rules between fields, and between a field and today.
//!
//! They go by field id and hold in every kind that has the fields, so a realm's own kinds
//! get them by using the same ids.

use crate::check::Review;
use crate::numbers;

/// Days on which something happened; they cannot lie ahead.
const PAST: [&str; 6] = [
    "birth_date",
    "registered_on",
    "approved_on",
    "completed_on",
    "installed_on",
    "inspected_on",
];

/// Applies every rule.
pub(crate) fn apply(review: &mut Review<'_>, today: &str) {
    citizen_number_agrees(review);
    past_is_past(review, today);
    division_code_has_its_list(review);
    coordinates_are_whole(review);
}

/// The citizen number says birth date and sex: completes them, or finds the contradiction.
fn citizen_number_agrees(review: &mut Review<'_>) {
    let Some(number) = review.value("citizen_number").map(str::to_owned) else {
        return;
    };
    if let Some(birth) = numbers::citizen_birth_date(&number) {
        match review.value("birth_date") {
            Some(given) if given != birth => {
                review.refuse(
                    "birth_date",
                    "出生日期与公民身份号码不一致，请核对证件 / the birth date is not that of the citizen number; compare both with the card".to_owned(),
                );
            }
            _ => review.complete("birth_date", birth),
        }
    }
    if let Some(sex) = numbers::citizen_sex(&number) {
        match review.value("sex") {
            Some(given @ ("1" | "2")) if given != sex => {
                review.refuse("sex", "性别与公民身份号码不一致，请核对证件 / the sex is not that of the citizen number; compare both with the card".to_owned());
            }
            // Unknown (0) and not stated (9) contradict nothing.
            _ => review.complete("sex", sex.to_owned()),
        }
    }
}

fn past_is_past(review: &mut Review<'_>, today: &str) {
    for id in PAST {
        if review.value(id).is_some_and(|date| date > today) {
            review.refuse(
                id,
                "日期不能晚于今天，请核对 / the date lies after today; check it".to_owned(),
            );
        }
    }
}

/// The same code names different towns in different lists.
fn division_code_has_its_list(review: &mut Review<'_>) {
    let has_list = review.value("division_scheme").is_some();
    if review.value("division_code").is_some() && !has_list && !review.is_refused("division_scheme")
    {
        review.refuse(
            "division_scheme",
            "填写行政区划代码时须注明来源（mca 民政、nbs 统计或 local 本地），请补填 / a division code needs the list that it is from: mca (civil affairs), nbs (statistics) or local; fill that in".to_owned(),
        );
    }
}

/// A point is longitude, latitude and the system they are measured in.
fn coordinates_are_whole(review: &mut Review<'_>) {
    let parts = ["longitude", "latitude", "crs"];
    if parts.iter().any(|id| review.is_refused(id)) {
        return;
    }
    let given: Vec<bool> = parts.iter().map(|id| review.value(id).is_some()).collect();
    if given.contains(&true) {
        for (id, _) in parts.iter().zip(&given).filter(|(_, given)| !**given) {
            review.refuse(
                id,
                "经度、纬度和坐标系须同时填写，请补齐或一并清空 / longitude, latitude and coordinate system go together; fill in all three, or none".to_owned(),
            );
        }
    }
    for (id, most) in [("longitude", 180.0), ("latitude", 90.0)] {
        let number = review.value(id).and_then(|text| text.parse::<f64>().ok());
        if number.is_some_and(|number: f64| number.abs() > most) {
            review.refuse(
                id,
                format!("应在 -{most} 至 {most} 之间，请核对经度和纬度是否填反 / it lies between -{most} and {most}; see whether longitude and latitude are exchanged"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::draft::Draft;
    use crate::id::Kind;
    use crate::schema::Catalogue;

    fn violations(kind: &str, fields: &[(&str, &str)]) -> Vec<String> {
        let catalogue = Catalogue::builtin();
        let schema = catalogue.schema(&Kind::new(kind).unwrap()).unwrap();
        let fields = fields
            .iter()
            .map(|(id, text)| ((*id).to_owned(), (*text).to_owned()))
            .collect();
        match (Draft { fields }).check(schema, catalogue, "2026-06-30") {
            Ok(_) => Vec::new(),
            Err(violations) => violations.into_iter().map(|v| v.field).collect(),
        }
    }

    const NUMBER: &str = "11010519491231002X";

    #[test]
    fn birth_date_and_sex_must_agree_with_the_citizen_number() {
        let with = |birth, sex| {
            let fields = [
                ("name", "王五"),
                ("citizen_number", NUMBER),
                ("birth_date", birth),
                ("sex", sex),
            ];
            violations("person", &fields)
        };
        assert!(with("1949年12月31日", "女").is_empty());
        assert!(with("", "未知").is_empty());
        assert_eq!(with("1949-12-30", "男"), ["sex", "birth_date"]);
    }

    #[test]
    fn nobody_is_born_tomorrow_but_a_change_may_take_effect_then() {
        let born = |date| violations("person", &[("name", "王五"), ("birth_date", date)]);
        assert!(born("2026-06-30").is_empty());
        assert_eq!(born("2026-07-01"), ["birth_date"]);
        let number = "11010520990101001";
        let check = crate::numbers::citizen_check(number).unwrap();
        let number = format!("{number}{check}");
        assert_eq!(
            violations("person", &[("name", "王五"), ("citizen_number", &number)]),
            ["birth_date"]
        );
        assert!(violations("person", &[("name", "王五"), ("valid_from", "2026-09-01")]).is_empty());
    }

    #[test]
    fn a_division_code_without_its_list_is_refused() {
        let base = [
            ("grid", "G1"),
            ("grid_name", "第一网格"),
            ("division_code", "500116004001"),
        ];
        assert_eq!(violations("grid", &base), ["division_scheme"]);
        let mut whole = base.to_vec();
        whole.push(("division_scheme", "统计局"));
        assert!(violations("grid", &whole).is_empty());
    }

    #[test]
    fn a_point_needs_both_coordinates_their_system_and_the_right_range() {
        let at = |longitude, latitude, crs| {
            let fields = [
                ("address_code", "A1"),
                ("address", "某路1号"),
                ("longitude", longitude),
                ("latitude", latitude),
                ("crs", crs),
            ];
            violations("address", &fields)
        };
        assert!(at("106.25", "29.29", "wgs84").is_empty());
        assert!(at("", "", "").is_empty());
        assert_eq!(at("106.25", "", ""), ["latitude", "crs"]);
        assert_eq!(at("29.29", "106.25", "wgs84"), ["latitude"]);
        assert_eq!(at("x", "29.29", ""), ["longitude"]);
    }
}
