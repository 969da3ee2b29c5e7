//! Rebuilding (重建) a lost node on a new machine, from shares and from what its parent gives.
//!
//! What is made here is the node's directory without its ledgers: they come from the parent as
//! soon as the node runs. Until each is whole again it is not signed: the second place is told
//! what the parent holds, so that the node cannot begin a second history.
//! Refuses a directory that holds a node, shares that do not fit, and keys that are not the
//! chartered ones.

use std::collections::BTreeMap;
use std::path::Path;

use record::authority::{Charter, verify_chain};
use record::id::UnixMillis;
use seal::grant::SealPrivateKey;
use seal::keystore::Keystore;
use seal::recovery::RecoveryInfo;
use seal::share::{Header, Share, combine};
use store::Batch;
use store::embedded::{Embedded, Options};
use store::pages::Pages;

use super::Bundle;
use super::export::{FORMAT, RecoveryFile};
use crate::book::commit;
use crate::config::{Files, KeyCustody, NodeConfig, key_from_hex};
use crate::error::{RegistryError, Result};
use crate::guard::Guard;
use crate::keys::{Keys, Opener};
use crate::node::{private_directory, refuse_existing, word};
use crate::table;

/// Where the new machine listens, and what opens its keystore.
#[derive(Debug, Clone)]
pub struct NewPlace {
    /// Where HTTP listens; as before when absent.
    pub http: Option<String>,
    /// Where replication listens; as before when absent.
    pub listen: Option<String>,
    /// What opens the keystore.
    pub custody: KeyCustody,
}

fn bad(words: impl Into<String>) -> RegistryError {
    RegistryError::BadRequest(words.into())
}

fn base64(text: &str) -> Result<Vec<u8>> {
    data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| {
        bad("恢复文件已损坏 / the recovery file is damaged; let the parent export it again")
    })
}

/// The root that shares give, in whatever order.
pub(crate) fn root_of(header: &Header, shares: &[impl AsRef<str>]) -> Result<SealPrivateKey> {
    let shares = shares
        .iter()
        .map(|text| Share::from_text(text.as_ref()))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| bad(format!("份额有误 / {e}")))?;
    let root = combine(header, &shares).map_err(|e| bad(format!("份额有误 / {e}")))?;
    Ok(SealPrivateKey::from_bytes(*root))
}

pub(crate) fn open_bundle(
    info: &RecoveryInfo,
    root: &SealPrivateKey,
    sealed: &[u8],
) -> Result<(Keystore, Bundle)> {
    let plain =
        seal::recovery::open_recovery(info, root, sealed).map_err(|e| bad(e.to_string()))?;
    let bundle: Bundle = record::cbor::from_slice("recovery", &plain, seal::recovery::RECOVERY_MAX)
        .map_err(|e| RegistryError::damaged(e.to_string()))?;
    let keystore = Keystore::from_exposed(&bundle.keystore)
        .map_err(|e| RegistryError::damaged(e.to_string()))?;
    Ok((keystore, bundle))
}

fn chain_of(file: &RecoveryFile, now: UnixMillis) -> Result<Vec<Charter>> {
    let chain = file
        .chain
        .iter()
        .map(|hex| {
            let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok();
            bytes.and_then(|bytes| Charter::decode(&bytes).ok())
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            bad("恢复文件中的证书有误 / a charter in the recovery file cannot be read")
        })?;
    verify_chain(&chain, &file.realm, &key_from_hex(&file.root)?, now, |_| {
        false
    })
    .map_err(|e| bad(e.to_string()))?;
    if chain
        .first()
        .is_none_or(|own| own.division != file.division)
    {
        return Err(bad(
            "the recovery file's charter is another division's; export it again",
        ));
    }
    Ok(chain)
}

/// Makes the directory of a lost node anew; returns how many record secrets' chunks it has.
///
/// # Errors
/// [`RegistryError::BadRequest`] when file and shares do not fit, [`RegistryError::Directory`]
/// when the directory holds a node.
pub fn rebuild(
    dir: &Path,
    file: &RecoveryFile,
    shares: &[impl AsRef<str>],
    place: NewPlace,
    opener: &Opener,
    now: UnixMillis,
) -> Result<usize> {
    refuse_existing(dir)?;
    if file.format != FORMAT {
        return Err(bad(
            "恢复文件版本不符 / the recovery file is of another version; let a parent of this version export it",
        ));
    }
    let chain = chain_of(file, now)?;
    let header = Header::decode(&base64(&file.header)?).map_err(|e| bad(e.to_string()))?;
    if header.context().division != file.division || header.context().realm != file.realm {
        return Err(bad(
            "份额头属于另一节点 / the header of the shares is another node's",
        ));
    }
    let root = root_of(&header, shares)?;
    let info = RecoveryInfo {
        origin: record::id::Origin::new(&file.realm, &file.division, &word("recovery")),
        index: file.index,
        ceremony: *header.ceremony(),
    };
    let (mut keystore, bundle) = open_bundle(&info, &root, &base64(&file.bundle)?)?;
    // The node may have been lost while its keys were changed, after the charter was issued.
    if keystore
        .next
        .as_ref()
        .is_some_and(|next| next.public_keys() == chain[0].keys)
    {
        keystore.take_next();
    }
    if keystore.public_keys() != chain[0].keys {
        return Err(bad(
            "恢复的密钥不是证书中的密钥 / the recovered keys are not those of the node's charter; let the parent charter the node anew",
        ));
    }
    let old: NodeConfig = serde_json::from_slice(&bundle.config)
        .map_err(|_| RegistryError::damaged("the recovered `node.json` cannot be read"))?;

    private_directory(dir)?;
    let files = Files::new(dir);
    let keys = Keys::create_with(dir, keystore, &place.custody, opener)?;
    drop(keys);
    write_operators(&files, &bundle.operators)?;
    write_pages(dir, file)?;
    prepare_ledgers(dir, file, &bundle)?;
    // Last: from here on the directory holds a node.
    NodeConfig {
        chain: file.chain.clone(),
        parent: Some(file.parent.clone()),
        http: place.http.unwrap_or_else(|| old.http.clone()),
        listen: place.listen.unwrap_or_else(|| old.listen.clone()),
        custody: place.custody,
        ..old
    }
    .write(dir)?;
    Ok(file.chunks.len())
}

fn write_operators(
    files: &Files,
    operators: &BTreeMap<String, minicbor::bytes::ByteVec>,
) -> Result<()> {
    let dir = files.operators();
    std::fs::create_dir_all(&dir).map_err(|e| RegistryError::file(&dir, e))?;
    for (name, bytes) in operators {
        // The name comes out of what was sealed, yet it is looked at like any other.
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name
            .strip_suffix(".json")
            .is_some_and(|login| !login.is_empty() && login.chars().all(plain))
        {
            store::atomic::replace(&dir.join(name), bytes)?;
        }
    }
    Ok(())
}

fn write_pages(dir: &Path, file: &RecoveryFile) -> Result<()> {
    let pages = Pages::open(dir).map_err(|e| RegistryError::Directory(e.to_string()))?;
    for line in &file.chunks {
        let at = pages
            .append(line.page, &base64(&line.chunk)?)
            .map_err(|e| RegistryError::Directory(e.to_string()))?;
        if at.offset != line.offset {
            return Err(bad(format!(
                "恢复文件缺少第 {0} 页的一部分 / the recovery file lacks a part of page {0}; let the parent export it again",
                line.page
            )));
        }
    }
    Ok(())
}

/// Puts beside each ledger what does not come with it, and tells the second place what was signed.
fn prepare_ledgers(dir: &Path, file: &RecoveryFile, bundle: &Bundle) -> Result<()> {
    let guard = Guard::open(dir)?;
    let store = Embedded::open(dir, Options::default())
        .map_err(|e| RegistryError::Directory(e.to_string()))?;
    for head in &file.heads {
        if head.origin.division() != file.division || head.origin.realm() != file.realm {
            return Err(bad(
                "the recovery file names a ledger of another node; export it again",
            ));
        }
        guard.remember(&head.origin, head.size, head.root()?)?;
        let mut batch = Batch::new(head.origin.as_str(), None);
        batch.put(table::key(&head.origin, table::AWAITED, b""), Vec::new());
        for (rest, kept) in bundle.grants.get(&head.origin).into_iter().flatten() {
            batch.put(table::key(&head.origin, table::GRANT, rest), kept.to_vec());
        }
        commit(&store, &head.origin, &batch)?;
    }
    store
        .close()
        .map_err(|e| RegistryError::Store(e.to_string()))?;
    Ok(())
}
