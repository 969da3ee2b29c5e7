//! What a node says of itself: status, metrics and the doctor's checks. No personal data in any.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use record::authority::Level;
use record::id::{DivisionId, Origin, UnixMillis};
use serde::Serialize;

pub mod neighbours;
mod store;

pub use store::StoreLine;

use crate::backups::{self, BackupConfig, BackupState};
use crate::destroy::receipts::DestructionCounts;
use crate::error::Result;
use crate::guard::Halt;
use crate::node::{Registry, lock};
use crate::replicate::{Alarm, PeerLine};

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub struct Counters {
    registered: AtomicU64,
    answers: AtomicU64,
    records_read: AtomicU64,
    denied: AtomicU64,
    replicated: AtomicU64,
    refused: AtomicU64,
    alarms: AtomicU64,
    logins_failed: AtomicU64,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn registered(&self, count: u64) {
        add(&self.registered, count);
    }
    pub(crate) fn answered(&self, records: u64) {
        add(&self.answers, 1);
        add(&self.records_read, records);
    }
    pub(crate) fn denied(&self) {
        add(&self.denied, 1);
    }
    pub(crate) fn replicated(&self, count: u64) {
        add(&self.replicated, count);
    }
    pub(crate) fn login_failed(&self) {
        add(&self.logins_failed, 1);
    }
    pub(crate) fn refused(&self) {
        add(&self.refused, 1);
    }
    fn refusal(&self, reason: &'static str, count: u64) {
        *lock(&self.refusals).entry(reason).or_default() += count;
    }
    pub(crate) fn alarm(&self) {
        add(&self.alarms, 1);
    }
    pub(crate) fn alarms(&self) -> u64 {
        self.alarms.load(Ordering::Relaxed)
    }
}

/// One ledger held here.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerLine {
    /// Which.
    pub origin: Origin,
    /// Entries held.
    pub size: u64,
    /// Root over them, hexadecimal.
    pub root: String,
    /// Whether this node writes it.
    pub own: bool,
    /// Size of the newest checkpoint that another node cosigned.
    pub cosigned: u64,
    /// Names of the signers on the newest whole checkpoint.
    pub signers: Vec<String>,
}

/// Who a node is and what it holds.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// The realm.
    pub realm: String,
    /// The division.
    pub division: DivisionId,
    /// Its Chinese name.
    pub name: String,
    /// Its level.
    pub level: Level,
    /// The parent, unless this is the root.
    pub parent: Option<DivisionId>,
    /// Whether its keys are closed.
    pub locked: bool,
    /// Every ledger, by origin.
    pub ledgers: Vec<LedgerLine>,
    /// Records in the working indexes, by ledger.
    pub holdings: Vec<HoldingLine>,
    /// Nodes talked to.
    pub peers: Vec<PeerLine>,
    /// What an officer must look at.
    pub alarms: Vec<Alarm>,
    /// Own ledgers that are not signed at present, and why.
    pub halted: BTreeMap<Origin, Halt>,
    /// The rotation of the node's own keys that is under way.
    pub renewal: Option<crate::renewal::RenewalLine>,
    /// The key epochs of own shards, and how far their resealing came.
    pub epochs: Vec<crate::reseal::ShardEpochs>,
    /// Destructions of own ledgers that are not finished, or whose receipts are missing.
    pub destructions: DestructionCounts,
    /// Proposals that wait for an answer, here and elsewhere.
    pub proposals: crate::proposals::ProposalCounts,
    /// Transfers of this node's records, or to it, that are open.
    pub transfers: crate::transfer::TransferCounts,
    /// Shards that were closed, and who follows each.
    pub closed: Vec<crate::moving::close::ClosedLine>,
    /// The store and the disk under it.
    pub store: StoreLine,
}

/// One ledger whose records this node can open.
#[derive(Debug, Clone, Serialize)]
pub struct HoldingLine {
    /// The ledger.
    pub origin: Origin,
    /// The kind.
    pub kind: String,
    /// Records found by the working index.
    pub records: u64,
    /// Entries of the ledger that the index covers.
    pub applied: u64,
}

/// How a check of the doctor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing to do.
    Ok,
    /// Look at it soon.
    Warning,
    /// It does not work.
    Failure,
}

/// One check of the doctor.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// A stable word.
    pub check: &'static str,
    /// How it ended.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What to do next; empty when nothing.
    pub next: String,
}

/// What `fangzhi_refusals_total` counts.
const REFUSALS_HELP: &str = "Refusals by this node since the start; the one label, reason, says of what. Of other nodes, over the network and in ferry files (the words in docs/formats/sync.md, Hostile peers): a session, a ledger or entries that it was offered, a frame, a connection beyond a limit; recovery: a piece of a recovery file that it did not give. Of HTTP: http, a connection closed because there were too many; login, a passphrase that was told to wait (429). Not among them: readings denied, wrong passphrases, rows rejected. A reason that did not occur has no line.";

impl Registry {
    /// Who this node is and what it holds.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn status(&self) -> Result<NodeStatus> {
        let mut ledgers = Vec::new();
        for line in self.heads()? {
            if line.head.size > 0 {
                ledgers.push(LedgerLine {
                    origin: line.origin.clone(),
                    size: line.head.size,
                    root: data_encoding::HEXLOWER.encode(&line.head.root),
                    own: line.division == self.config.division,
                    cosigned: line.cosigned,
                    signers: line.signers.clone(),
                });
            }
        }
        let holdings = self
            .holdings
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let holdings = holdings
            .values()
            .map(|holding| {
                let holding = holding
                    .read()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                HoldingLine {
                    origin: holding.origin.clone(),
                    kind: holding.kind.to_string(),
                    records: holding.index.len() as u64,
                    applied: holding.index.applied(),
                }
            })
            .collect();
        Ok(NodeStatus {
            realm: self.config.realm.to_string(),
            division: self.config.division.clone(),
            name: self.config.name.clone(),
            level: self.config.level,
            parent: self.config.parent.as_ref().map(|p| p.division.clone()),
            locked: self.is_locked(),
            ledgers,
            holdings,
            peers: lock(&self.peers).lines.values().cloned().collect(),
            alarms: self.alarms()?,
            halted: self.guard.halted(),
            renewal: self.renewal()?,
            // A locked node does not know which secrets it has.
            epochs: if self.is_locked() {
                Vec::new()
            } else {
                self.epochs()?
            },
            // As of the latest time that was signed here: the doctor is told the time.
            destructions: self
                .destruction_counts(UnixMillis(self.latest.load(Ordering::Relaxed)))?,
            proposals: self.proposal_counts()?,
            transfers: self.transfer_counts()?,
            closed: self.closed_shards(),
            store: self.store_line(),
        })
    }

    /// Counts what a peer did and was refused, by one of the fixed words of `docs/formats/sync.md`.
    pub fn count_refusal(&self, reason: &'static str, count: u64) {
        self.counters.refusal(reason, count);
    }

    /// Metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn metrics(&self) -> Result<String> {
        let status = self.status()?;
        let counters = &self.counters;
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, lines: Vec<(String, u64)>| {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            for (labels, value) in lines {
                text.push_str(&format!("{name}{labels} {value}\n"));
            }
        };
        let count = |counter: &AtomicU64| vec![(String::new(), counter.load(Ordering::Relaxed))];
        metric(
            "fangzhi_records_registered_total",
            "counter",
            "Records registered since the start.",
            count(&counters.registered),
        );
        metric(
            "fangzhi_answers_total",
            "counter",
            "Readings answered since the start.",
            count(&counters.answers),
        );
        metric(
            "fangzhi_records_read_total",
            "counter",
            "Records returned by readings since the start.",
            count(&counters.records_read),
        );
        metric(
            "fangzhi_readings_denied_total",
            "counter",
            "Readings denied by policy since the start.",
            count(&counters.denied),
        );
        metric(
            "fangzhi_logins_failed_total",
            "counter",
            "Logins refused since the start.",
            count(&counters.logins_failed),
        );
        metric(
            "fangzhi_entries_replicated_total",
            "counter",
            "Entries received from other nodes since the start.",
            count(&counters.replicated),
        );
        metric(
            "fangzhi_sessions_refused_total",
            "counter",
            "Replication sessions refused since the start.",
            count(&counters.refused),
        );
        metric(
            "fangzhi_refusals_total",
            "counter",
            REFUSALS_HELP,
            lock(&counters.refusals)
                .iter()
                .map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), *count))
                .collect(),
        );
        metric(
            "fangzhi_alarms_total",
            "counter",
            "Alarms raised since the start.",
            count(&counters.alarms),
        );
        metric(
            "fangzhi_alarms",
            "gauge",
            "Alarms that an officer must look at.",
            vec![(String::new(), status.alarms.len() as u64)],
        );
        metric(
            "fangzhi_destructions",
            "gauge",
            "Destructions that this node ordered: not finished here, or with receipts missing.",
            vec![
                (
                    "{state=\"unfinished\"}".into(),
                    status.destructions.unfinished,
                ),
                ("{state=\"waiting\"}".into(), status.destructions.waiting),
                ("{state=\"overdue\"}".into(), status.destructions.overdue),
            ],
        );
        metric(
            "fangzhi_grants_refused",
            "gauge",
            "Grants of this node that the policies in force would refuse; their holders get nothing new.",
            vec![(String::new(), self.refused_grants().len() as u64)],
        );
        let waiting = &status.proposals;
        let sides = ["{side=\"inbox\"}", "{side=\"sent\"}"];
        metric(
            "fangzhi_proposals_open",
            "gauge",
            "Proposals that wait for an answer: received, and sent.",
            sides
                .iter()
                .zip([waiting.inbox_open, waiting.sent_open])
                .map(|(side, open)| ((*side).to_owned(), open))
                .collect(),
        );
        metric(
            "fangzhi_proposals_oldest_timestamp_seconds",
            "gauge",
            "When the oldest of them was proposed; absent when none waits.",
            sides
                .iter()
                .zip([waiting.inbox_oldest, waiting.sent_oldest])
                .filter_map(|(side, oldest)| Some(((*side).to_owned(), oldest?.secs())))
                .collect(),
        );
        metric(
            "fangzhi_transfers_open",
            "gauge",
            "Transfers that are not over: of this node's records, or to it.",
            vec![
                ("{is=\"outgoing\"}".into(), status.transfers.outgoing),
                ("{is=\"incoming\"}".into(), status.transfers.incoming),
            ],
        );
        metric(
            "fangzhi_transfers_oldest_timestamp_seconds",
            "gauge",
            "When the oldest open transfer was offered; no line when none is open.",
            status
                .transfers
                .oldest
                .map(|at| (String::new(), at.secs()))
                .into_iter()
                .collect(),
        );
        let by_ledger = |value: fn(&LedgerLine) -> u64| {
            status
                .ledgers
                .iter()
                .map(|l| (format!("{{origin=\"{}\"}}", l.origin), value(l)))
                .collect()
        };
        metric(
            "fangzhi_ledger_entries",
            "gauge",
            "Entries of a ledger held here.",
            by_ledger(|l| l.size),
        );
        metric(
            "fangzhi_ledger_cosigned_entries",
            "gauge",
            "Entries under the newest cosigned checkpoint.",
            by_ledger(|l| l.cosigned),
        );
        metric(
            "fangzhi_holding_records",
            "gauge",
            "Records that the working index finds.",
            status
                .holdings
                .iter()
                .map(|h| (format!("{{origin=\"{}\"}}", h.origin), h.records))
                .collect(),
        );
        metric(
            "fangzhi_epoch",
            "gauge",
            "The key epoch that an own shard is sealed under.",
            status
                .epochs
                .iter()
                .map(|e| (format!("{{origin=\"{}\"}}", e.origin), u64::from(e.current)))
                .collect(),
        );
        let resealing = status.epochs.iter().flat_map(|e| {
            let counts = e
                .resealing
                .as_ref()
                .map_or([0; 3], |p| [p.total, p.done, p.failed]);
            let words = ["total", "done", "failed"].into_iter();
            words
                .zip(counts)
                .map(|(word, count)| (format!("{{origin=\"{}\",is=\"{word}\"}}", e.origin), count))
        });
        metric(
            "fangzhi_reseal_bodies",
            "gauge",
            "Bodies to be sealed under the present epoch when it began, those done, those that failed.",
            resealing.collect(),
        );
        metric(
            "fangzhi_peer_connected",
            "gauge",
            "Whether a session with the peer is open.",
            status
                .peers
                .iter()
                .map(|p| (format!("{{peer=\"{}\"}}", p.peer), u64::from(p.connected)))
                .collect(),
        );
        // Nothing in the metrics depends on the time of asking.
        let sync = self.sync_status(UnixMillis(0))?;
        for (name, kind, help, lines) in neighbours::metrics(&sync) {
            metric(name, kind, help, lines);
        }
        for (name, help, value) in store::metrics(&status.store) {
            let lines = value.map(|value| (String::new(), value));
            metric(name, "gauge", help, lines.into_iter().collect());
        }
        for (name, help, value) in self.custody_metrics()? {
            metric(name, "gauge", help, vec![(String::new(), value)]);
        }
        Ok(text)
    }

    /// Checks what an operator can mend: charters, cosignatures, alarms, key custody, the store.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn doctor(&self, now: UnixMillis) -> Result<Vec<Check>> {
        self.note_room(now);
        let mut checks = Vec::new();
        let mut check = |check, health, found: String, next: &str| {
            let next = if health == Health::Ok {
                String::new()
            } else {
                next.to_owned()
            };
            checks.push(Check {
                check,
                health,
                found,
                next,
            });
        };
        let chain = self.chain()?;
        let days = chain
            .iter()
            .map(|c| c.not_after.0)
            .min()
            .unwrap_or(0)
            .saturating_sub(now.0)
            / 86_400_000;
        let health = match days {
            0 => Health::Failure,
            1..=30 => Health::Warning,
            _ => Health::Ok,
        };
        check(
            "charter",
            health,
            format!("证书链还有 {days} 天 / the charter chain is valid for {days} days"),
            "请上级安全员续发证书 / ask the parent's security officer to renew it",
        );
        let status = self.status()?;
        let health = if status.alarms.is_empty() {
            Health::Ok
        } else {
            Health::Failure
        };
        check(
            "alarms",
            health,
            format!(
                "{} 条告警 / {} alarms",
                status.alarms.len(),
                status.alarms.len()
            ),
            "看 `fangzhi status`，告知两个节点的安全员 / see `fangzhi status` and tell the security officers of both nodes",
        );
        let health = if status.halted.is_empty() {
            Health::Ok
        } else {
            Health::Failure
        };
        check(
            "signing",
            health,
            format!(
                "{} 个账本暂停签名 / {} ledgers are not signed",
                status.halted.len(),
                status.halted.len()
            ),
            "此目录是恢复或复制来的：让节点连上上级，停掉其他副本 / this directory was restored or copied: let the node reach its parent, and stop any other copy",
        );
        let counts = self.destruction_counts(now)?;
        let health = match (counts.unfinished, counts.overdue) {
            (0, 0) => Health::Ok,
            _ => Health::Warning,
        };
        check(
            "receipts",
            health,
            format!(
                "{0} 项销毁未完成，{1} 项待回执，其中 {2} 项逾期 / {0} destructions are not finished, {1} wait for receipts, {2} of these overdue",
                counts.unfinished, counts.waiting, counts.overdue
            ),
            "看 `fangzhi receipts`，请所列节点联网 / see `fangzhi receipts`, and ask the nodes that it names to connect",
        );
        let health = if self.guard.is_outside() {
            Health::Ok
        } else {
            Health::Warning
        };
        let found = if self.guard.is_outside() {
            "签名记录另存一处 / what was last signed is kept in a second place"
        } else {
            "签名记录与目录同处 / what was last signed is kept in the same directory only"
        };
        check(
            "second-place",
            health,
            found.into(),
            "让节点用户可写目录的上一级 / give the node's user a writable folder above its directory",
        );
        if status.parent.is_some() {
            let behind: u64 = status
                .ledgers
                .iter()
                .filter(|l| l.own)
                .map(|l| l.size - l.cosigned.min(l.size))
                .sum();
            let health = if behind == 0 {
                Health::Ok
            } else {
                Health::Warning
            };
            check(
                "cosigned",
                health,
                format!("{behind} 个条目尚未联署 / {behind} entries are not cosigned yet"),
                "启动节点，确认连得上上级 / start the node and see that the parent can be reached",
            );
        }
        let demo = std::fs::read_dir(self.files.operators())
            .map(|dir| {
                dir.flatten()
                    .any(|f| f.path().extension().is_some_and(|e| e == "pass"))
            })
            .unwrap_or(false);
        let health = if demo { Health::Warning } else { Health::Ok };
        check(
            "passphrases",
            health,
            if demo {
                "目录中存有操作员口令 / operators' passphrases lie in the directory".into()
            } else {
                "无明文口令 / no passphrase lies in the directory".into()
            },
            "只宜于演示；请删除 `operators/*.pass` / this is right for a demonstration only; delete `operators/*.pass`",
        );
        let file = matches!(self.config.custody, crate::config::KeyCustody::File);
        let health = if file { Health::Warning } else { Health::Ok };
        check(
            "custody",
            health,
            if file {
                "密钥库由文件打开 / the keystore is opened by a key file".into()
            } else {
                "密钥库由口令打开 / the keystore is opened by a passphrase".into()
            },
            "目录放在加密磁盘上，或改用口令：`fangzhi keys plan rotate-kek`，批准后 `fangzhi keys kek 方案号 --new-passphrase-file 文件`，当日重新分份 / keep the directory on an encrypted disk, or change to a passphrase: `fangzhi keys plan rotate-kek`, and once approved `fangzhi keys kek PLAN --new-passphrase-file FILE`; share the root again the same day",
        );
        let dir = self.files.dir();
        let (well, found) = match (BackupConfig::read(dir), BackupState::read(dir)) {
            (Ok(config), Ok(state)) => backups::health(config.as_ref(), &state, now),
            (Err(error), _) | (_, Err(error)) => (false, error.to_string()),
        };
        let health = if well { Health::Ok } else { Health::Warning };
        check(
            "backup",
            health,
            found,
            "依次 `fangzhi backup configure`、`backup make`，再用私钥 `backup rehearse` / `fangzhi backup configure`, `fangzhi backup make`, then `fangzhi backup rehearse` with the identity",
        );
        let failed: u64 = status
            .epochs
            .iter()
            .filter_map(|e| e.resealing.as_ref())
            .map(|progress| progress.failed)
            .sum();
        let health = if failed == 0 {
            Health::Ok
        } else {
            Health::Failure
        };
        check(
            "resealing",
            health,
            format!("{failed} 份正文重封失败 / {failed} bodies could not be resealed"),
            "看 `fangzhi keys status` 列出哪些、为何；`fangzhi verify` 查是否损坏 / see `fangzhi keys status` for which and why; `fangzhi verify` tells whether they are damaged",
        );
        let refused = self.refused_grants().len();
        let health = match refused {
            0 => Health::Ok,
            _ => Health::Warning,
        };
        check(
            "grants-refused",
            health,
            format!(
                "{refused} 份授权为现行策略所不许，已暂停供数 / {refused} grants that stand would be refused by the policies in force, and get nothing new"
            ),
            "看 `fangzhi grant list` 是哪些，由安全员终止或收窄 / see `fangzhi grant list` for which; let a security officer revoke or narrow them",
        );
        let overdue = self.overdue_grants(now).len();
        let health = if overdue == 0 {
            Health::Ok
        } else {
            Health::Warning
        };
        check(
            "grant-receipts",
            health,
            format!(
                "{overdue} 份授权终止后逾期无回执 / {overdue} grants ended and their holder's receipt is overdue"
            ),
            "看 `fangzhi grant list` 是谁的，联系持有方 / see `fangzhi grant list` for whose, and ask the holder",
        );
        let waiting = &status.proposals;
        let late = waiting
            .inbox_oldest
            .is_some_and(|at| at.0.saturating_add(crate::proposals::ANSWER_MILLIS) < now.0);
        let health = if late { Health::Warning } else { Health::Ok };
        check(
            "inbox",
            health,
            format!(
                "{0} 件变更建议待答复 / {0} proposals wait for an answer",
                waiting.inbox_open
            ),
            "最久的已等一周以上：看 `fangzhi inbox list`，予以答复 / the oldest waits for more than a week: see `fangzhi inbox list`, and answer it",
        );
        let days = status
            .transfers
            .oldest
            .map_or(0, |at| now.0.saturating_sub(at.0) / 86_400_000);
        let open = status.transfers.outgoing + status.transfers.incoming;
        let health = match days {
            0..=30 => Health::Ok,
            _ => Health::Warning,
        };
        check(
            "transfers",
            health,
            format!(
                "{open} 项迁移未办结，最久 {days} 天 / {open} transfers are open, the oldest for {days} days"
            ),
            "看 `fangzhi transfer list`，让对方节点联网；不再回来的，由其上级吊销证书 / see `fangzhi transfer list`, and let the other node connect; one that never will be back has its charter revoked by its parent",
        );
        let operators = self.operators()?.len();
        let health = if operators == 0 {
            Health::Warning
        } else {
            Health::Ok
        };
        check(
            "operators",
            health,
            format!("{operators} 名操作员 / {operators} operators"),
            "用 `fangzhi operator add` 登记安全员和登记员 / enrol a security officer and a clerk with `fangzhi operator add`",
        );
        checks.extend(store::checks(&status.store));
        checks.extend(self.custody_checks(now)?);
        Ok(checks)
    }
}

#[cfg(test)]
mod tests {
    use super::REFUSALS_HELP;

    #[test]
    fn the_help_of_the_refusals_names_the_label_and_what_the_manual_names() {
        let manual = include_str!("../../../docs/formats/sync.md");
        for word in ["reason", "recovery", "http", "login"] {
            assert!(REFUSALS_HELP.contains(word), "{word}");
            assert!(manual.contains(&format!("`{word}`")), "{word}");
        }
        assert!(REFUSALS_HELP.contains("docs/formats/sync.md, Hostile peers"));
        assert!(manual.contains("## Hostile peers"));
        // A line break would end the comment in Prometheus' text format.
        assert!(!REFUSALS_HELP.contains(['\n', '\\']));
    }
}
