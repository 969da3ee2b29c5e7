//! Units and facilities of a community.

use std::collections::BTreeSet;

use record::numbers::{credit_check, organization_check};

use crate::calendar;
use crate::draw::Draw;
use crate::names;
use crate::people::phone;
use crate::place::{Ground, Place};
use crate::table::Table;

const FIRST: [&str; 24] = [
    "安", "和", "恒", "盛", "鑫", "瑞", "华", "宏", "丰", "祥", "泰", "永", "新", "嘉", "百", "金",
    "天", "顺", "广", "福", "康", "明", "东", "源",
];
const SECOND: [&str; 24] = [
    "达", "泰", "源", "兴", "隆", "美", "信", "诚", "通", "康", "宇", "辉", "博", "越", "茂", "业",
    "荣", "利", "佳", "捷", "德", "益", "风", "景",
];
/// Trade, kind of unit, the first two characters of its credit code, how common.
const TRADES: [((&str, &str, &str), usize); 14] = [
    (("商贸", "有限责任公司", "91"), 16),
    (("餐饮管理", "有限责任公司", "91"), 12),
    (("建材", "有限责任公司", "91"), 8),
    (("建筑劳务", "有限责任公司", "91"), 8),
    (("农业发展", "有限责任公司", "91"), 8),
    (("物流", "有限责任公司", "91"), 6),
    (("信息技术", "有限责任公司", "91"), 6),
    (("机械制造", "有限责任公司", "91"), 6),
    (("汽车服务", "有限责任公司", "91"), 6),
    (("大药房", "有限责任公司", "91"), 5),
    (("广告传媒", "有限责任公司", "91"), 4),
    (("种植", "农民专业合作社", "93"), 6),
    (("幼儿园", "民办非企业单位", "52"), 4),
    (("养老服务中心", "民办非企业单位", "52"), 3),
];

fn unit_name(place: &Place, stem: &str, trade: &str, unit_type: &str) -> String {
    match unit_type {
        "农民专业合作社" => format!("{}{stem}{trade}专业合作社", place.county),
        "民办非企业单位" => format!("{}{stem}{trade}", place.town),
        _ => format!("{}{stem}{trade}有限公司", place.county),
    }
}

/// The units, and the names under which people say that they work there.
pub(crate) fn units(
    draw: &mut Draw,
    place: &Place,
    ground: &Ground,
    persons: usize,
) -> (Table, Vec<String>) {
    let mut table = Table::new(&[
        "grid",
        "unit_name",
        "credit_code",
        "unit_type",
        "registered_on",
        "registered_address",
        "address_code",
        "operating_state",
        "industry",
        "staff",
        "legal_representative",
        "contact_name",
        "phone",
    ]);
    let mut taken = BTreeSet::new();
    let count = if persons == 0 { 0 } else { persons / 45 + 3 };
    for at in 0..count {
        let (trade, unit_type, class) = draw.weighted(&TRADES);
        let mut name = unit_name(place, &stem(draw), trade, unit_type);
        // A third character where two are used up; the loop ends because the stem may grow.
        let mut longer = String::new();
        while !taken.insert(name.clone()) {
            longer += draw.pick(&FIRST);
            name = unit_name(place, &(stem(draw) + &longer), trade, unit_type);
        }
        let building = &ground.buildings[draw.below(ground.buildings.len())];
        let [legal, contact] = [1975, 1988].map(|year| {
            let male = draw.chance(60);
            names::surname(draw) + &names::given(draw, male, year)
        });
        table.push([
            building.grid.clone(),
            name,
            credit_code(place, class, at),
            unit_type.to_owned(),
            calendar::text(place.today() - draw.between(30, 7000)),
            format!("{}1层{}号", building.address, at % 40 + 1),
            building.address_code.clone(),
            draw.weighted(&[("10", 92), ("20", 6), ("30", 2)])
                .to_owned(),
            trade.to_owned(),
            draw.between(1, 60).to_string(),
            legal,
            contact,
            phone(draw),
        ]);
    }
    let employers = table.column("unit_name").map(str::to_owned).collect();
    (table, employers)
}

fn stem(draw: &mut Draw) -> String {
    format!("{}{}", draw.pick(&FIRST), draw.pick(&SECOND))
}

/// A credit code under a region that does not exist, right by GB 32100 and GB 11714.
fn credit_code(place: &Place, class: &str, at: usize) -> String {
    let organization = format!("MA{:06}", at % 1_000_000);
    let inner = organization_check(&organization).expect("8 characters were just written");
    let body = format!("{class}{}{organization}{inner}", place.region());
    let check = credit_check(&body).expect("17 characters of the alphabet were just written");
    format!("{body}{check}")
}

/// Type code, name, department, how common.
const FACILITIES: [((&str, &str, &str), usize); 16] = [
    (("102", "消火栓", "消防救援大队"), 18),
    (("303", "路灯", "城市管理局"), 20),
    (("302", "井盖", "城市管理局"), 18),
    (("304", "垃圾收集点", "城市管理局"), 8),
    (("506", "电梯", "市场监督管理局"), 6),
    (("401", "宣传栏", "社区居民委员会"), 5),
    (("203", "公交站", "交通运输局"), 4),
    (("201", "交通信号灯", "公安局交通警察大队"), 3),
    (("305", "公共厕所", "城市管理局"), 3),
    (("306", "公共停车场", "城市管理局"), 3),
    (("503", "配电房", "供电公司"), 4),
    (("504", "燃气调压箱", "燃气公司"), 3),
    (("403", "小广场", "社区居民委员会"), 2),
    (("108", "微型消防站", "社区居民委员会"), 1),
    (("107", "应急避难场所", "应急管理局"), 1),
    (("704", "菜市场", "商务局"), 1),
];

/// The facilities.
pub(crate) fn facilities(draw: &mut Draw, place: &Place, ground: &Ground, persons: usize) -> Table {
    let mut table = Table::new(&[
        "grid",
        "facility_code",
        "facility_name",
        "facility_type",
        "address",
        "address_code",
        "building_code",
        "department",
        "condition",
        "installed_on",
        "inspected_on",
        "longitude",
        "latitude",
        "crs",
    ]);
    let count = if persons == 0 { 0 } else { persons / 50 + 5 };
    for at in 0..count {
        let (facility_type, name, department) = draw.weighted(&FACILITIES);
        let building = &ground.buildings[draw.below(ground.buildings.len())];
        let inspected = place.today() - draw.between(0, 360);
        let local = department == "社区居民委员会";
        table.push([
            building.grid.clone(),
            format!("{}F{:05}", place.division_code, at + 1),
            format!("{name}{}号", at + 1),
            facility_type.to_owned(),
            building.address.clone(),
            building.address_code.clone(),
            if facility_type == "506" {
                building.code.clone()
            } else {
                String::new()
            },
            format!(
                "{}{department}",
                if local {
                    &place.community
                } else {
                    &place.county
                }
            ),
            draw.weighted(&[("10", 90), ("20", 7), ("30", 3)])
                .to_owned(),
            calendar::text(inspected - draw.between(100, 5000)),
            calendar::text(inspected),
            building.longitude.clone(),
            building.latitude.clone(),
            "wgs84".to_owned(),
        ]);
    }
    table
}
