//! A grant as a file (授权导出): what a holder has of a subset, for whoever verifies it elsewhere.
//!
//! Owns the file: the grant's ledger and the authority ledgers that say who signed it, as rows of the
//! store, all sealed or public as they lie on disk ([format](../../../docs/formats/grant.md)).
//! Verifying unpacks it into a store of its own and asks [`super::proof`]; refuses to believe the
//! file's own word for the root of the realm, which is shown to be compared.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use minicbor::{Decoder, Encoder};
use record::id::{DivisionId, GrantId, Origin, UnixMillis};
use serde::Serialize;
use store::embedded::{Embedded, Options};
use store::{Batch, Snapshot, Store};

use super::proof::{GrantProof, authority_of, verify_grants_to};
use crate::authority::Authority;
use crate::book::commit;
use crate::config::{KeyCustody, NodeConfig};
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::table;

/// How the file begins.
const MAGIC: &[u8] = b"fangzhi/grant-file/v1\n";
/// The largest file: whoever verifies it has it in memory.
const FILE_MAX: u64 = 1024 * 1024 * 1024;
/// The largest row: a parcel has at most 256 KiB.
const VALUE_MAX: usize = 512 * 1024;
/// Rows read at a time.
const SCAN: usize = 256;
/// The tables of a ledger that the file has, by their numbers in it.
const TABLES: [&str; 4] = [table::HEAD, table::ENTRY, table::BODY, table::TILE];

/// What was written to a file.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// The grant.
    pub grant: GrantId,
    /// The ledgers in the file.
    pub ledgers: Vec<Origin>,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a file proves.
#[derive(Debug, Clone, Serialize)]
pub struct VerifiedFile {
    /// The `sign` key of the realm's root that everything rests on, hexadecimal: the file's word, to
    /// be compared with what is known otherwise.
    pub root: String,
    /// Whose subset.
    pub holder: DivisionId,
    /// What is proven of it.
    pub grants: Vec<GrantProof>,
}

fn broken(path: &Path, why: impl std::fmt::Display) -> RegistryError {
    RegistryError::Altered {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

/// Writes what a directory has of a grant to a file. Reads the directory only; the node may run.
///
/// # Errors
/// [`RegistryError::NotFound`] when the directory has no such grant, or a failure of a file.
pub fn export_grant(dir: &Path, id: &GrantId, to: &Path) -> Result<Exported> {
    let config = NodeConfig::read(dir)?;
    let snapshot = Snapshot::open(dir)?;
    let authority = Authority::load(&snapshot, &config)?;
    let held: BTreeSet<String> = snapshot.shards()?.into_iter().collect();
    let unknown = || RegistryError::NotFound {
        what: "授权 / grant",
        name: id.to_string(),
        next: "see `fangzhi grant list`; the directory holds nothing of it",
    };
    let grant = authority.grant(id).ok_or_else(unknown)?;
    let ledger = grant.origin.grant(id);
    if !held.contains(ledger.as_str()) {
        return Err(unknown());
    }
    let mut divisions = BTreeSet::from([grant.origin.division(), grant.holder.clone()]);
    for division in divisions.clone() {
        divisions.extend(authority.ancestors(&division));
    }
    let word = crate::node::word("authority");
    let mut ledgers: Vec<Origin> = divisions
        .iter()
        .map(|division| Origin::new(&grant.origin.realm(), division, &word))
        .collect();
    ledgers.push(ledger);
    ledgers.retain(|origin| held.contains(origin.as_str()));
    debug_assert!(ledgers.contains(&authority_of(&grant.origin)));

    // Who the holder is and what it rests on; where it is reached is nobody's business.
    let shown = NodeConfig {
        parent: None,
        http: String::new(),
        listen: String::new(),
        custody: KeyCustody::File,
        witnesses: Vec::new(),
        ..config
    };
    let shown = serde_json::to_vec(&shown).map_err(|e| RegistryError::Directory(e.to_string()))?;
    let failed = |e| RegistryError::file(to, e);
    let file = std::fs::File::create_new(to).map_err(failed)?;
    let mut out = std::io::BufWriter::new(file);
    let mut bytes = 0;
    let mut write = |part: &[u8]| {
        bytes += part.len() as u64;
        out.write_all(part)
    };
    write(MAGIC).map_err(failed)?;
    write(&encoded(|e| e.bytes(&shown).map(drop))).map_err(failed)?;
    let mut rows = 0u64;
    for origin in &ledgers {
        for (number, name) in TABLES.iter().enumerate() {
            let mut from = Vec::new();
            loop {
                let found = snapshot.scan(origin.as_str(), name, &from, SCAN)?;
                for (rest, value) in &found {
                    let row = encoded(|e| {
                        e.array(4)?
                            .str(origin.as_str())?
                            .u8(number as u8)?
                            .bytes(rest)?
                            .bytes(value)?;
                        Ok(())
                    });
                    write(&row).map_err(failed)?;
                    rows += 1;
                }
                match found.last() {
                    Some((last, _)) if found.len() == SCAN => {
                        from.clone_from(last);
                        from.push(0);
                    }
                    _ => break,
                }
            }
        }
    }
    // A file that was cut has no count, or another.
    write(&encoded(|e| e.u64(rows).map(drop))).map_err(failed)?;
    let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)?;
    if bytes > FILE_MAX {
        std::fs::remove_file(to).map_err(failed)?;
        return Err(RegistryError::BadRequest(format!(
            "授权 {id} 有 {bytes} 字节，超出导出文件上限 {FILE_MAX} / grant {id} comes to {bytes} bytes, and a file has at most {FILE_MAX}; verify it in its directory with `fangzhi grant verify --dir`"
        )));
    }
    Ok(Exported {
        grant: *id,
        ledgers,
        rows,
        bytes,
    })
}

type Encoded = Vec<u8>;
type EncodeResult = std::result::Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn encoded(write: impl FnOnce(&mut Encoder<&mut Encoded>) -> EncodeResult) -> Encoded {
    let mut bytes = Vec::new();
    match write(&mut Encoder::new(&mut bytes)) {
        Ok(()) => bytes,
        // Writing to memory does not fail.
        Err(_) => Vec::new(),
    }
}

/// A store that a file was unpacked into; it goes with this.
struct Unpacked {
    dir: PathBuf,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "what a file was unpacked into is left; remove it");
        }
    }
}

/// Verifies the subset in a file, up to a checkpoint of the shard when one is named.
///
/// # Errors
/// [`RegistryError::Altered`] when the file is none, was cut or changed; [`RegistryError::File`] when
/// it cannot be read; [`RegistryError::BadRequest`] when the checkpoint is none.
pub fn verify_file(path: &Path, named: Option<&str>) -> Result<VerifiedFile> {
    let bytes = store::atomic::read_bounded(path, FILE_MAX)?;
    let unpacked = unpack(path, &bytes)?;
    let of_file = |error| match error {
        RegistryError::Damaged { what } => broken(path, what),
        RegistryError::Store(why) | RegistryError::Directory(why) => broken(path, why),
        other => other,
    };
    let config = NodeConfig::read(&unpacked.dir).map_err(of_file)?;
    // By no clock: what the file lacks, it lacks.
    let grants = verify_grants_to(&unpacked.dir, None, named, UnixMillis(0)).map_err(of_file)?;
    Ok(VerifiedFile {
        root: config.root,
        holder: config.division,
        grants,
    })
}

fn unpack(path: &Path, bytes: &[u8]) -> Result<Unpacked> {
    let rows = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| broken(path, "it begins otherwise"))?;
    let mut decoder = Decoder::new(rows);
    let shown = decoder.bytes().map_err(|e| broken(path, e))?;
    let config: NodeConfig = serde_json::from_slice(shown).map_err(|e| broken(path, e))?;
    let mut name = [0u8; 16];
    rand_core::Rng::fill_bytes(&mut rng()?, &mut name);
    let name = format!("fangzhi-grant-{}", data_encoding::HEXLOWER.encode(&name));
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir(&dir).map_err(|e| RegistryError::file(&dir, e))?;
    let unpacked = Unpacked { dir };
    config.write(&unpacked.dir)?;
    let store = Embedded::open(&unpacked.dir, Options::default())
        .map_err(|e| RegistryError::Store(e.to_string()))?;
    let (mut count, mut pending) = (0u64, 0usize);
    let mut batch: Option<(Origin, Batch)> = None;
    loop {
        if decoder.datatype().map_err(|e| broken(path, e))? != minicbor::data::Type::Array {
            break;
        }
        let row = (|| {
            decoder.array()?;
            let origin = decoder.str()?;
            let table = decoder.u8()?;
            Ok::<_, minicbor::decode::Error>((origin, table, decoder.bytes()?, decoder.bytes()?))
        })();
        let (origin, number, rest, value) = row.map_err(|e| broken(path, e))?;
        let origin = Origin::parse(origin).map_err(|e| broken(path, e))?;
        let name = TABLES
            .get(usize::from(number))
            .ok_or_else(|| broken(path, "a row is of no table"))?;
        // A key has a table's name and few bytes.
        if value.len() > VALUE_MAX || rest.len() > 16 {
            return Err(broken(path, "a row is too long"));
        }
        if batch.as_ref().is_some_and(|(of, _)| *of != origin) || pending >= SCAN {
            if let Some((of, full)) = batch.take() {
                commit(&store, &of, &full)?;
            }
            pending = 0;
        }
        let (_, rows) = batch.get_or_insert_with(|| {
            let rows = Batch::new(origin.as_str(), None);
            (origin.clone(), rows)
        });
        let key = table::key(&origin, name, rest);
        match *name {
            table::BODY => rows.put_body(key, value.to_vec()),
            _ => rows.put(key, value.to_vec()),
        };
        count += 1;
        pending += 1;
    }
    if let Some((of, rest)) = batch.take() {
        commit(&store, &of, &rest)?;
    }
    if decoder.u64().ok() != Some(count) || decoder.position() != rows.len() {
        return Err(broken(path, "it was cut, or something follows it"));
    }
    store
        .close()
        .map_err(|e| RegistryError::Store(e.to_string()))?;
    Ok(unpacked)
}
