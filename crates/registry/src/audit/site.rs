//! Exports: a directory that any static web server can serve to C2SP verifiers.
//!
//! Owns which files a ledger has (`tile/<L>/<N>[.p/<W>]`, `vkey`, `checkpoint`, entry bundles when
//! asked for), their order, and reading such a folder back.
//! Refuses to export tiles that do not give the checkpoint's root, every level checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ledger::hash::{Hash, root_of};
use ledger::tile::{ReadError, TILE_WIDTH, TilePath, TileReader, TileTree, encode_bundle};
use record::id::Origin;
use serde::Serialize;
use store::Store;

use super::hex;
use super::view::View;
use crate::error::{RegistryError, Result};
use crate::table;

/// The largest `vkey` file that is read.
pub const VKEYS_BYTES_MAX: u64 = 1024 * 1024;
const WIDTH: u64 = TILE_WIDTH as u64;

/// What of a ledger is exported beside its hash tiles.
#[derive(Debug, Clone, Copy, Default)]
pub struct What {
    /// Entry bundles, for charter holders and auditors.
    pub entries: bool,
    /// A checkpoint that has no quorum of cosignatures yet.
    pub uncosigned: bool,
}

/// What was exported of one ledger.
#[derive(Debug, Clone, Serialize)]
pub struct SiteLedger {
    /// The ledger, and its folder.
    pub origin: Origin,
    /// Entries under the checkpoint.
    pub size: u64,
    /// Root, hexadecimal.
    pub root: String,
    /// Whether the checkpoint has its quorum of cosignatures.
    pub cosigned: bool,
    /// Signers whose keys are in `vkey`.
    pub signers: Vec<String>,
    /// Files given.
    pub files: u64,
}

/// Gives every file of a ledger to `put`, as its path below the ledger's folder and its bytes.
///
/// The checkpoint comes last: whoever serves the folder meanwhile shows no head whose tiles are
/// missing. `None` when the ledger has no checkpoint that may be shown: without its quorum of
/// cosignatures one goes to witnesses only, unless `uncosigned` says otherwise.
///
/// # Errors
/// [`RegistryError::Damaged`] when the tiles do not give the checkpoint's root, and whatever
/// `put` reports.
pub fn export(
    view: &View,
    origin: &Origin,
    what: What,
    put: &mut dyn FnMut(&str, &[u8]) -> Result<()>,
) -> Result<Option<SiteLedger>> {
    let shown = view.shown(origin)?;
    let Some(shown) = shown.filter(|shown| shown.cosigned || what.uncosigned) else {
        return Ok(None);
    };
    let signers = view.signers(origin, Some(&shown.note))?;
    let opened = ledger::checkpoint::open(shown.note.as_bytes(), &signers[0])
        .map_err(|e| RegistryError::damaged(format!("`{origin}`: {}", super::words(&e))))?;
    let mut files = 0;
    let mut give = |path: &str, bytes: &[u8]| {
        files += 1;
        put(path, bytes)
    };
    tiles(view, origin, opened.size(), opened.root(), &mut give)?;
    if what.entries {
        bundles(view, origin, opened.size(), &mut give)?;
    }
    let keys: String = signers.iter().map(|s| s.vkey() + "\n").collect();
    give("vkey", keys.as_bytes())?;
    give("log-keys", log_keys(view, origin)?.as_bytes())?;
    give("checkpoint", shown.note.as_bytes())?;
    Ok(Some(SiteLedger {
        origin: origin.clone(),
        size: opened.size(),
        root: hex(opened.root()),
        cosigned: shown.cosigned,
        signers: signers.iter().map(|s| s.name().to_owned()).collect(),
        files,
    }))
}

/// From when to when the log signed with each of its keys: `<from> <until> <vkey>`, the newest first.
fn log_keys(view: &View, origin: &Origin) -> Result<String> {
    let mut until = "-".to_owned();
    let mut lines = String::new();
    for (charter, log) in view.log_keys(origin)? {
        let from = super::page::time(charter.not_before).replace(' ', "T");
        lines += &format!("{from} {until} {}\n", log.vkey());
        until = from;
    }
    Ok(lines)
}

fn tiles(
    view: &View,
    origin: &Origin,
    size: u64,
    root: &Hash,
    give: &mut dyn FnMut(&str, &[u8]) -> Result<()>,
) -> Result<()> {
    let damaged = |what: &str| RegistryError::damaged(format!("`{origin}`: {what}"));
    // The roots of the full tiles below: exactly the hashes of the level.
    let mut below: Option<Vec<Hash>> = None;
    let mut level = 0u8;
    let mut hashes = size;
    while hashes > 0 {
        let mut roots = Vec::new();
        for index in 0..hashes.div_ceil(WIDTH) {
            let width = (hashes - index * WIDTH).min(WIDTH);
            let bytes = view
                .store()
                .get(&table::tile(origin, level, index))?
                .ok_or_else(|| damaged(&format!("tile {level}/{index} is missing")))?;
            // What the store keeps may be wider than the checkpoint that is exported.
            let bytes = bytes
                .get(..width as usize * 32)
                .ok_or_else(|| damaged(&format!("tile {level}/{index} is too short")))?;
            let tile: &[Hash] = bytes.as_chunks::<32>().0;
            let from = (index * WIDTH) as usize;
            let differs = below
                .as_ref()
                .is_some_and(|below| below.get(from..from + tile.len()) != Some(tile));
            if differs {
                return Err(damaged(&format!(
                    "tile {level}/{index} is not the one that the tiles below it give"
                )));
            }
            if width == WIDTH {
                roots.push(root_of(tile));
            }
            let path = TilePath::new(TileTree::Hashes { level }, index, width as u16)
                .ok_or_else(|| damaged("the tree is too high"))?;
            give(&path.to_string(), bytes)?;
        }
        below = Some(roots);
        hashes /= WIDTH;
        level += 1;
    }
    let edge = ledger::tile::TreeEdge::load(&view.tiles(origin), size)
        .map_err(|e| damaged(&super::words(&e)))?;
    if edge.frontier().root() != *root {
        return Err(damaged("the tiles do not give the root of the checkpoint"));
    }
    Ok(())
}

fn bundles(
    view: &View,
    origin: &Origin,
    size: u64,
    give: &mut dyn FnMut(&str, &[u8]) -> Result<()>,
) -> Result<()> {
    let damaged = |what: String| RegistryError::damaged(format!("`{origin}`: {what}"));
    for index in 0..size.div_ceil(WIDTH) {
        let first = index * WIDTH;
        let width = (size - first).min(WIDTH);
        let rows = view.store().scan(
            origin.as_str(),
            table::ENTRY,
            &first.to_be_bytes(),
            width as usize,
        )?;
        let entries: Vec<&[u8]> = rows.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        if entries.len() as u64 != width {
            return Err(damaged(format!("entries from {first} are missing")));
        }
        let bytes = encode_bundle(&entries).map_err(|e| damaged(e.to_string()))?;
        let path = TilePath::new(TileTree::Entries, index, width as u16)
            .ok_or_else(|| damaged("a bundle has no path".into()))?;
        give(&path.to_string(), &bytes)?;
    }
    Ok(())
}

/// The hash tiles of a ledger's folder, as far as its own checkpoint goes.
#[derive(Debug, Clone)]
pub struct FolderTiles {
    folder: PathBuf,
    size: u64,
}

impl FolderTiles {
    /// The tiles of a folder whose checkpoint is of this size.
    pub fn new(folder: &Path, size: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            size,
        }
    }
}

impl TileReader for FolderTiles {
    fn tile(&self, level: u8, index: u64) -> std::result::Result<Option<Vec<u8>>, ReadError> {
        let hashes = self.size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        let width = hashes
            .saturating_sub(index.saturating_mul(WIDTH))
            .min(WIDTH);
        let Some(path) = TilePath::new(TileTree::Hashes { level }, index, width as u16) else {
            return Ok(None);
        };
        let path = self.folder.join(path.to_string());
        match store::atomic::read_bounded(&path, WIDTH * 32) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(store::atomic::FileError::Missing { .. }) => Ok(None),
            Err(error) => Err(ReadError::new(error)),
        }
    }
}

/// The folders below a directory that have a checkpoint, by their path below it.
///
/// # Errors
/// [`RegistryError::File`].
pub fn folders(site: &Path) -> Result<BTreeSet<PathBuf>> {
    /// `<realm>/<division>/<kind>/grant/<id>`.
    const DEPTH_MAX: usize = 5;
    let mut found = BTreeSet::new();
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((below, depth)) = open.pop() {
        let dir = site.join(&below);
        if dir.join("checkpoint").is_file() {
            found.insert(below.clone());
        }
        if depth == DEPTH_MAX {
            continue;
        }
        for item in std::fs::read_dir(&dir).map_err(|e| RegistryError::file(&dir, e))? {
            let item = item.map_err(|e| RegistryError::file(&dir, e))?;
            let is_dir = item.file_type().is_ok_and(|t| t.is_dir());
            if is_dir && item.file_name() != "tile" {
                open.push((below.join(item.file_name()), depth + 1));
            }
        }
    }
    Ok(found)
}
