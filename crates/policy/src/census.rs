//! What a change of rules or schemas newly shows in a realm: fields × divisions × organizations.
//!
//! Owns the questions that are put for a whole realm, and their merging: two divisions of one shape
//! get one answer, unless a rule names one of them. Refuses nothing: what a set denies, or fails to
//! evaluate, shows nothing under it. An organization is asked about its own records as their owner,
//! about others' as the holder of a grant for the same purpose.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{ActionConstraint, Context};
use record::authority::{Level, Role};
use record::id::{DivisionId, Kind, OperatorId, Purpose};
use record::schema::{Catalogue, Field, Position};
use serde::Serialize;

use crate::decision::Shown;
use crate::engine::{Circumstances, World, context, field_uid};
use crate::question::{Action, Asker};
use crate::residual;
use crate::rows::RowRule;
use crate::set::PolicySet;

/// The most lines; how many more there are is told.
pub const LINES_MAX: usize = 2000;
/// The most names in a line; how many there are is told.
pub const NAMES_MAX: usize = 64;
/// The most pairs of organization and division that rules tell apart and that are asked about.
const CLASSES_MAX: usize = 2048;
/// What is asked of fields; `grant` is what a holder may be given.
const ACTIONS: [Action; 6] = [
    Action::Read,
    Action::List,
    Action::Export,
    Action::Amend,
    Action::Propose,
    Action::Grant,
];
/// The grid that a grid worker is asked as.
const GRID: &str = "the-own-grid";

/// A division or organization of the realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub division: DivisionId,
    /// Its level.
    pub level: Level,
    /// Those above it with their levels, nearest first.
    pub above: Vec<(DivisionId, Level)>,
}

/// What is in force on one side of a change.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The rules.
    pub set: &'a PolicySet,
    /// The schemas.
    pub catalogue: &'a Catalogue,
}

/// How the organization stands to the division whose records they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stands {
    /// It is the division.
    Own,
    /// It is so many levels above; it reads what it was granted.
    Above(usize),
    /// It is elsewhere in the realm; it reads what it was granted.
    Elsewhere,
}

/// A field that would be shown more than before, to whom, and whose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// The kind.
    pub kind: Kind,
    /// The field's id.
    pub field: String,
    /// Its name in Chinese.
    pub name: String,
    /// Who would see it, by role; of `grant`, who could give it away.
    pub role: Role,
    /// How the organization stands to the division.
    pub stands: Stands,
    /// Doing what.
    pub actions: Vec<&'static str>,
    /// What for.
    pub purposes: Vec<Purpose>,
    /// How it is answered so far.
    pub before: Shown,
    /// How it would be answered.
    pub after: Shown,
    /// Whether the condition on rows differs; it is then to be read, as which of two conditions is
    /// wider is not computed.
    pub rows_differ: bool,
    /// Whose operators; of `grant`, the holders. The first [`NAMES_MAX`].
    pub organizations: Vec<DivisionId>,
    /// How many organizations.
    pub organizations_count: usize,
    /// Whose records. The first [`NAMES_MAX`].
    pub divisions: Vec<DivisionId>,
    /// How many divisions.
    pub divisions_count: usize,
}

/// What a change newly shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Line by line, by kind and field.
    pub lines: Vec<Opened>,
    /// Lines beyond [`LINES_MAX`].
    pub more: usize,
    /// How many fields are shown to somebody who did not see them so.
    pub fields: usize,
    /// How many organizations see more.
    pub organizations: usize,
    /// Of how many divisions.
    pub divisions: usize,
    /// Rules name so many divisions that not every pair was asked about: read the rules.
    pub incomplete: bool,
}

/// Everything that `after` shows more of than `before`, or under other rows, in a realm of these
/// members.
pub fn opened(before: Side<'_>, after: Side<'_>, members: &[Member]) -> Census {
    let asked = Asked::new(before, after);
    let mut found: BTreeMap<Key, BTreeMap<Purpose, BTreeSet<&'static str>>> = BTreeMap::new();
    let mut classes = classes(&asked, members);
    let incomplete = classes.len() > CLASSES_MAX;
    classes.truncate(CLASSES_MAX);
    for (at, class) in classes.iter().enumerate() {
        for role in Role::ALL {
            asked.ask(class, role, &mut |field, difference, purpose, action| {
                let key = (field.clone(), role, at, difference);
                let of = found.entry(key).or_default();
                of.entry(purpose.clone()).or_default().insert(action);
            });
        }
    }
    let mut census = Census {
        incomplete,
        ..Census::default()
    };
    let seen = |at: &usize| &classes[*at];
    let touched: BTreeSet<usize> = found.keys().map(|(_, _, at, _)| *at).collect();
    let organizations = touched.iter().flat_map(|at| &seen(at).organizations);
    census.organizations = organizations.collect::<BTreeSet<_>>().len();
    let divisions = touched.iter().flat_map(|at| &seen(at).divisions);
    census.divisions = divisions.collect::<BTreeSet<_>>().len();
    census.fields = found
        .keys()
        .map(|(field, ..)| field)
        .collect::<BTreeSet<_>>()
        .len();
    for (((kind, position), role, at, difference), purposes) in found {
        let mut by_actions: BTreeMap<BTreeSet<&'static str>, Vec<Purpose>> = BTreeMap::new();
        for (purpose, actions) in purposes {
            by_actions.entry(actions).or_default().push(purpose);
        }
        let field = after.catalogue.schema(&kind).and_then(|s| s.at(position));
        for (actions, purposes) in by_actions {
            if census.lines.len() >= LINES_MAX {
                census.more += 1;
                continue;
            }
            let class = &classes[at];
            census.lines.push(Opened {
                kind: kind.clone(),
                field: field.map_or(String::new(), |f| f.id.clone()),
                name: field.map_or(String::new(), |f| f.name.clone()),
                role,
                stands: class.stands,
                actions: actions.into_iter().collect(),
                purposes,
                before: difference.before,
                after: difference.after,
                rows_differ: difference.rows,
                organizations: first(&class.organizations),
                organizations_count: class.organizations.len(),
                divisions: first(&class.divisions),
                divisions_count: class.divisions.len(),
            });
        }
    }
    census
}

fn first(names: &BTreeSet<DivisionId>) -> Vec<DivisionId> {
    names.iter().take(NAMES_MAX).cloned().collect()
}

/// Takes a field that is shown more: which, how, for which purpose, by which action.
type Tell<'a> = dyn FnMut(&(Kind, Position), Difference, &Purpose, &'static str) + 'a;

type Key = ((Kind, Position), Role, usize, Difference);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Difference {
    before: Shown,
    after: Shown,
    rows: bool,
}

/// Pairs of organization and division that no rule can tell apart, and one of them.
struct Class {
    stands: Stands,
    asker: (DivisionId, Level),
    division: DivisionId,
    ancestors: Vec<DivisionId>,
    organizations: BTreeSet<DivisionId>,
    divisions: BTreeSet<DivisionId>,
}

/// Fields that no rule can tell apart, and one of them, at a position of its own.
struct Alike {
    kind: Kind,
    field: Field,
}

/// What is to be asked, and which answers may differ at all.
struct Asked<'a> {
    before: Side<'a>,
    after: Side<'a>,
    alike: Vec<Alike>,
    /// Each field in force after the change: how it was seen before, if it was there, and after.
    fields: BTreeMap<(Kind, Position), (Option<usize>, usize)>,
    /// The rules that are not the same on both sides; absent when all are.
    changed: Option<cedar_policy::PolicySet>,
    /// The actions, by Cedar's names, that those speak of; all when absent.
    actions: Option<BTreeSet<String>>,
    purposes: Vec<Purpose>,
    /// Whether any rule reads a field's kind or id, rather than what it is like.
    by_kind: bool,
}

impl<'a> Asked<'a> {
    fn new(before: Side<'a>, after: Side<'a>) -> Self {
        let (changed, actions) = difference(before.set, after.set);
        let mut asked = Self {
            before,
            after,
            alike: Vec::new(),
            fields: BTreeMap::new(),
            changed,
            actions,
            purposes: after
                .set
                .purposes()
                .iter()
                .map(|p| p.code.clone())
                .collect(),
            by_kind: false,
        };
        asked.by_kind = ["\\", "kind", ".id", "\"id\""]
            .iter()
            .any(|name| asked.mentions(name));
        let mut known = BTreeMap::new();
        for schema in after.catalogue.kinds() {
            let old = before.catalogue.schema(&schema.kind);
            for field in &schema.fields {
                let was = old.and_then(|old| old.at(field.position));
                let key = |field| asked.key(&schema.kind, field);
                // With the same rules, only what rules see otherwise can be answered otherwise.
                if asked.changed.is_some() || was.map(key) != Some(key(field)) {
                    let was = was.map(|was| asked.alike(&schema.kind, was, &mut known));
                    let is = asked.alike(&schema.kind, field, &mut known);
                    let at = (schema.kind.clone(), field.position);
                    asked.fields.insert(at, (was, is));
                }
            }
        }
        asked
    }

    fn mentions(&self, text: &str) -> bool {
        [self.before.set, self.after.set]
            .iter()
            .any(|set| set.text().contains(text))
    }

    /// The same for fields that no rule can tell apart.
    fn key(&self, kind: &Kind, field: &Field) -> String {
        let mut key = format!(
            "{:?} {} {:?}",
            field.field_type, field.group, field.sensitivity
        );
        if self.by_kind {
            key += &format!(" {kind} {}", field.id);
        }
        key
    }

    /// The fields that no rule can tell from this one.
    fn alike(&mut self, kind: &Kind, field: &Field, known: &mut BTreeMap<String, usize>) -> usize {
        let key = self.key(kind, field);
        let next = self.alike.len();
        let at = *known.entry(key).or_insert(next);
        if at == next {
            self.alike.push(Alike {
                kind: kind.clone(),
                field: field.clone(),
            });
        }
        at
    }

    /// Whether an action is to be asked at all.
    fn concerns(&self, names: &[&str]) -> bool {
        match (&self.changed, &self.actions) {
            (None, _) | (Some(_), None) => true,
            (Some(_), Some(actions)) => names.iter().any(|name| actions.contains(*name)),
        }
    }

    /// Puts every question of one class and role; tells each field that is shown more.
    fn ask(&self, class: &Class, role: Role, tell: &mut Tell<'_>) {
        let asker = Asker {
            operator: OperatorId([0; 16]),
            role,
            organization: class.asker.0.clone(),
            level: class.asker.1,
            grid: (role == Role::GridWorker).then(|| GRID.to_owned()),
        };
        let mut groups: BTreeMap<Option<&Kind>, Vec<usize>> = BTreeMap::new();
        for (at, alike) in self.alike.iter().enumerate() {
            let kind = self.by_kind.then_some(&alike.kind);
            groups.entry(kind).or_default().push(at);
        }
        for places in groups.values() {
            // Positions of their own: fields of several kinds may be asked together.
            let fields: Vec<Field> = (0..Position::MAX)
                .zip(places)
                .map(|(position, at)| Field {
                    position,
                    ..self.alike[*at].field.clone()
                })
                .collect();
            if let Some(first) = places.first() {
                let kind = &self.alike[*first].kind;
                self.ask_kind(class, &asker, kind, (places, &fields), tell);
            }
        }
    }

    fn ask_kind(
        &self,
        class: &Class,
        asker: &Asker,
        kind: &Kind,
        fields: (&[usize], &[Field]),
        tell: &mut Tell<'_>,
    ) {
        // Whoever grants is an officer of the owner; the class says who would hold.
        let owner = Asker {
            organization: class.division.clone(),
            ..asker.clone()
        };
        let grants = class.stands != Stands::Own && asker.role == Role::SecurityOfficer;
        let worlds = |asker: &Asker| {
            let world = |side: Side<'a>| {
                let (division, above) = (&class.division, &class.ancestors);
                World::new(side.set, asker, division, above, Some(kind), fields.1).ok()
            };
            Some((world(self.before)?, world(self.after)?))
        };
        let (Some(own), Some(others)) = (worlds(asker), worlds(&owner)) else {
            return;
        };
        for purpose in &self.purposes {
            let mut rows = BTreeMap::new();
            for action in ACTIONS {
                let names: &[&str] = match action {
                    Action::Amend | Action::Propose => &[action.as_str(), "changeRows"],
                    Action::Grant => &["grant"],
                    _ => &[action.as_str(), "masked", "seeRows"],
                };
                if !self.concerns(names) || (action == Action::Grant && !grants) {
                    continue;
                }
                let (circumstances, worlds) = match action {
                    Action::Grant => {
                        let sharing = Circumstances::Sharing {
                            holder: class.asker.1,
                            assessed: true,
                        };
                        (sharing, &others)
                    }
                    _ => {
                        let held = (class.stands != Stands::Own).then_some(purpose);
                        let held_by_grant = held;
                        (Circumstances::Use { held_by_grant }, &own)
                    }
                };
                let Ok(after) = context(self.after.set, purpose, &circumstances) else {
                    continue;
                };
                let before = context(self.before.set, purpose, &circumstances).ok();
                let one = One {
                    asked: self,
                    action,
                    old: (&worlds.0, before.as_ref()),
                    new: (&worlds.1, &after),
                };
                one.compare(fields, &mut rows, &mut |field, difference| {
                    tell(field, difference, purpose, action.as_str());
                });
            }
        }
    }
}

/// One action for one purpose, on both sides.
struct One<'a, 'b> {
    asked: &'a Asked<'b>,
    action: Action,
    old: (&'a World<'b>, Option<&'a Context>),
    new: (&'a World<'b>, &'a Context),
}

impl One<'_, '_> {
    fn compare(
        &self,
        (places, fields): (&[usize], &[Field]),
        known_rows: &mut BTreeMap<&'static str, (RowRule, RowRule)>,
        tell: &mut dyn FnMut(&(Kind, Position), Difference),
    ) {
        let asked = self.asked;
        let rows_changed = asked.changed.is_some() && asked.concerns(&["seeRows", "changeRows"]);
        if !rows_changed && !fields.iter().any(|field| self.touches(field)) {
            return;
        }
        let all = |(world, context): (&World<'_>, Option<&Context>)| -> Vec<Shown> {
            let shown = |field| context.map_or(Shown::Withheld, |c| self.shown(world, c, field));
            fields.iter().map(shown).collect()
        };
        let mut new = all((self.new.0, Some(self.new.1)));
        if new.iter().all(|shown| *shown == Shown::Withheld) {
            return;
        }
        let mut old = all(self.old);
        if !rows_changed && new == old && asked.fields.values().all(|(was, is)| *was == Some(*is)) {
            return;
        }
        // Asked for rows last: that costs most.
        let (old_rows, new_rows) = known_rows
            .entry(match self.action {
                Action::Grant => "",
                Action::Amend | Action::Propose => "changeRows",
                _ => "seeRows",
            })
            .or_insert_with_key(|action| {
                let rows = |world: &World<'_>, context: Option<&Context>| match context {
                    _ if action.is_empty() => RowRule::All,
                    None => RowRule::Nothing,
                    Some(context) => match residual::rows(world, action, context) {
                        (rows, verdict) if verdict.is_allowed() => rows,
                        _ => RowRule::Nothing,
                    },
                };
                let new = rows(self.new.0, Some(self.new.1));
                if asked.changed.is_none() {
                    return (new.clone(), new);
                }
                (rows(self.old.0, self.old.1), new)
            });
        if *old_rows == RowRule::Nothing {
            old.fill(Shown::Withheld);
        }
        if *new_rows == RowRule::Nothing {
            new.fill(Shown::Withheld);
        }
        let differ = old_rows != new_rows;
        let answer = |answers: &[Shown], at: usize| {
            let here = places.iter().position(|place| *place == at)?;
            answers.get(here).copied()
        };
        for (field, (was, is)) in &asked.fields {
            let after = answer(&new, *is).unwrap_or(Shown::Withheld);
            let before = was
                .and_then(|was| answer(&old, was))
                .unwrap_or(Shown::Withheld);
            // `Shown` is ordered from most to least visible.
            if after < before || (differ && after != Shown::Withheld) {
                let rows = differ && before != Shown::Withheld;
                tell(
                    field,
                    Difference {
                        before,
                        after,
                        rows,
                    },
                );
            }
        }
    }

    /// Whether any rule that differs between the two sides has a say.
    fn touches(&self, field: &Field) -> bool {
        let Some(changed) = &self.asked.changed else {
            return true;
        };
        [self.action.as_str(), "masked"].iter().any(|action| {
            self.new
                .0
                .touched(changed, action, field_uid(field), self.new.1)
        })
    }

    fn shown(&self, world: &World<'_>, context: &Context, field: &Field) -> Shown {
        let maskable = self.action.shows() && self.action != Action::Export;
        let verdict = world.ask(self.action.as_str(), field_uid(field), context);
        if verdict.is_allowed() {
            Shown::Shown
        } else if maskable
            && verdict.refused != Some(crate::denied::Reason::Failed)
            && world.ask("masked", field_uid(field), context).is_allowed()
        {
            Shown::Masked
        } else {
            Shown::Withheld
        }
    }
}

/// The rules that are not the same in two sets, both versions of each, and the actions that they
/// speak of.
fn difference(
    before: &PolicySet,
    after: &PolicySet,
) -> (Option<cedar_policy::PolicySet>, Option<BTreeSet<String>>) {
    if before.hash() == after.hash() {
        return (None, None);
    }
    let texts = |set: &PolicySet| -> BTreeMap<String, String> {
        let all = set.policies.policies();
        all.map(|policy| (policy.id().to_string(), policy.to_string()))
            .collect()
    };
    let (old, new) = (texts(before), texts(after));
    let mut changed = cedar_policy::PolicySet::new();
    let mut actions = Some(BTreeSet::new());
    for (side, set, other) in [("old", before, &new), ("new", after, &old)] {
        for policy in set.policies.policies() {
            let id = policy.id().to_string();
            if other.get(&id) == Some(&policy.to_string()) {
                continue;
            }
            let named = match policy.action_constraint() {
                ActionConstraint::Any => None,
                ActionConstraint::Eq(uid) => Some(vec![uid]),
                ActionConstraint::In(uids) => Some(uids),
            };
            match (named, &mut actions) {
                (Some(uids), Some(actions)) => {
                    actions.extend(uids.iter().map(|uid| uid.id().unescaped().to_owned()));
                }
                _ => actions = None,
            }
            let id = cedar_policy::PolicyId::new(format!("{side} {id}"));
            // Two of one name there are none.
            let _ = changed.add(policy.new_id(id));
        }
    }
    (Some(changed), actions)
}

/// The pairs of organization and division of a realm, by what rules can tell apart: levels along
/// the way up, and the names that a rule mentions.
fn classes(asked: &Asked<'_>, members: &[Member]) -> Vec<Class> {
    let escaped = asked.mentions("\\");
    let named = |division: &DivisionId| {
        let mentioned = escaped || asked.mentions(&format!("\"{division}\""));
        mentioned.then(|| division.clone())
    };
    let path_key = |member: &Member| {
        let mut path = vec![(member.level, named(&member.division))];
        path.extend(member.above.iter().map(|(d, level)| (*level, named(d))));
        path
    };
    let mut shapes: BTreeMap<_, Vec<&Member>> = BTreeMap::new();
    let mut organizations: BTreeMap<_, Vec<&Member>> = BTreeMap::new();
    for member in members {
        shapes.entry(path_key(member)).or_default().push(member);
        let own = (member.level, named(&member.division));
        organizations.entry(own).or_default().push(member);
    }
    let class = |stands, asker: (DivisionId, Level), of: &Member| Class {
        stands,
        asker,
        division: of.division.clone(),
        ancestors: of
            .above
            .iter()
            .map(|(division, _)| division.clone())
            .collect(),
        organizations: BTreeSet::new(),
        divisions: BTreeSet::new(),
    };
    let mut classes = Vec::new();
    for alike in shapes.values() {
        let Some(first) = alike.first() else { continue };
        let path = |member: &Member| {
            let mut path = vec![(member.division.clone(), member.level)];
            path.extend(member.above.iter().cloned());
            path
        };
        for (at, asker) in path(first).into_iter().enumerate() {
            let stands = if at == 0 {
                Stands::Own
            } else {
                Stands::Above(at)
            };
            let mut class = class(stands, asker, first);
            for member in alike {
                class.divisions.insert(member.division.clone());
                class
                    .organizations
                    .extend(path(member).get(at).map(|(d, _)| d.clone()));
            }
            classes.push(class);
        }
        for others in organizations.values() {
            let elsewhere = |member: &Member, other: &Member| {
                path(member).iter().all(|(d, _)| *d != other.division)
            };
            let pair = alike.iter().find_map(|member| {
                let other = others.iter().find(|other| elsewhere(member, other))?;
                Some((*member, *other))
            });
            let Some((member, other)) = pair else {
                continue;
            };
            let asker = (other.division.clone(), other.level);
            let mut class = class(Stands::Elsewhere, asker, member);
            class
                .divisions
                .extend(alike.iter().map(|m| m.division.clone()));
            class
                .organizations
                .extend(others.iter().map(|m| m.division.clone()));
            classes.push(class);
        }
    }
    classes
}

#[cfg(test)]
mod tests;
