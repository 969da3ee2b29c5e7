//! Auditing (审计): what outsiders check, and what an auditor asks of a directory.
//!
//! Owns exports, proofs, comparisons, histories, disclosures and the findings over a whole realm.
//! All but disclosing and the list of changed fields work on a directory's segment files alone,
//! whether its node runs or not, with public keys alone, and open no cell.
//! Refuses to give away what does not verify: whatever is made here is checked before it leaves.
//!
//! In reading order: [`view`] (a directory as an auditor sees it), [`site`], [`prove`], [`check`],
//! [`diff`], [`missing`] (what a later export lacks), [`history`], [`disclosure`] (the file), [`disclose`] (making one),
//! [`changes`], [`realm`] (all findings), [`page`] (the same for people).

pub mod view;

pub mod site;

pub mod prove;

pub mod check;

pub mod diff;

pub mod missing;

pub mod history;

pub mod disclosure;

pub mod disclose;

pub mod changes;

pub mod realm;

pub mod page;

/// Hexadecimal, as every audit document spells hashes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// An error with its causes, on one line.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
