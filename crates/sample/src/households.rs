//! Who lives together: couples, parents with children, grandparents, people alone.
//!
//! Every household has exactly one head, who comes first. A mother is 20 to 38 at a birth, and
//! brothers and sisters are at least two years of age apart.

use crate::draw::Draw;

/// What somebody is to the household.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Head,
    Spouse,
    /// A child of head and spouse.
    Child,
    /// A parent of the head.
    Parent,
    /// A grandchild of the head, whose parents work elsewhere.
    Grandchild,
    /// Shares the room without being a relative.
    Tenant,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub part: Part,
    pub male: bool,
    /// Full years.
    pub age: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    Couple,
    Family,
    OneParent,
    ThreeGenerations,
    OldCouple,
    Grandparents,
    Sharing,
}

/// How common each shape is, so that the ages together are those of a town in the 2020s.
const SHAPES: [(Shape, usize); 8] = [
    (Shape::Single, 16),
    (Shape::Couple, 12),
    (Shape::Family, 36),
    (Shape::OneParent, 5),
    (Shape::ThreeGenerations, 15),
    (Shape::OldCouple, 12),
    (Shape::Grandparents, 2),
    (Shape::Sharing, 2),
];

/// Households of so many persons in all.
pub(crate) fn households(draw: &mut Draw, persons: usize) -> Vec<Vec<Member>> {
    let mut all = Vec::new();
    let mut left = persons;
    while left > 0 {
        let shape = draw.weighted(&SHAPES);
        let mut household = members(draw, shape);
        // Only the last one is cut, and its head comes first; a child never stays alone.
        household.truncate(left);
        left -= household.len();
        all.push(household);
    }
    all
}

fn members(draw: &mut Draw, shape: Shape) -> Vec<Member> {
    let age = match shape {
        Shape::Single if draw.chance(55) => draw.between(22, 45),
        Shape::Single => draw.between(58, 90),
        Shape::Couple => draw.between(25, 57),
        Shape::Family | Shape::OneParent => draw.between(27, 52),
        Shape::ThreeGenerations => draw.between(28, 50),
        Shape::OldCouple => draw.between(58, 86),
        Shape::Grandparents => draw.between(52, 72),
        Shape::Sharing => draw.between(20, 36),
    };
    let male = draw.chance(76);
    let mut household = vec![Member {
        part: Part::Head,
        male,
        age,
    }];
    let alone = matches!(shape, Shape::Single | Shape::OneParent | Shape::Sharing);
    let mut mother = age;
    if !alone {
        let spouse = Member {
            part: Part::Spouse,
            male: !male,
            age: (age + draw.between(-3, 3)).max(22),
        };
        mother = if male { spouse.age } else { age };
        household.push(spouse);
    }
    match shape {
        Shape::Family | Shape::OneParent => children(draw, &mut household, mother),
        Shape::ThreeGenerations => {
            children(draw, &mut household, mother);
            parents(draw, &mut household, age);
        }
        Shape::Grandparents => household.push(Member {
            part: Part::Grandchild,
            male: draw.chance(51),
            age: draw.between(1, 12),
        }),
        Shape::Sharing => {
            for _ in 0..draw.between(1, 2) {
                household.push(Member {
                    part: Part::Tenant,
                    male,
                    age: draw.between(20, 36),
                });
            }
        }
        Shape::Single | Shape::Couple | Shape::OldCouple => {}
    }
    household
}

/// One to three children, the eldest first, of at most 24.
fn children(draw: &mut Draw, household: &mut Vec<Member>, mother: i32) {
    let count = draw.weighted(&[(1, 58), (2, 37), (3, 5)]);
    let (low, high) = ((mother - 38).max(0), (mother - 20).min(24));
    let mut age = draw.between(low, high);
    for _ in 0..count {
        if age < low {
            break;
        }
        household.push(Member {
            part: Part::Child,
            male: draw.chance(51),
            age,
        });
        age -= draw.between(2, 5);
    }
}

/// The head's mother, father, or both.
fn parents(draw: &mut Draw, household: &mut Vec<Member>, head: i32) {
    let mother = head + draw.between(20, 32);
    let both = draw.chance(55);
    household.push(Member {
        part: Part::Parent,
        male: false,
        age: mother,
    });
    if both {
        household.push(Member {
            part: Part::Parent,
            male: true,
            age: mother + draw.between(0, 4),
        });
    }
}
