//! Sets: one list a backup, of the objects that make a node as it was.
//!
//! A list is clear JSON, so that it can be checked without a key; it names no person and holds no
//! secret. Its last field is a hash over the rest. Refuses names that could lead out of a node's
//! directory.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The version of folder and list.
pub const FORMAT: u32 = 1;
/// The largest list.
pub(crate) const LIST_MAX: u64 = 64 * 1024 * 1024;
/// The most files of a node.
const FILES_MAX: usize = 1_000_000;

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose: realm and division.
    pub node: String,
    /// 1 for the first of a folder.
    pub number: u64,
    /// When it was begun, milliseconds since 1970-01-01 UTC.
    pub made_at: u64,
    /// Who can open it.
    pub recipients: Vec<String>,
    /// Entries, bodies and what is kept beside them.
    pub history: Vec<Item>,
    /// What opens records: keystore, key file, record secrets, operators' sealed keys.
    pub secrets: Vec<Item>,
    /// When the second part is destroyed, milliseconds.
    pub secrets_expire: u64,
    /// The ledgers that must be in it, at least so long.
    pub ledgers: Vec<LedgerHead>,
    /// SHA-256 over the list with this field empty, hexadecimal.
    pub check: String,
}

/// One file of a node, and the object that it is sealed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its name in the node's directory.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// Length of the object.
    pub sealed_bytes: u64,
    /// SHA-256 of the object, hexadecimal; it is named by it.
    pub sealed_sha256: String,
}

/// How far a ledger had come when the backup was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerHead {
    /// The ledger's name.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// Root over them, hexadecimal.
    pub root: String,
}

impl Set {
    fn hash(&self) -> String {
        let mut bare = self.clone();
        bare.check.clear();
        let bytes = serde_json::to_vec(&bare).unwrap_or_default();
        data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
    }

    /// The bytes of the list, with its hash.
    pub(crate) fn encode(mut self) -> Vec<u8> {
        self.check = self.hash();
        serde_json::to_vec_pretty(&self).unwrap_or_default()
    }

    /// Reads a list.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let set: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if set.format != FORMAT {
            return Err(format!(
                "its format is {}, this program reads {FORMAT}",
                set.format
            ));
        }
        if set.check != set.hash() {
            return Err("its hash is not that of its content".into());
        }
        let items = set.history.iter().chain(&set.secrets);
        if set.history.len() + set.secrets.len() > FILES_MAX {
            return Err("it names too many files".into());
        }
        match items
            .clone()
            .find(|item| !is_ours(&item.path) || !is_hash(&item.sealed_sha256))
        {
            None => Ok(set),
            Some(_) => Err("it names a file that no node has".into()),
        }
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a name is one of a node's files: nothing else is ever written by restoring.
pub(crate) fn is_ours(path: &str) -> bool {
    let plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    match path.split_once('/') {
        None => [
            "node.json",
            "keystore",
            "keystore.next",
            "kek",
            "transport",
            "backup.json",
        ]
        .contains(&path),
        Some((folder, name)) => {
            ["segments", "secrets", "operators"].contains(&folder) && plain(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Set {
        Set {
            format: FORMAT,
            node: "jiangjin.example/jinfu".into(),
            number: 3,
            made_at: 5,
            recipients: vec!["age1x".into()],
            history: vec![Item {
                path: "segments/00000001.seg".into(),
                bytes: 10,
                sha256: "ab".repeat(32),
                sealed_bytes: 20,
                sealed_sha256: "cd".repeat(32),
            }],
            secrets: vec![],
            secrets_expire: 9,
            ledgers: vec![],
            check: String::new(),
        }
    }

    #[test]
    fn a_list_cut_anywhere_or_changed_in_any_byte_is_refused() {
        let bytes = set().encode();
        assert!(Set::decode(&bytes).is_ok());
        for end in 0..bytes.len() {
            assert!(Set::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let same = Set::decode(&changed).is_ok_and(|read| read != Set::decode(&bytes).unwrap());
            assert!(!same, "byte {at}");
        }
    }

    #[test]
    fn a_name_that_leads_out_of_the_directory_is_refused() {
        for name in [
            "../x",
            "segments/../../x",
            "/etc/passwd",
            "segments/a/b",
            "run.json",
            "secrets/.x",
            "",
        ] {
            assert!(!is_ours(name), "{name}");
        }
        for name in [
            "segments/00000001.seg",
            "segments/00000001.kept",
            "secrets/00000001.page",
            "kek",
            "operators/anquan.json",
        ] {
            assert!(is_ours(name), "{name}");
        }
    }
}
