//! Where a community lies and what is built there: addresses, buildings, rooms, grids.

use crate::calendar;
use crate::draw::Draw;
use crate::table::Table;

/// A place that does not exist, for a community that does not either.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Which of up to 10,000 communities of one demonstration, 0 to 9999: keeps their citizen
    /// numbers and credit codes apart, and their seeds.
    pub serial: u16,
    /// Division code of 12 digits, the first part of every code.
    pub division_code: String,
    /// The list of that code: `mca`, `nbs` or `local`.
    pub division_scheme: String,
    /// County or city, in Chinese.
    pub county: String,
    /// Town, in Chinese.
    pub town: String,
    /// Community, in Chinese.
    pub community: String,
    /// Degrees east, WGS-84.
    pub longitude: f64,
    /// Degrees north, WGS-84.
    pub latitude: f64,
    /// Year, month and day on which the register is as described.
    pub as_of: (u32, u32, u32),
}

impl Default for Place {
    fn default() -> Self {
        Place {
            serial: 9999,
            division_code: "999999001001".to_owned(),
            division_scheme: "local".to_owned(),
            county: "示例县".to_owned(),
            town: "杨柳镇".to_owned(),
            community: "清河社区".to_owned(),
            longitude: 106.25,
            latitude: 29.29,
            as_of: (2026, 6, 30),
        }
    }
}

impl Place {
    /// One of many communities of the same county, `serial` 0 to 9999, a hundred to a town.
    #[must_use]
    pub fn numbered(serial: u16) -> Self {
        const FIRST: [&str; 10] = ["清", "安", "和", "新", "永", "长", "东", "南", "金", "龙"];
        const SECOND: [&str; 10] = ["河", "桥", "泉", "田", "山", "湾", "井", "坪", "溪", "塘"];
        let serial = serial % 10_000;
        let (town, community) = (usize::from(serial / 100), usize::from(serial % 100));
        let name = |n: usize| format!("{}{}", FIRST[n / 10], SECOND[n % 10]);
        Place {
            serial,
            division_code: format!("999999{:03}{:03}", 100 + town, 1 + community),
            town: format!("{}镇", name(town)),
            community: format!("{}社区", name(community)),
            longitude: 106.0 + town as f64 * 0.05,
            latitude: 29.0 + community as f64 * 0.005,
            ..Place::default()
        }
    }

    /// Six digits that no division has.
    pub(crate) fn region(&self) -> u32 {
        990_000 + u32::from(self.serial % 10_000)
    }

    /// The register's day as a number.
    pub(crate) fn today(&self) -> i32 {
        calendar::number(self.as_of)
    }
}

pub(crate) struct Building {
    pub code: String,
    pub address_code: String,
    pub address: String,
    pub grid: String,
    pub longitude: String,
    pub latitude: String,
    road: String,
    plate: String,
    estate: String,
    number: String,
    floors: usize,
    stairwells: usize,
    rooms: usize,
    completed: i32,
}

pub(crate) struct Room {
    pub building: usize,
    pub code: String,
    pub address: String,
    stairwell: usize,
    floor: usize,
    number: String,
    area: usize,
}

pub(crate) struct Ground {
    pub buildings: Vec<Building>,
    pub rooms: Vec<Room>,
    grids: usize,
}

/// Who is said to own or rent a room.
#[derive(Clone, Default)]
pub(crate) struct Dwelling {
    pub owner: String,
    pub owner_phone: String,
    /// A code of the list `occupancy`.
    pub occupancy: &'static str,
}

const ROADS: [&str; 20] = [
    "杨柳路",
    "滨河路",
    "学府路",
    "人民路",
    "建设路",
    "朝阳街",
    "解放路",
    "桂花巷",
    "和平街",
    "新华路",
    "团结巷",
    "文昌街",
    "东风路",
    "青年路",
    "石桥街",
    "莲花路",
    "翠竹巷",
    "金凤路",
    "南门街",
    "工农路",
];
const ESTATES: [&str; 20] = [
    "杨柳苑",
    "清河小区",
    "锦绣家园",
    "阳光花园",
    "金桂苑",
    "滨江名都",
    "书香苑",
    "和谐家园",
    "翠湖雅居",
    "幸福里",
    "东方新城",
    "安居小区",
    "兰亭苑",
    "龙泉小区",
    "紫荆花园",
    "百合苑",
    "丰收新村",
    "梧桐苑",
    "银杏小区",
    "望江苑",
];
/// Floors, stairwells, rooms a floor and stairwell.
const TYPES: [((usize, usize, usize), usize); 4] = [
    ((6, 3, 2), 45),
    ((18, 2, 4), 30),
    ((11, 2, 2), 15),
    ((3, 1, 1), 10),
];
/// A grid has 300 to 500 households by common rule.
const ROOMS_PER_GRID: usize = 360;

/// Builds estate after estate until every household has a room and some stay empty.
pub(crate) fn ground(draw: &mut Draw, place: &Place, households: usize) -> Ground {
    let wanted = households + households / 13;
    let mut ground = Ground {
        buildings: Vec::new(),
        rooms: Vec::new(),
        grids: 0,
    };
    let mut estates = 0;
    while ground.rooms.len() < wanted || ground.buildings.is_empty() {
        estate(draw, place, &mut ground, estates, wanted);
        estates += 1;
    }
    ground.grids = ground.rooms.len() / ROOMS_PER_GRID + 1;
    ground
}

fn estate(draw: &mut Draw, place: &Place, ground: &mut Ground, at: usize, wanted: usize) {
    let shape = draw.weighted(&TYPES);
    let road = ROADS[at % ROADS.len()].to_owned();
    // The plate tells estates of one road apart, so that no two addresses are equal.
    let plate = format!("{}号", 1 + at / ROADS.len() * 10 + draw.below(9));
    let phase = at / ESTATES.len();
    let estate = match phase {
        0 => ESTATES[at % ESTATES.len()].to_owned(),
        _ => format!("{}{}期", ESTATES[at % ESTATES.len()], phase + 1),
    };
    let completed = place.today() - draw.between(400, 13_000);
    let east = place.longitude + (draw.below(20_000) as f64 - 10_000.0) * 1e-6;
    let north = place.latitude + (draw.below(20_000) as f64 - 10_000.0) * 1e-6;
    for number in 1..=draw.between(3, 8) {
        if ground.rooms.len() >= wanted && !ground.buildings.is_empty() {
            break;
        }
        let (floors, stairwells, per_floor) = shape;
        let index = ground.buildings.len();
        let address = format!(
            "{}{}{}{road}{plate}{estate}{number}栋",
            place.county, place.town, place.community
        );
        let building = Building {
            code: format!("{}B{:05}", place.division_code, index + 1),
            address_code: format!("{}D{:05}", place.division_code, index + 1),
            grid: grid_code(place, ground.rooms.len() / ROOMS_PER_GRID),
            longitude: format!("{:.6}", east + f64::from(number) * 6e-4),
            latitude: format!("{:.6}", north + f64::from(number % 3) * 5e-4),
            road: road.clone(),
            plate: plate.clone(),
            estate: estate.clone(),
            number: format!("{number}栋"),
            floors,
            stairwells,
            rooms: floors * stairwells * per_floor,
            completed,
            address,
        };
        rooms_of(draw, ground, &building, index, per_floor);
        ground.buildings.push(building);
    }
}

fn rooms_of(draw: &mut Draw, ground: &mut Ground, of: &Building, index: usize, per_floor: usize) {
    for stairwell in 1..=of.stairwells {
        for floor in 1..=of.floors {
            for door in 1..=per_floor {
                let number = format!("{floor}{door:02}");
                ground.rooms.push(Room {
                    building: index,
                    code: format!("{}-{stairwell}-{floor:02}{door:02}", of.code),
                    address: format!("{}{stairwell}单元{number}室", of.address),
                    stairwell,
                    floor,
                    number,
                    area: 55 + draw.below(90),
                });
            }
        }
    }
}

fn grid_code(place: &Place, at: usize) -> String {
    format!("{}{:03}", place.division_code, at + 1)
}

/// One standard address for each building.
pub(crate) fn addresses(place: &Place, ground: &Ground) -> Table {
    let mut table = Table::new(&[
        "grid",
        "address_code",
        "address",
        "division_code",
        "division_scheme",
        "town",
        "community",
        "road",
        "plate",
        "estate",
        "building_number",
        "element",
        "urban_rural",
        "temporary",
        "longitude",
        "latitude",
        "crs",
    ]);
    for building in &ground.buildings {
        table.push([
            building.grid.clone(),
            building.address_code.clone(),
            building.address.clone(),
            place.division_code.clone(),
            place.division_scheme.clone(),
            place.town.clone(),
            place.community.clone(),
            building.road.clone(),
            building.plate.clone(),
            building.estate.clone(),
            building.number.clone(),
            "50".to_owned(),
            "121".to_owned(),
            "0".to_owned(),
            building.longitude.clone(),
            building.latitude.clone(),
            "wgs84".to_owned(),
        ]);
    }
    table
}

/// The buildings.
pub(crate) fn buildings(place: &Place, ground: &Ground) -> Table {
    let mut table = Table::new(&[
        "grid",
        "building_code",
        "building_name",
        "address_code",
        "address",
        "building_type",
        "structure",
        "floors_above",
        "stairwells",
        "rooms",
        "completed_on",
        "property_company",
        "longitude",
        "latitude",
        "crs",
    ]);
    for building in &ground.buildings {
        table.push([
            building.grid.clone(),
            building.code.clone(),
            format!("{}{}", building.estate, building.number),
            building.address_code.clone(),
            building.address.clone(),
            if building.floors == 3 { "12" } else { "11" }.to_owned(),
            if building.floors > 6 { "3" } else { "4" }.to_owned(),
            building.floors.to_string(),
            building.stairwells.to_string(),
            building.rooms.to_string(),
            calendar::text(building.completed),
            format!("{}安居物业服务有限公司", place.county),
            building.longitude.clone(),
            building.latitude.clone(),
            "wgs84".to_owned(),
        ]);
    }
    table
}

/// The rooms, with who dwells in them.
pub(crate) fn rooms(ground: &Ground, dwellings: &[Dwelling]) -> Table {
    let mut table = Table::new(&[
        "grid",
        "room_code",
        "building_code",
        "address_code",
        "address",
        "stairwell",
        "floor",
        "room_number",
        "room_use",
        "area",
        "occupancy",
        "owner_name",
        "owner_phone",
    ]);
    for (room, dwelling) in ground.rooms.iter().zip(dwellings) {
        let building = &ground.buildings[room.building];
        table.push([
            building.grid.clone(),
            room.code.clone(),
            building.code.clone(),
            building.address_code.clone(),
            room.address.clone(),
            format!("{}单元", room.stairwell),
            room.floor.to_string(),
            room.number.clone(),
            "11".to_owned(),
            room.area.to_string(),
            dwelling.occupancy.to_owned(),
            dwelling.owner.clone(),
            dwelling.owner_phone.clone(),
        ]);
    }
    table
}

/// The grids.
pub(crate) fn grids(draw: &mut Draw, place: &Place, ground: &Ground) -> Table {
    let mut table = Table::new(&[
        "grid",
        "grid_name",
        "division_code",
        "division_scheme",
        "community",
        "boundary",
        "households",
        "leader_name",
        "leader_phone",
        "worker_name",
        "worker_phone",
    ]);
    for at in 0..ground.grids {
        let [leader, worker] = [1978, 1992].map(|year| {
            let male = draw.chance(45);
            let surname = crate::names::surname(draw);
            let name = surname + &crate::names::given(draw, male, year);
            (name, crate::people::phone(draw))
        });
        let code = grid_code(place, at);
        let inside = |room: &&Room| ground.buildings[room.building].grid == code;
        table.push([
            code.clone(),
            format!("第{}网格", at + 1),
            place.division_code.clone(),
            place.division_scheme.clone(),
            place.community.clone(),
            format!("东至{}，西至{}", ROADS[at % 20], ROADS[(at + 7) % 20]),
            ground.rooms.iter().filter(inside).count().to_string(),
            leader.0,
            leader.1,
            worker.0,
            worker.1,
        ]);
    }
    table
}
