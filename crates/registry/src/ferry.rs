//! Ferry (摆渡): replication by file between this node and its parent or a child, across an air gap.
//!
//! Owns the rows `LOCAL/ferry`: per neighbour, how far the bundles each way came; per bundle packed,
//! how far each ledger was in it, until it is old. What comes in goes through a `sync::Session` and
//! [`Registry::keep`], as if it came over a line: a file brings nothing that a line would not.
//!
//! Read in this order: here (what is remembered, what is refused), [`files`] (the files themselves),
//! [`pack`], [`open`], `unload`, [`admit`] (how a node without a line joins).

use std::collections::BTreeMap;

use ledger::hash::Hash;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use record::authority::Charter;
use record::cbor;
use record::id::{DivisionId, Origin, UnixMillis};
use serde::Serialize;
use store::Batch;

use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::table::{self, LOCAL};

pub mod admit;
pub mod files;
pub mod open;
pub mod pack;
mod unload;

/// How many bundles each way are remembered.
const REMEMBERED: usize = 64;

/// Why a file was not taken in, or not made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A file could not be read.
    #[error("文件 `{path}` 读不了 / file `{path}` cannot be read: {what}")]
    File {
        /// Its name.
        path: String,
        /// In words.
        what: String,
    },
    /// Not a bundle's file.
    #[error("`{path}`：{source}")]
    Head {
        /// The file.
        path: String,
        /// Why.
        source: ferry::HeadError,
    },
    /// A manifest that does not hold.
    #[error("`{path}`：{source}")]
    Manifest {
        /// The file.
        path: String,
        /// Why.
        source: ferry::ManifestError,
    },
    /// Files of two bundles.
    #[error(
        "`{path}` 属于另一包 / `{path}` belongs to another bundle; give the files of one bundle at a time"
    )]
    Mixed {
        /// The file.
        path: String,
    },
    /// Parts that were not given.
    #[error("缺第 {missing} 盘（共 {of} 盘）{} / part {missing} of {of} is missing{}; give it with the next `fangzhi ferry open`", if *.kept { "，已收下其余" } else { "" }, if *.kept { ", the others are kept" } else { "" })]
    MissingPart {
        /// Their numbers.
        missing: String,
        /// How many there are.
        of: usize,
        /// Whether what was given is kept here.
        kept: bool,
    },
    /// A part that is longer or shorter than declared.
    #[error(
        "第 {part} 盘应有 {declared} 字节，实有 {found} / part {part} declares {declared} bytes and has {found}; it was cut or added to: copy it again"
    )]
    PartLength {
        /// Which.
        part: u32,
        /// Bytes declared.
        declared: u64,
        /// Bytes there.
        found: u64,
    },
    /// A part whose bytes are others.
    #[error(
        "第 {part} 盘内容被改动 / part {part} was altered: its SHA-256 is not the one in the manifest; copy it again"
    )]
    PartAltered {
        /// Which.
        part: u32,
    },
    /// For somebody else.
    #[error(
        "此包给 `{to}`，本节点是 `{own}` / the bundle is for `{to}`, this node is `{own}`; carry it there"
    )]
    WrongReceiver {
        /// Its receiver.
        to: DivisionId,
        /// Who this is.
        own: DivisionId,
    },
    /// For this division under another charter.
    #[error(
        "此包封给本节点的另一份证书 / the bundle is sealed to another charter of this node, whose keys are gone; let the sender pack again with `--since`"
    )]
    OtherCharter,
    /// The sender's charter does not hold, or it is no neighbour.
    #[error("发送方 `{from}` 不被接受：{reason}")]
    Sender {
        /// Who it says it is.
        from: DivisionId,
        /// Why, Chinese and English.
        reason: String,
    },
    /// An earlier bundle was not opened.
    #[error(
        "缺第 {missing} 包：本包续自第 {after} 包 / bundle {missing} from `{from}` is missing: this one goes on from {after}; open it first, or let the sender run `fangzhi ferry pack --since {opened}`"
    )]
    Gap {
        /// Who sends.
        from: DivisionId,
        /// Which are missing.
        missing: String,
        /// What this one goes on from.
        after: u64,
        /// What was opened last.
        opened: u64,
    },
    /// Another bundle of a number that was opened, or that goes on from one that was not.
    #[error(
        "第 {number} 包与已开过的不同 / bundle {number} from `{from}` is not the one that was opened here: the sender was restored from an old copy; carry it a receipt of this node, then let it pack again"
    )]
    OtherHistory {
        /// Who sends.
        from: DivisionId,
        /// Which.
        number: u64,
    },
    /// The payload does not open.
    #[error(transparent)]
    Payload(#[from] ferry::PayloadError),
    /// The payload is not what the manifest says.
    #[error(transparent)]
    Contents(#[from] ferry::ContentError),
    /// The payload key does not open.
    #[error("载荷密钥打不开 / {0}")]
    Key(seal::ferry::FerryError),
    /// A node that asks to join was not admitted, or its admission is not for it.
    #[error(transparent)]
    NotAdmitted(#[from] admit::NotAdmitted),
    /// There is nothing to carry.
    #[error(
        "自第 {after} 包以来没有新内容 / nothing is new since bundle {after}; `--since` packs again what was packed before"
    )]
    NothingNew {
        /// The bundle packed last.
        after: u64,
    },
}

impl Refused {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "ferry-file",
            Self::Head { .. } => "ferry-not-a-bundle",
            Self::Manifest { .. } => "ferry-manifest",
            Self::Mixed { .. } => "ferry-mixed",
            Self::MissingPart { .. } => "ferry-missing-part",
            Self::PartLength { .. } => "ferry-cut",
            Self::PartAltered { .. } => "ferry-altered",
            Self::WrongReceiver { .. } | Self::OtherCharter => "ferry-wrong-receiver",
            Self::Sender { .. } => "ferry-sender",
            Self::Gap { .. } => "ferry-gap",
            Self::OtherHistory { .. } => "ferry-other-history",
            Self::Payload(_) | Self::Contents(_) | Self::Key(_) => "ferry-payload",
            Self::NotAdmitted(why) => why.code(),
            Self::NothingNew { .. } => "ferry-nothing-new",
        }
    }
}

/// A bundle that was opened here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Opened {
    #[n(0)]
    number: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    manifest: Hash,
    #[n(2)]
    at: UnixMillis,
}

/// What is remembered of one neighbour.
#[derive(Debug, Clone, Default, Encode, Decode)]
#[cbor(map)]
struct Course {
    /// Number of the bundle packed last for it.
    #[n(0)]
    packed: u64,
    #[n(1)]
    packed_at: Option<UnixMillis>,
    /// The newest of these that it acknowledged.
    #[n(2)]
    acknowledged: u64,
    #[n(3)]
    acknowledged_at: Option<UnixMillis>,
    /// Whether the last was packed for a boundary that nothing comes back across.
    #[n(4)]
    one_way: bool,
    /// Ledgers that it did not take, and how much of them it has.
    #[n(5)]
    again: BTreeMap<Origin, u64>,
    /// What was opened of it, the newest last, at most [`REMEMBERED`].
    #[n(6)]
    opened: Vec<Opened>,
    /// Ledgers that it brought, and the largest head of each.
    #[n(7)]
    brought: BTreeMap<Origin, u64>,
    /// Those that were not taken here: the rejection, as a message for it.
    #[n(8)]
    rejected: BTreeMap<Origin, ByteVec>,
}

impl Course {
    fn opened_last(&self) -> u64 {
        self.opened.last().map_or(0, |opened| opened.number)
    }

    fn is_unknown(&self) -> bool {
        self.packed > self.acknowledged
    }
}

/// A bundle that was packed here.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
struct Packed {
    #[n(0)]
    after: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    manifest: Hash,
    #[n(2)]
    made: UnixMillis,
    /// Whether its files were written to their end.
    #[n(3)]
    ready: bool,
    #[n(4)]
    one_way: bool,
    /// How far each ledger is for whoever opened it: size, and the beginning of its note's SHA-256.
    #[n(5)]
    ledgers: BTreeMap<Origin, Reached>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Reached {
    #[n(0)]
    size: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    note: [u8; 8],
}

/// What is known of a neighbour that files are carried to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FerryState {
    /// Everything packed was acknowledged.
    Acknowledged,
    /// Something was packed and no receipt of it came.
    Unknown,
}

/// How far the bundles between this node and a neighbour came.
#[derive(Debug, Clone, Serialize)]
pub struct FerryLine {
    /// What is known of what it holds.
    pub state: FerryState,
    /// Number of the bundle packed last for it; 0 for none.
    pub packed: u64,
    /// When.
    pub packed_at: Option<UnixMillis>,
    /// The newest of these that it acknowledged; 0 for none.
    pub acknowledged: u64,
    /// When that was learned.
    pub acknowledged_at: Option<UnixMillis>,
    /// Number of the bundle of its that was opened last here; 0 for none.
    pub opened: u64,
    /// When.
    pub opened_at: Option<UnixMillis>,
    /// Whether no receipt is expected.
    pub one_way: bool,
    /// Ledgers that it brought and that were not taken here.
    pub rejected: Vec<Origin>,
}

/// The same with the neighbour's name.
#[derive(Debug, Clone, Serialize)]
pub struct FerryPeer {
    /// Its division.
    pub peer: DivisionId,
    /// How far it came.
    #[serde(flatten)]
    pub line: FerryLine,
    /// The bundles packed for it that are remembered.
    pub bundles: Vec<BundleLine>,
}

/// One bundle that was packed here.
#[derive(Debug, Clone, Serialize)]
pub struct BundleLine {
    /// Its number.
    pub number: u64,
    /// What it goes on from.
    pub after: u64,
    /// SHA-256 of its manifest, hexadecimal.
    pub manifest: String,
    /// When it was packed.
    pub made: UnixMillis,
    /// Whether its files were written to their end.
    pub ready: bool,
    /// Whether no receipt is expected.
    pub one_way: bool,
}

fn course_row(peer: &DivisionId) -> Vec<u8> {
    [b"course\0", peer.as_str().as_bytes()].concat()
}

fn packed_row(peer: &DivisionId, number: u64) -> Vec<u8> {
    let peer = peer.as_str().as_bytes();
    [b"packed\0", peer, &[0], &number.to_be_bytes()].concat()
}

impl Registry {
    fn course(&self, peer: &DivisionId) -> Result<Course> {
        match self
            .store
            .get(&table::local(table::FERRY, &course_row(peer)))?
        {
            Some(bytes) => table::decode("course of a ferry", &bytes),
            None => Ok(Course::default()),
        }
    }

    fn packed(&self, peer: &DivisionId, number: u64) -> Result<Option<Packed>> {
        let key = table::local(table::FERRY, &packed_row(peer, number));
        let row = self.store.get(&key)?;
        row.map(|bytes| table::decode("bundle that was packed", &bytes))
            .transpose()
    }

    fn keep_course(
        &self,
        peer: &DivisionId,
        course: &Course,
        packed: Option<(u64, &Packed)>,
    ) -> Result<()> {
        let mut batch = Batch::new(LOCAL, None);
        batch.put(
            table::local(table::FERRY, &course_row(peer)),
            cbor::to_vec(course),
        );
        if let Some((number, packed)) = packed {
            batch.put(
                table::local(table::FERRY, &packed_row(peer, number)),
                cbor::to_vec(packed),
            );
            if let Some(old) = number.checked_sub(REMEMBERED as u64) {
                batch.delete(table::local(table::FERRY, &packed_row(peer, old)));
            }
        }
        self.store
            .commit(&batch)
            .map_err(|e| RegistryError::Store(e.to_string()))?;
        Ok(())
    }

    /// The charter of the parent or of a child, to whom something may be carried.
    fn neighbour(&self, division: &DivisionId) -> Result<Charter> {
        let own = &self.config.division;
        let authority = self.authority();
        let known = authority.charter(division).cloned();
        let charter = match known {
            Some(charter) => Some(charter),
            None => self.chain()?.into_iter().find(|c| c.division == *division),
        };
        let charter = charter.ok_or_else(|| RegistryError::NoCharter(division.clone()))?;
        let parent = self.config.parent.as_ref().map(|p| &p.division);
        let related = charter.parent == *own || parent == Some(division);
        if division == own || !related {
            return Err(RegistryError::BadRequest(format!(
                "`{division}` 既非上级也非下级 / `{division}` is neither parent nor child of this node; a ferry goes to one of these"
            )));
        }
        if authority.revoked(&charter.id()) {
            return Err(RegistryError::BadRequest(format!(
                "`{division}` 的证书已吊销 / the charter of `{division}` was revoked; nothing is carried to it"
            )));
        }
        Ok(charter)
    }

    /// How far the bundles between this node and a neighbour came, if there were any.
    pub(crate) fn ferry_line(&self, peer: &DivisionId) -> Result<Option<FerryLine>> {
        let course = self.course(peer)?;
        if course.packed == 0 && course.opened.is_empty() {
            return Ok(None);
        }
        let state = match course.is_unknown() {
            true => FerryState::Unknown,
            false => FerryState::Acknowledged,
        };
        Ok(Some(FerryLine {
            state,
            packed: course.packed,
            packed_at: course.packed_at,
            acknowledged: course.acknowledged,
            acknowledged_at: course.acknowledged_at,
            opened: course.opened_last(),
            opened_at: course.opened.last().map(|opened| opened.at),
            one_way: course.one_way,
            rejected: course.rejected.keys().cloned().collect(),
        }))
    }

    /// Every neighbour that files were carried to or from.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn ferries(&self) -> Result<Vec<FerryPeer>> {
        let prefix = b"course\0";
        let mut found = Vec::new();
        for (key, _) in self.store.scan(LOCAL, table::FERRY, prefix, 10_000)? {
            let Some(name) = key.strip_prefix(prefix) else {
                break;
            };
            let peer = str::from_utf8(name).ok();
            let Some(peer) = peer.and_then(|name| DivisionId::new(name).ok()) else {
                continue;
            };
            let Some(line) = self.ferry_line(&peer)? else {
                continue;
            };
            let mut bundles = Vec::new();
            let first = line.packed.saturating_sub(REMEMBERED as u64) + 1;
            for number in first..=line.packed {
                if let Some(packed) = self.packed(&peer, number)? {
                    bundles.push(BundleLine {
                        number,
                        after: packed.after,
                        manifest: data_encoding::HEXLOWER.encode(&packed.manifest),
                        made: packed.made,
                        ready: packed.ready,
                        one_way: packed.one_way,
                    });
                }
            }
            found.push(FerryPeer {
                peer,
                line,
                bundles,
            });
        }
        Ok(found)
    }
}
