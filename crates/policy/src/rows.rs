//! Which records: a condition on grid, status and division, cheap enough for every row.
//!
//! Owns the condition and its evaluation. Refuses what it does not understand:
//! the compiler in `residual` turns an unknown shape into [`RowRule::Nothing`].

/// The attributes of a row that rules may compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowAttribute {
    /// The grid; empty without one.
    Grid,
    /// The status code.
    Status,
    /// The division that owns the record.
    Division,
}

/// One row, as far as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowAttributes<'a> {
    /// The grid; `None` counts as the empty text.
    pub grid: Option<&'a str>,
    /// The status code.
    pub status: &'a str,
    /// The division that owns the record.
    pub division: &'a str,
}

impl RowAttributes<'_> {
    fn get(&self, attribute: RowAttribute) -> &str {
        match attribute {
            RowAttribute::Grid => self.grid.unwrap_or_default(),
            RowAttribute::Status => self.status,
            RowAttribute::Division => self.division,
        }
    }
}

/// A condition on rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowRule {
    /// Every row.
    All,
    /// No row.
    Nothing,
    /// The attribute has this value.
    Equals(RowAttribute, String),
    /// Not this.
    Not(Box<RowRule>),
    /// All of these.
    AllOf(Vec<RowRule>),
    /// At least one of these.
    AnyOf(Vec<RowRule>),
}

impl RowRule {
    /// Whether the row is in scope.
    pub fn matches(&self, row: &RowAttributes<'_>) -> bool {
        match self {
            RowRule::All => true,
            RowRule::Nothing => false,
            RowRule::Equals(attribute, value) => row.get(*attribute) == value,
            RowRule::Not(rule) => !rule.matches(row),
            RowRule::AllOf(rules) => rules.iter().all(|rule| rule.matches(row)),
            RowRule::AnyOf(rules) => rules.iter().any(|rule| rule.matches(row)),
        }
    }

    pub(crate) fn all_of(rules: Vec<RowRule>) -> RowRule {
        if rules.contains(&RowRule::Nothing) {
            return RowRule::Nothing;
        }
        let mut open: Vec<RowRule> = rules.into_iter().filter(|r| *r != RowRule::All).collect();
        match open.len() {
            0 => RowRule::All,
            1 => open.swap_remove(0),
            _ => RowRule::AllOf(open),
        }
    }

    pub(crate) fn any_of(rules: Vec<RowRule>) -> RowRule {
        if rules.contains(&RowRule::All) {
            return RowRule::All;
        }
        let mut open: Vec<RowRule> = rules
            .into_iter()
            .filter(|r| *r != RowRule::Nothing)
            .collect();
        match open.len() {
            0 => RowRule::Nothing,
            1 => open.swap_remove(0),
            _ => RowRule::AnyOf(open),
        }
    }

    pub(crate) fn negated(self) -> RowRule {
        match self {
            RowRule::All => RowRule::Nothing,
            RowRule::Nothing => RowRule::All,
            other => RowRule::Not(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: RowAttributes<'static> = RowAttributes {
        grid: Some("g1"),
        status: "active",
        division: "jinfu",
    };

    fn grid(value: &str) -> RowRule {
        RowRule::Equals(RowAttribute::Grid, value.to_owned())
    }

    #[test]
    fn a_rule_matches_exactly_its_rows() {
        assert!(grid("g1").matches(&ROW));
        assert!(!grid("g2").matches(&ROW));
        assert!(!RowRule::Nothing.matches(&ROW));
        assert!(RowRule::Not(Box::new(grid("g2"))).matches(&ROW));
        assert!(!RowRule::AllOf(vec![grid("g1"), grid("g2")]).matches(&ROW));
        assert!(RowRule::AnyOf(vec![grid("g1"), grid("g2")]).matches(&ROW));
    }

    #[test]
    fn a_row_without_a_grid_is_in_no_grid() {
        let row = RowAttributes { grid: None, ..ROW };
        assert!(!grid("g1").matches(&row));
    }

    #[test]
    fn an_empty_disjunction_is_nothing() {
        assert_eq!(RowRule::any_of(vec![]), RowRule::Nothing);
        assert_eq!(
            RowRule::all_of(vec![RowRule::Nothing, grid("g1")]),
            RowRule::Nothing
        );
    }
}
