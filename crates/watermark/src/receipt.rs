//! The word that a reading's access entry is committed.
//!
//! Owns what an answer says about its entry. It refuses nothing: a receipt is as true
//! as the one place that makes it.

use record::id::{Hash, Origin, UnixMillis};
use serde::{Serialize, Serializer};

/// Proof, inside this process, that the access entry of a reading is durable.
///
/// Neither cloned nor read from bytes: it lives from the commit to the answer.
#[derive(Debug)]
pub struct Receipt {
    line: ReceiptLine,
}

/// What an answer says about its access entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptLine {
    origin: Origin,
    index: u64,
    #[serde(serialize_with = "hex")]
    leaf: Hash,
    at: UnixMillis,
}

impl Receipt {
    /// States that the entry with this leaf hash is committed at `index` of `origin`.
    ///
    /// To be called in one place only: the registry's commit of access entries, after
    /// `store.commit` returned `Ok`. Elsewhere it would be a lie that the compiler
    /// cannot see, so `grep -rn 'Receipt::committed'` must show that place and tests.
    pub fn committed(origin: Origin, index: u64, leaf: Hash, at: UnixMillis) -> Receipt {
        Receipt {
            line: ReceiptLine {
                origin,
                index,
                leaf,
                at,
            },
        }
    }

    /// What an answer says about the entry.
    pub fn line(&self) -> &ReceiptLine {
        &self.line
    }
}

impl ReceiptLine {
    /// The access ledger.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The entry's index in it.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The entry's RFC 6962 leaf hash.
    pub fn leaf(&self) -> &Hash {
        &self.leaf
    }

    /// When the entry was committed, by the node's clock.
    pub fn at(&self) -> UnixMillis {
        self.at
    }
}

fn hex<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&data_encoding::HEXLOWER.encode(hash))
}
