//! Who may see what: Cedar policies, decided once per organization, role, purpose and division.
//!
//! Owns the decision which fields and rows of whose records an operator may read,
//! change or share, and the mask of a value. Refuses to decide without a listed
//! purpose; a rule that fails while it is evaluated denies. Nothing here reads a record.
//!
//! Read in this order: [`question`] (what is asked), [`set`] (the rules),
//! [`published`] (rules from the realm's root),
//! [`decision`] (fields), [`permit`] (leave for one use case), [`rows`] (which records), [`duty`]
//! (what is allowed or not as a whole), [`exposure`] and [`census`] (what a change
//! newly shows, and to whom), [`mod@mask`], [`denied`]. Inside, `engine` asks Cedar and `residual`
//! turns what Cedar leaves open about a row into a [`RowRule`].
//!
//! ```
//! use policy::{Action, Asker, PolicySet, Question, decide};
//! use record::authority::{Level, Role};
//! use record::id::{DivisionId, OperatorId, Purpose};
//!
//! let schema: record::schema::Schema = serde_json::from_str(r#"{
//!     "kind": "person", "version": 1, "name": "人口", "english": "person",
//!     "fields": [{ "position": 4, "id": "name", "name": "姓名", "english": "name",
//!         "type": "text", "width": 60, "group": "identity", "sensitivity": "P2",
//!         "purpose": "registration" }]
//! }"#)?;
//! let community = DivisionId::new("jinfu")?;
//! let clerk = Asker {
//!     operator: OperatorId([1; 16]),
//!     role: Role::Clerk,
//!     organization: community.clone(),
//!     level: Level::Community,
//!     grid: None,
//! };
//! let question = Question {
//!     asker: &clerk,
//!     action: Action::Read,
//!     schema: &schema,
//!     division: &community,
//!     ancestors: &[],
//!     held_by_grant: None,
//!     purpose: &Purpose::new("registration")?,
//! };
//! let decision = decide(PolicySet::builtin()?, &question)?;
//! let permit = decision.permit(&[4].into(), &[])?;
//! assert!(permit.shown().contains_key(&4));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod question;
pub mod set;

pub mod census;
pub mod decision;
pub mod duty;
mod engine;
pub mod exposure;
pub mod permit;
pub mod published;
mod residual;
pub mod rows;

pub mod denied;
pub mod mask;

pub use decision::{Decision, Shown, decide};
pub use denied::{Denied, PolicyError, Reason};
pub use duty::{Allowed, Target, may};
pub use mask::mask;
pub use permit::{Permit, Refusal};
pub use question::{Action, Asker, Question};
pub use rows::{RowAttribute, RowAttributes, RowRule};
pub use set::{PolicySet, PurposeCode};
