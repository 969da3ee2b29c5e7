//! Asking Cedar: entities and requests in, one verdict out.
//!
//! Owns how our words become Cedar's. Refuses to allow anything while any rule
//! fails: Cedar skips a failing rule, so a failing `forbid` would otherwise allow.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request,
    RestrictedExpression,
};
use record::authority::Level;
use record::id::{DivisionId, Kind, Purpose};
use record::schema::{Field, Sensitivity};

use crate::denied::{DEFAULT_RULE, Denied, Reason};
use crate::question::Asker;
use crate::set::PolicySet;

/// More divisions than this above one another are a mistake or an attack.
const ANCESTORS_MAX: usize = 8;

/// What Cedar says to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The rule that allowed or denied.
    pub(crate) rule: String,
    /// Why not; allowed when absent.
    pub(crate) refused: Option<Reason>,
}

impl Verdict {
    pub(crate) fn is_allowed(&self) -> bool {
        self.refused.is_none()
    }

    pub(crate) fn denied(reason: Reason) -> Self {
        Verdict {
            rule: DEFAULT_RULE.to_owned(),
            refused: Some(reason),
        }
    }

    /// The verdict as an error, unless it allows.
    pub(crate) fn allowed(self, set: &PolicySet) -> Result<String, Denied> {
        match self.refused {
            None => Ok(self.rule),
            Some(reason) => Err(Denied {
                ask: set.ask(&self.rule).to_owned(),
                rule: self.rule,
                reason,
                field: None,
            }),
        }
    }
}

/// The entity of an id; `kind` is a type name of our own schema.
pub(crate) fn uid(kind: &str, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(type_name(kind), EntityId::new(id))
}

pub(crate) fn type_name(kind: &str) -> EntityTypeName {
    kind.parse()
        .expect("the type names in this crate are identifiers")
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn entity_ref(kind: &str, id: &str) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid(kind, id))
}

fn failed<E>(_: E) -> Denied {
    Denied::by_default(Reason::Failed)
}

/// The asker, the divisions and the fields of one question, as Cedar sees them.
pub(crate) struct World<'a> {
    pub(crate) set: &'a PolicySet,
    pub(crate) entities: Entities,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        set: &'a PolicySet,
        asker: &Asker,
        division: &DivisionId,
        ancestors: &[DivisionId],
        kind: Option<&Kind>,
        fields: &[Field],
    ) -> Result<Self, Denied> {
        let mut entities = divisions(&asker.organization, division, ancestors)?;
        entities.push(operator(asker)?);
        if let Some(kind) = kind {
            for field in fields {
                entities.push(field_entity(kind, field, division)?);
            }
        }
        let entities = Entities::from_entities(entities, Some(&set.schema)).map_err(failed)?;
        Ok(World { set, entities })
    }

    /// One verdict; anything out of order is a denial.
    pub(crate) fn ask(&self, action: &str, resource: EntityUid, context: &Context) -> Verdict {
        let request = Request::new(
            principal(),
            uid("Action", action),
            resource,
            context.clone(),
            Some(&self.set.schema),
        );
        let Ok(request) = request else {
            return Verdict::denied(Reason::Failed);
        };
        let response =
            Authorizer::new().is_authorized(&request, &self.set.policies, &self.entities);
        let diagnostics = response.diagnostics();
        if let Some(cedar_policy::AuthorizationError::PolicyEvaluationError(error)) =
            diagnostics.errors().next()
        {
            return Verdict {
                rule: error.policy_id().to_string(),
                refused: Some(Reason::Failed),
            };
        }
        let rules: BTreeSet<String> = diagnostics.reason().map(ToString::to_string).collect();
        let allowed = response.decision() == cedar_policy::Decision::Allow;
        match rules.into_iter().next() {
            Some(rule) => Verdict {
                rule,
                refused: (!allowed).then_some(Reason::Forbidden),
            },
            None => Verdict::denied(Reason::NothingPermits),
        }
    }
}

impl World<'_> {
    /// Whether any of these rules has a say in one request; one that fails has.
    pub(crate) fn touched(
        &self,
        rules: &cedar_policy::PolicySet,
        action: &str,
        resource: EntityUid,
        context: &Context,
    ) -> bool {
        let request = Request::new(
            principal(),
            uid("Action", action),
            resource,
            context.clone(),
            Some(&self.set.schema),
        );
        let Ok(request) = request else { return true };
        let response = Authorizer::new().is_authorized(&request, rules, &self.entities);
        let diagnostics = response.diagnostics();
        diagnostics.reason().next().is_some() || diagnostics.errors().next().is_some()
    }
}

/// Every asker is the same entity, so that no rule can name a single operator and
/// a remembered decision holds for all of one organization and role.
pub(crate) fn principal() -> EntityUid {
    uid("Operator", "asker")
}

fn divisions(
    organization: &DivisionId,
    division: &DivisionId,
    ancestors: &[DivisionId],
) -> Result<Vec<Entity>, Denied> {
    let chain: Vec<&DivisionId> = std::iter::once(division).chain(ancestors).collect();
    let distinct: BTreeSet<&DivisionId> = chain.iter().copied().collect();
    if distinct.len() != chain.len() || ancestors.len() > ANCESTORS_MAX {
        return Err(Denied::by_default(Reason::Failed));
    }
    let of = |id: &DivisionId, parent: Option<&DivisionId>| {
        let parents: HashSet<EntityUid> = parent
            .iter()
            .map(|parent| uid("Division", parent.as_str()))
            .collect();
        Entity::new_no_attrs(uid("Division", id.as_str()), parents)
    };
    let mut entities: Vec<Entity> = chain
        .iter()
        .enumerate()
        .map(|(at, id)| of(id, chain.get(at + 1).copied()))
        .collect();
    if !distinct.contains(organization) {
        entities.push(of(organization, None));
    }
    Ok(entities)
}

fn operator(asker: &Asker) -> Result<Entity, Denied> {
    let attributes = [
        (
            "organization",
            entity_ref("Division", asker.organization.as_str()),
        ),
        ("level", entity_ref("Level", asker.level.as_str())),
        ("role", entity_ref("Role", asker.role.as_str())),
        ("grid", text(asker.grid.as_deref().unwrap_or_default())),
    ];
    entity(principal(), attributes, HashSet::new())
}

/// The field's entity in the question at hand.
pub(crate) fn field_uid(field: &Field) -> EntityUid {
    uid("Field", &field.position.to_string())
}

fn field_entity(kind: &Kind, field: &Field, division: &DivisionId) -> Result<Entity, Denied> {
    let field_type = serde_json::to_value(field.field_type).map_err(failed)?;
    let attributes = [
        ("kind", text(kind.as_str())),
        ("id", text(&field.id)),
        ("fieldType", text(field_type.as_str().unwrap_or_default())),
        ("group", text(field.group.as_str())),
        (
            "sensitivity",
            RestrictedExpression::new_long(level_of(field.sensitivity)),
        ),
        ("division", entity_ref("Division", division.as_str())),
    ];
    let parents = HashSet::from([uid("Division", division.as_str())]);
    entity(field_uid(field), attributes, parents)
}

fn entity<const N: usize>(
    uid: EntityUid,
    attributes: [(&str, RestrictedExpression); N],
    parents: HashSet<EntityUid>,
) -> Result<Entity, Denied> {
    let attributes: HashMap<String, RestrictedExpression> = attributes
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Entity::new(uid, attributes, parents).map_err(failed)
}

fn level_of(sensitivity: Sensitivity) -> i64 {
    match sensitivity {
        Sensitivity::P0 => 0,
        Sensitivity::P1 => 1,
        Sensitivity::P2 => 2,
        Sensitivity::P3 => 3,
        Sensitivity::P4 => 4,
    }
}

/// What a request says beside asker, action and resource.
pub(crate) enum Circumstances<'a> {
    Use { held_by_grant: Option<&'a Purpose> },
    Sharing { holder: Level, assessed: bool },
    Duty { own_request: bool },
}

/// The context of a request.
///
/// # Errors
/// A purpose that is not listed.
pub(crate) fn context(
    set: &PolicySet,
    purpose: &Purpose,
    circumstances: &Circumstances<'_>,
) -> Result<Context, Denied> {
    let Some(listed) = set.purpose(purpose) else {
        return Err(Denied::by_default(Reason::UnknownPurpose));
    };
    let truth = RestrictedExpression::new_bool;
    let mut pairs = BTreeMap::from([
        ("purpose", entity_ref("Purpose", purpose.as_str())),
        ("basis", text(&listed.basis)),
    ]);
    match circumstances {
        Circumstances::Use { held_by_grant } => {
            let granted_for = held_by_grant.unwrap_or(purpose);
            pairs.insert("granted", truth(held_by_grant.is_some()));
            pairs.insert("grantPurpose", entity_ref("Purpose", granted_for.as_str()));
        }
        Circumstances::Sharing { holder, assessed } => {
            pairs.insert("holderLevel", entity_ref("Level", holder.as_str()));
            pairs.insert("assessed", truth(*assessed));
        }
        Circumstances::Duty { own_request } => {
            pairs.insert("ownRequest", truth(*own_request));
        }
    }
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Context::from_pairs(pairs).map_err(failed)
}
