//! What a node knows of its backups (备份): where they go, when the last was made and rehearsed,
//! and whether what came back holds. The files themselves are the `backup` crate's.

use std::path::{Path, PathBuf};

use ledger::tile::TreeEdge;
use record::id::{Hash, Origin, UnixMillis};
use serde::{Deserialize, Serialize};
use store::{Snapshot, Store};

use crate::config::Files;
use crate::error::{RegistryError, Result};
use crate::table::{Head, Tiles};

const FILE_MAX: u64 = 64 * 1024;

/// `backup.json`: where backups go, and how often one is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupConfig {
    /// The folder, best on another disk.
    pub to: PathBuf,
    /// Who can open them: age recipients, `age1…`.
    pub recipients: Vec<String>,
    /// The running node makes one this often; 0 for never by itself.
    pub every_hours: u32,
    /// After how many days the part that opens records is destroyed.
    pub secrets_days: u32,
    /// How many sets are kept.
    pub keep: u32,
}

/// `backup-state.json`: when things were done last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupState {
    /// The last set's number.
    pub number: u64,
    /// When it was made.
    pub made: Option<UnixMillis>,
    /// When one was last restored into a scratch directory and compared.
    pub rehearsed: Option<UnixMillis>,
    /// Why the last attempt failed, in words.
    pub error: Option<String>,
}

/// How far a ledger had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerAt {
    /// Which.
    pub origin: Origin,
    /// Entries.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = store::atomic::read_bounded(path, FILE_MAX).map_err(RegistryError::from)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        RegistryError::Directory(format!(
            "`{0}` 读不懂，请改正，或重做 `fangzhi backup configure` / `{0}`: {e}; correct it, or run `fangzhi backup configure`",
            path.display()
        ))
    })
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes =
        serde_json::to_vec_pretty(value).map_err(|e| RegistryError::Store(e.to_string()))?;
    store::atomic::replace(path, &bytes).map_err(RegistryError::from)
}

impl BackupConfig {
    /// The settings of a directory, if there are any.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when they cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        read(&Files::new(dir).backup_config())
    }

    /// Writes the settings.
    ///
    /// # Errors
    /// [`RegistryError::File`].
    pub fn write(&self, dir: &Path) -> Result<()> {
        write(&Files::new(dir).backup_config(), self)
    }

    /// Whether a backup is to be made.
    pub fn is_due(&self, state: &BackupState, now: UnixMillis) -> bool {
        let every = u64::from(self.every_hours) * 3_600_000;
        every > 0
            && state
                .made
                .is_none_or(|made| now.0 >= made.0.saturating_add(every))
    }
}

impl BackupState {
    /// What is known of a directory's backups.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when it cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        Ok(read(&Files::new(dir).backup_state())?.unwrap_or_default())
    }

    /// Writes it down.
    ///
    /// # Errors
    /// [`RegistryError::File`].
    pub fn write(&self, dir: &Path) -> Result<()> {
        write(&Files::new(dir).backup_state(), self)
    }
}

/// How far every ledger of a directory has come, from its segment files. The node may run.
///
/// # Errors
/// When the files cannot be read.
pub fn heads(dir: &Path) -> Result<Vec<LedgerAt>> {
    let snapshot = Snapshot::open(dir)?;
    let mut heads = Vec::new();
    for shard in snapshot.shards()? {
        let Ok(origin) = Origin::parse(&shard) else {
            continue;
        };
        let head = Head::read(&snapshot, &origin)?;
        if head.size > 0 {
            heads.push(LedgerAt {
                origin,
                size: head.size,
                root: head.root,
            });
        }
    }
    Ok(heads)
}

/// The ledgers of a directory that do not continue what they were: shorter, or with another root
/// at that size.
///
/// # Errors
/// When the files cannot be read.
pub fn not_continued(dir: &Path, heads: &[LedgerAt]) -> Result<Vec<Origin>> {
    let snapshot = Snapshot::open(dir)?;
    let continues = |at: &LedgerAt| -> bool {
        let tiles = Tiles {
            store: &snapshot,
            origin: &at.origin,
        };
        let long = Head::read(&snapshot, &at.origin).is_ok_and(|head| head.size >= at.size);
        let root = TreeEdge::load(&tiles, at.size).map(|edge| edge.frontier().root());
        long && root.is_ok_and(|root| root == at.root)
    };
    let broken = heads.iter().filter(|at| !continues(at));
    Ok(broken.map(|at| at.origin.clone()).collect())
}

/// What the doctor says of a directory's backups: whether it is well, and in words.
pub(crate) fn health(
    config: Option<&BackupConfig>,
    state: &BackupState,
    now: UnixMillis,
) -> (bool, String) {
    let days = |at: UnixMillis| now.0.saturating_sub(at.0) / 86_400_000;
    let rehearsed = match state.rehearsed {
        None => "从未演练 / never rehearsed".to_owned(),
        Some(at) => format!("上次演练 {0} 天前 / rehearsed {0} days ago", days(at)),
    };
    let Some(config) = config else {
        return (
            false,
            format!("未设置备份 / no backup is configured；{rehearsed}"),
        );
    };
    let made = match state.made {
        None => "从未备份 / never made".to_owned(),
        Some(at) => format!("上次备份 {0} 天前 / made {0} days ago", days(at)),
    };
    let patience = 2 * u64::from(config.every_hours.max(24)) * 3_600_000;
    let fresh = state
        .made
        .is_some_and(|at| now.0.saturating_sub(at.0) <= patience);
    let tried = state.rehearsed.is_some_and(|at| days(at) <= REHEARSE_DAYS);
    let failed = state
        .error
        .as_deref()
        .map(|error| format!("；{error}"))
        .unwrap_or_default();
    (
        fresh && tried && state.error.is_none(),
        format!("{made}；{rehearsed}{failed}"),
    )
}

/// A backup that was not rehearsed for so long is a hope.
const REHEARSE_DAYS: u64 = 90;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn config() -> BackupConfig {
        BackupConfig {
            to: "/backup".into(),
            recipients: vec!["age1x".into()],
            every_hours: 24,
            secrets_days: 30,
            keep: 30,
        }
    }

    fn state(made: u64, rehearsed: u64) -> BackupState {
        BackupState {
            number: 1,
            made: Some(UnixMillis(made * DAY)),
            rehearsed: Some(UnixMillis(rehearsed * DAY)),
            error: None,
        }
    }

    #[test]
    fn a_backup_is_due_when_the_last_is_older_than_the_period() {
        let now = UnixMillis(100 * DAY);
        assert!(config().is_due(&BackupState::default(), now));
        assert!(config().is_due(&state(99, 0), now));
        assert!(!config().is_due(&state(100, 0), now));
        let by_hand = BackupConfig {
            every_hours: 0,
            ..config()
        };
        assert!(!by_hand.is_due(&BackupState::default(), now));
    }

    #[test]
    fn the_doctor_is_content_with_a_fresh_backup_that_was_rehearsed_only() {
        let now = UnixMillis(100 * DAY);
        let well = |config: Option<&BackupConfig>, state| health(config, &state, now).0;
        let all = config();
        assert!(well(Some(&all), state(99, 50)));
        assert!(!well(Some(&all), state(97, 50)));
        assert!(!well(Some(&all), state(99, 5)));
        assert!(!well(Some(&all), BackupState::default()));
        assert!(!well(None, state(99, 50)));
        let failed = BackupState {
            error: Some("no room".into()),
            ..state(99, 50)
        };
        assert!(health(Some(&all), &failed, now).1.contains("no room"));
    }
}
