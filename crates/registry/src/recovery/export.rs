//! The file with which a lost station is rebuilt: what the parent holds of its recovery ledger.
//!
//! Everything in it is public or sealed: it opens nothing without the officers' shares, so it may
//! be carried on a stick or fetched over HTTP with an officer's login. Refuses to make one when the
//! parent holds no recovery: then the station had no shares, and only its ciphertext is left.

use std::collections::BTreeMap;

use record::entry::{Entry, RecoveryPart};
use record::id::{DivisionId, Hash, Origin, Realm};
use serde::{Deserialize, Serialize};

use super::RecoveryEntry;
use crate::config::ParentAddress;
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::node::{Registry, word};
use crate::session::Session;
use crate::table::Head;

/// The version of the file.
pub const FORMAT: u32 = 1;
/// The largest file: the secrets of four million records.
pub const FILE_MAX: u64 = 512 * 1024 * 1024;

/// What a parent gives to rebuild a node under it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryFile {
    /// [`FORMAT`].
    pub format: u32,
    /// The realm.
    pub realm: Realm,
    /// The lost node's division.
    pub division: DivisionId,
    /// The realm root's `sign` key, hexadecimal.
    pub root: String,
    /// The charter chain of the lost node, own first, each hexadecimal CBOR.
    pub chain: Vec<String>,
    /// Where and who the parent is.
    pub parent: ParentAddress,
    /// The header of the shares, base64.
    pub header: String,
    /// Index of the newest bundle in the recovery ledger.
    pub index: u64,
    /// The bundle, sealed, base64.
    pub bundle: String,
    /// The chunks of record secrets, by page and offset.
    pub chunks: Vec<ChunkLine>,
    /// What the parent holds of each of the node's ledgers.
    pub heads: Vec<HeadLine>,
}

/// One chunk of a page of record secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkLine {
    /// The page.
    pub page: u32,
    /// Where in the page it begins.
    pub offset: u64,
    /// The sealed chunk, base64.
    pub chunk: String,
}

/// The end of one ledger as the parent holds and cosigned it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadLine {
    /// Which ledger.
    pub origin: Origin,
    /// Entries.
    pub size: u64,
    /// Root over them, hexadecimal.
    pub root: String,
}

impl Registry {
    /// What this node holds to rebuild a node under it, reached by it at `address`.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::NoCharter`], [`RegistryError::NotFound`] when
    /// the node's root was never shared.
    pub fn export_recovery(
        &self,
        session: &Session,
        division: &DivisionId,
        address: String,
    ) -> Result<RecoveryFile> {
        self.may_recover(session)?;
        self.recovery_file(division, address)
    }

    /// The same for whoever has leave.
    pub(super) fn recovery_file(
        &self,
        division: &DivisionId,
        address: String,
    ) -> Result<RecoveryFile> {
        let address = address
            .parse::<crate::addresses::Addresses>()
            .map_err(|e| RegistryError::BadRequest(e.to_string()))?
            .to_string();
        let missing = || RegistryError::NotFound {
            what: "恢复资料 / recovery",
            name: division.to_string(),
            next: "its root was never shared, or the sharing ended; its ledgers can be held, not opened",
        };
        let (charter, header) = {
            let authority = self.authority();
            let charter = authority
                .charter(division)
                .filter(|charter| charter.parent == self.config.division)
                .cloned()
                .ok_or_else(|| RegistryError::NoCharter(division.clone()))?;
            let sharing = authority.sharing(division).ok_or_else(missing)?;
            (charter, sharing.header.clone().ok_or_else(missing)?)
        };
        let origin = Origin::new(&self.config.realm, division, &word("recovery"));
        let (newest, chunks) = self.newest_parts(&origin)?;
        let (index, _) = newest.ok_or_else(missing)?;
        let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        let mut chain = vec![data_encoding::HEXLOWER.encode(&charter.encode())];
        let present = self.present_config();
        chain.extend(present.chain);
        Ok(RecoveryFile {
            format: FORMAT,
            realm: self.config.realm.clone(),
            division: division.clone(),
            root: present.root,
            chain,
            parent: ParentAddress {
                division: self.config.division.clone(),
                address,
                transport: data_encoding::HEXLOWER.encode(&self.keys.public().transport),
            },
            header: base64(&header),
            index,
            bundle: base64(&self.body(&origin, index)?),
            chunks: chunks
                .into_iter()
                .map(|((page, offset), at)| {
                    let chunk = base64(&self.body(&origin, at)?);
                    Ok(ChunkLine {
                        page,
                        offset,
                        chunk,
                    })
                })
                .collect::<Result<_>>()?,
            heads: self.heads_of(division)?,
        })
    }

    /// Index of the newest bundle.
    pub(crate) fn newest_bundle(&self, origin: &Origin) -> Result<Option<u64>> {
        Ok(self.newest_parts(origin)?.0.map(|(index, _)| index))
    }

    /// Index and entry of the newest bundle, and the index of every chunk in force.
    #[expect(clippy::type_complexity, reason = "two answers of one walk")]
    fn newest_parts(
        &self,
        origin: &Origin,
    ) -> Result<(Option<(u64, RecoveryEntry)>, BTreeMap<(u32, u64), u64>)> {
        let (mut newest, mut chunks) = (None, BTreeMap::new());
        crate::chain::each_entry(self.store.as_ref(), origin, |at, _, entry| {
            if let Entry::Recovery(entry) = entry {
                match entry.part {
                    RecoveryPart::Keys => newest = Some((at, entry)),
                    RecoveryPart::Ended => newest = None,
                    RecoveryPart::Dropped { page } => chunks.retain(|(p, _), _| *p != page),
                    RecoveryPart::Chunk { page, offset } => {
                        chunks.retain(|(p, o), _| *p != page || *o < offset);
                        chunks.insert((page, offset), at);
                    }
                }
            }
            Ok(())
        })?;
        Ok((newest, chunks))
    }

    /// The newest whole head of every ledger of a division that is held here.
    fn heads_of(&self, division: &DivisionId) -> Result<Vec<HeadLine>> {
        let mut heads = Vec::new();
        for shard in self.store.shards()? {
            let Ok(origin) = Origin::parse(&shard) else {
                continue;
            };
            if origin.division() != *division {
                continue;
            }
            if let Some(note) = Head::read(self.store.as_ref(), &origin)?.whole {
                let checkpoint = checkpoint_of(&note)?;
                heads.push(HeadLine {
                    origin,
                    size: checkpoint.size(),
                    root: data_encoding::HEXLOWER.encode(checkpoint.root()),
                });
            }
        }
        Ok(heads)
    }
}

impl HeadLine {
    pub(crate) fn root(&self) -> Result<Hash> {
        crate::config::key_from_hex(&self.root)
    }
}
