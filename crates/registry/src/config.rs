//! A node's directory: its configuration and where its files lie.

use std::path::{Path, PathBuf};

use record::authority::{Charter, Level};
use record::id::{DivisionId, Realm};
use serde::{Deserialize, Serialize};

use crate::error::{RegistryError, Result};

/// The version of `node.json`.
pub const CONFIG_FORMAT: u32 = 1;
/// The largest `node.json`.
const CONFIG_MAX: u64 = 256 * 1024;

/// Where a parent is reached, and by which key it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentAddress {
    /// The parent's division.
    pub division: DivisionId,
    /// Where it is dialled, see [`crate::addresses`].
    pub address: String,
    /// Ed25519 transport key, hexadecimal.
    pub transport: String,
}

/// What opens the keystore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum KeyCustody {
    /// The file `kek` in the directory, readable by the node's user only.
    File,
    /// A passphrase, stretched by argon2id; the keystore names the parameters.
    Passphrase,
}

/// `node.json`: who this node is. Public: it holds no secret and names no person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// [`CONFIG_FORMAT`].
    pub format: u32,
    /// The realm.
    pub realm: Realm,
    /// The division or organization.
    pub division: DivisionId,
    /// Its Chinese name.
    pub name: String,
    /// Its level.
    pub level: Level,
    /// The realm root's `sign` key, hexadecimal.
    pub root: String,
    /// The charter chain, own first, root last, each hexadecimal CBOR.
    pub chain: Vec<String>,
    /// The parent, unless this is the root.
    pub parent: Option<ParentAddress>,
    /// Where HTTP listens, `IP:port`.
    pub http: String,
    /// Where replication listens, see [`crate::addresses`].
    pub listen: String,
    /// What opens the keystore.
    pub custody: KeyCustody,
    /// How many witnesses must have cosigned a checkpoint before it is shown to others.
    #[serde(default = "one")]
    pub quorum: u32,
    /// After how many days a receipt of destruction that has not come is overdue.
    #[serde(default = "week")]
    pub receipt_days: u32,
    /// Witnesses beside the parent: siblings, say.
    #[serde(default)]
    pub witnesses: Vec<WitnessAddress>,
}

/// A node of the realm that is asked to cosign over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessAddress {
    /// Its division.
    pub division: DivisionId,
    /// The beginning of its HTTP address, such as `http://10.0.0.5:8460`.
    pub url: String,
}

fn one() -> u32 {
    1
}

pub(crate) fn week() -> u32 {
    7
}

impl NodeConfig {
    /// Reads `node.json` of a directory.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when there is no node, [`RegistryError::File`] when it cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = Files::new(dir).config();
        if !path.exists() {
            return Err(RegistryError::Directory(format!(
                "`{0}` 中没有节点 / no node in `{0}`; make one with `fangzhi init` or `fangzhi join`",
                dir.display()
            )));
        }
        let bytes = store::atomic::read_bounded(&path, CONFIG_MAX).map_err(RegistryError::from)?;
        let config: Self = serde_json::from_slice(&bytes).map_err(|e| {
            RegistryError::Directory(format!(
                "`{0}` 读不懂，请从备份恢复该文件 / `{0}`: {e}; restore the file from a backup",
                path.display()
            ))
        })?;
        if config.format != CONFIG_FORMAT {
            return Err(RegistryError::Directory(format!(
                "`{0}` 是格式 {1}，本程序只读 {CONFIG_FORMAT}；请用与之相配的程序 / `{0}` has format {1}; this program reads {CONFIG_FORMAT}: use the program that wrote it",
                path.display(),
                config.format
            )));
        }
        Ok(config)
    }

    /// Writes `node.json`, whole or not at all.
    ///
    /// # Errors
    /// [`RegistryError::File`].
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = Files::new(dir).config();
        let bytes =
            serde_json::to_vec_pretty(self).map_err(|e| RegistryError::Directory(e.to_string()))?;
        store::atomic::replace(&path, &bytes).map_err(RegistryError::from)
    }

    /// The charter chain, decoded.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when a charter cannot be read.
    pub fn charters(&self) -> Result<Vec<Charter>> {
        self.chain
            .iter()
            .map(|hex| {
                let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok();
                bytes.and_then(|b| Charter::decode(&b).ok()).ok_or_else(|| {
                    RegistryError::Directory(
                        "a charter in `node.json` cannot be read; restore the file".into(),
                    )
                })
            })
            .collect()
    }

    /// Checks that the file says what the node's charter says. Whether the charter holds is asked
    /// where it is shown: an own one that does not is refused by every peer, with the reason.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] naming every field that differs.
    pub fn agrees_with_charter(&self) -> Result<()> {
        let chain = self.charters()?;
        let Some(own) = chain.first() else {
            return Ok(());
        };
        let differ: Vec<&str> = [
            ("realm", self.realm != own.realm),
            ("division", self.division != own.division),
            ("name", self.name != own.name),
            ("level", self.level != own.level),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect();
        if differ.is_empty() {
            return Ok(());
        }
        Err(RegistryError::Directory(format!(
            "`node.json` 与节点证书不符 / `node.json` and the charter in it say different things in {}; restore the file from a backup",
            differ.join(", ")
        )))
    }

    /// The realm root's `sign` key.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when it is not 32 bytes of hexadecimal.
    pub fn root_key(&self) -> Result<[u8; 32]> {
        key_from_hex(&self.root)
    }
}

/// 32 bytes of hexadecimal.
///
/// # Errors
/// [`RegistryError::Directory`].
pub fn key_from_hex(text: &str) -> Result<[u8; 32]> {
    data_encoding::HEXLOWER
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            RegistryError::Directory("a key is not 64 hexadecimal digits; copy it again".into())
        })
}

/// Where a node's files lie.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// The files of a directory.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// `node.json`.
    pub fn config(&self) -> PathBuf {
        self.dir.join("node.json")
    }

    /// The key file, when custody is [`KeyCustody::File`].
    pub fn kek(&self) -> PathBuf {
        self.dir.join("kek")
    }

    /// The key file that is to replace [`Files::kek`] once the keystore is sealed under it.
    pub fn next_kek(&self) -> PathBuf {
        self.dir.join("kek.next")
    }

    /// The ceremony of shares under way, sealed.
    pub fn ceremony(&self) -> PathBuf {
        self.dir.join("ceremony")
    }

    /// The recovery file of a division while a new machine fetches it.
    pub fn given(&self, division: &DivisionId) -> PathBuf {
        self.dir.join("recovery-given").join(division.as_str())
    }

    /// One-time keys of officers here for shares of nodes below, each sealed for its officer.
    pub fn share_keys(&self) -> PathBuf {
        self.dir.join("share-keys")
    }

    /// A keystore with the node keys that wait for their charter.
    pub fn next_keystore(&self) -> PathBuf {
        self.dir.join("keystore.next")
    }

    /// The sealed keystore.
    pub fn keystore(&self) -> PathBuf {
        self.dir.join("keystore")
    }

    /// The transport key, which a locked node needs.
    pub fn transport(&self) -> PathBuf {
        self.dir.join("transport")
    }

    /// The transport key that waits for its charter, for a node that starts locked just after.
    pub fn next_transport(&self) -> PathBuf {
        self.dir.join("transport.next")
    }

    /// Operators' sealed keys.
    pub fn operators(&self) -> PathBuf {
        self.dir.join("operators")
    }

    /// Sealed pages of the working index.
    pub fn index(&self) -> PathBuf {
        self.dir.join("working-index")
    }

    /// Where backups go.
    pub fn backup_config(&self) -> PathBuf {
        self.dir.join("backup.json")
    }

    /// When backups were made and rehearsed.
    pub fn backup_state(&self) -> PathBuf {
        self.dir.join("backup-state.json")
    }

    /// What the authority ledgers say, sealed beside the working index.
    pub fn authority(&self) -> PathBuf {
        self.index().join("authority")
    }

    /// Where a running node says how to reach it.
    pub fn run(&self) -> PathBuf {
        self.dir.join("run.json")
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use record::id::UnixMillis;

    use super::*;
    use crate::keys::Opener;
    use crate::node::{NewNode, Registry, init};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const LATER: UnixMillis = UnixMillis(NOW.0 + 20 * 365 * 24 * 3600 * 1000);

    fn node(base: &Path) -> PathBuf {
        let dir = base.join("node");
        let new = NewNode {
            realm: Realm::new("test.example").unwrap(),
            division: DivisionId::new("town").unwrap(),
            name: "示例镇".into(),
            level: Level::Town,
            codes: Vec::new(),
            http: "127.0.0.1:0".into(),
            listen: "127.0.0.1:0".into(),
            custody: KeyCustody::File,
            quorum: 0,
        };
        init(&dir, new, &Opener::File, NOW).unwrap();
        dir
    }

    #[test]
    fn an_edited_configuration_does_not_make_another_node_of_it() {
        let base = tempfile::tempdir().unwrap();
        let dir = node(base.path());
        let whole = NodeConfig::read(&dir).unwrap();
        type Edit = fn(&mut NodeConfig);
        let edits: [(&str, Edit); 4] = [
            ("realm", |config| {
                config.realm = Realm::new("other.example").unwrap();
            }),
            ("division", |config| {
                config.division = DivisionId::new("city").unwrap();
            }),
            ("name", |config| config.name = "别处".into()),
            ("level", |config| config.level = Level::District),
        ];
        for (what, edit) in edits {
            let mut edited = whole.clone();
            edit(&mut edited);
            edited.write(&dir).unwrap();
            let said = Registry::open(&dir, &Opener::File, NOW)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(said.contains(what), "{what}: {said}");
        }
        whole.write(&dir).unwrap();
        // An expired charter is no edit: the node opens, and says so where it matters.
        Registry::open(&dir, &Opener::File, LATER).unwrap();
    }
}
