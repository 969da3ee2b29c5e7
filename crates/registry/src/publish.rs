//! Publishing (公布): which checkpoint of a ledger others are shown, and its tiles.
//!
//! A checkpoint without its quorum of cosignatures goes to witnesses only; everybody else is
//! shown the last that has it. So whatever anybody saw, a witness holds.

use std::collections::BTreeSet;

use ledger::note::Note;
use ledger::tile::{TILE_WIDTH, encode_bundle};
use record::id::Origin;

use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::session::Session;
use crate::table;

fn no_tile(origin: &Origin) -> RegistryError {
    RegistryError::NotFound {
        what: "哈希块 / tile of",
        name: origin.to_string(),
        next: "ask for tiles and widths within the published checkpoint",
    }
}

impl Registry {
    /// Whether enough witnesses cosigned a note.
    pub(crate) fn has_quorum(&self, origin: &Origin, note: &str) -> bool {
        let quorum = self.quorum(origin);
        if quorum == 0 {
            return true;
        }
        let Ok(note) = Note::parse(note.as_bytes()) else {
            return false;
        };
        let witnesses = self.authority().witnesses(&origin.division(), &note);
        let signed = note.verify(&witnesses).unwrap_or_default();
        let names: BTreeSet<&str> = signed.iter().map(|line| line.verifier.name()).collect();
        names.len() >= quorum
    }

    /// How many cosignatures a ledger's checkpoint needs: the realm's number, none at the root,
    /// which has nobody above it.
    fn quorum(&self, origin: &Origin) -> usize {
        let root = self
            .authority()
            .charter(&origin.division())
            .is_some_and(|charter| charter.parent == charter.division);
        if root { 0 } else { self.config.quorum as usize }
    }

    /// The checkpoint that everybody may see, if there is one.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn published(&self, origin: &Origin) -> Result<Option<String>> {
        let line = self.line(origin.as_str())?;
        Ok(line.and_then(|line| line.published().map(str::to_owned)))
    }

    fn published_size(&self, origin: &Origin) -> Result<u64> {
        let note = self.published(origin)?;
        note.map_or(Ok(0), |note| Ok(crate::grant::checkpoint_of(&note)?.size()))
    }

    /// A hash tile of `width` hashes, as C2SP tlog-tiles has it.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] for a tile beyond the published checkpoint.
    pub fn tile(&self, origin: &Origin, level: u8, index: u64, width: usize) -> Result<Vec<u8>> {
        let size = self.published_size(origin)?;
        let below = size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        let there = below.saturating_sub(index.saturating_mul(TILE_WIDTH as u64));
        if width == 0 || width > TILE_WIDTH || there < width as u64 {
            return Err(no_tile(origin));
        }
        let bytes = self
            .store
            .get(&table::tile(origin, level, index))?
            .ok_or_else(|| no_tile(origin))?;
        bytes
            .get(..width * 32)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| no_tile(origin))
    }

    /// An entry bundle of `width` entries, for auditors.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], or [`RegistryError::NotFound`] beyond the published checkpoint.
    pub fn bundle(
        &self,
        session: &Session,
        origin: &Origin,
        index: u64,
        width: usize,
    ) -> Result<Vec<u8>> {
        self.may(
            session,
            policy::Action::Audit,
            &crate::node::purpose("audit"),
        )?;
        let first = index.saturating_mul(TILE_WIDTH as u64);
        let there = self.published_size(origin)?.saturating_sub(first);
        if width == 0 || width > TILE_WIDTH || there < width as u64 {
            return Err(no_tile(origin));
        }
        let rows = self
            .store
            .scan(origin.as_str(), table::ENTRY, &first.to_be_bytes(), width)?;
        let entries: Vec<&[u8]> = rows.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        encode_bundle(&entries).map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))
    }
}
