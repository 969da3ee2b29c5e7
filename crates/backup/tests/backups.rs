//! Making, checking and restoring backups of a store that is written meanwhile.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backup::sealed::{Identities, generate};
use backup::{BackupError, Folder, How, Wanted, check, make, prune, restore, sets};
use store::embedded::{Embedded, Options};
use store::{Batch, Key, Store};

const DAY: u64 = 86_400_000;

struct Site {
    _temporary: tempfile::TempDir,
    dir: std::path::PathBuf,
    folder: Folder,
    to: std::path::PathBuf,
    recipient: String,
    identities: Identities,
}

fn site() -> Site {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("node");
    for name in ["secrets", "operators"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::write(dir.join("node.json"), "{}").unwrap();
    fs::write(dir.join("keystore"), "sealed keys").unwrap();
    fs::write(dir.join("secrets/00000001.page"), "sealed secrets").unwrap();
    fs::write(dir.join("operators/anquan.json"), "sealed key").unwrap();
    fs::write(dir.join("run.json"), "not backed up").unwrap();
    let (identity, recipient) = generate();
    let file = temporary.path().join("identity");
    fs::write(&file, age::secrecy::ExposeSecret::expose_secret(&identity)).unwrap();
    let to = temporary.path().join("backups");
    Site {
        identities: Identities::read(&file).unwrap(),
        folder: Folder::new(&to),
        to,
        dir,
        recipient,
        _temporary: temporary,
    }
}

impl Site {
    fn store(&self) -> Embedded {
        let options = Options {
            segment_bytes: 16 << 10,
            checkpoint_bytes: 20 << 10,
            ..Options::default()
        };
        Embedded::open(&self.dir, options).unwrap()
    }

    fn make(&self, now: u64) -> Result<backup::Made, BackupError> {
        make(
            &self.folder,
            &Wanted {
                node: "jiangjin.example/jinfu".into(),
                dir: &self.dir,
                recipients: std::slice::from_ref(&self.recipient),
                secrets_millis: 30 * DAY,
                ledgers: vec![],
                now,
            },
        )
    }

    fn objects(&self, part: &str) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(self.to.join(part)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn put(store: &dyn Store, number: u64) {
    let mut batch = Batch::new("s", None);
    let key = |table| Key::new("s", table, &number.to_be_bytes()).unwrap();
    batch.put(key("entry"), vec![number as u8; 100]);
    batch.put_body(key("body"), vec![number as u8; 300]);
    // The body before the last goes: it is overwritten where it lies.
    if number > 2 {
        batch.delete(Key::new("s", "body", &(number - 2).to_be_bytes()).unwrap());
    }
    store.commit(&batch).unwrap();
}

fn count(dir: &Path) -> u64 {
    let store = Embedded::open(dir, Options::default()).unwrap();
    let rows = store.scan("s", "entry", b"", usize::MAX).unwrap();
    for (number, (_, value)) in (1u64..).zip(&rows) {
        assert_eq!(value, &vec![number as u8; 100]);
    }
    let bodies = store.scan("s", "body", b"", usize::MAX).unwrap();
    assert_eq!(bodies.len(), rows.len().min(2));
    rows.len() as u64
}

fn how(history_only: bool, now: u64, mark: Option<&str>) -> How<'_> {
    How {
        history_only,
        now,
        mark,
    }
}

#[test]
fn a_backup_made_while_the_node_writes_and_erases_holds_all_that_was_committed_before() {
    let site = site();
    let store = site.store();
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Also when a check fails: the scope waits for its threads.
        scopeguard::defer!(stop.store(true, Ordering::SeqCst));
        let writer = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let next = written.load(Ordering::SeqCst) + 1;
                put(&store, next);
                written.store(next, Ordering::SeqCst);
            }
        });
        for round in 0..4 {
            while written.load(Ordering::SeqCst) < 60 * (round + 1) {
                assert!(!writer.is_finished(), "the node stopped writing");
                std::thread::yield_now();
            }
            let before = written.load(Ordering::SeqCst);
            let made = site.make(round).unwrap();
            let set = site.folder.set(None).unwrap();
            assert_eq!(set.number, made.number);
            check(&site.folder, &set, Some(&site.identities), round).unwrap();
            let back = site.dir.with_file_name(format!("back{round}"));
            restore(
                &site.folder,
                &set,
                &site.identities,
                &back,
                how(false, 1, None),
            )
            .unwrap();
            let snapshot = store::Snapshot::open(&back).unwrap();
            drop(snapshot);
            assert!(count(&back) >= before);
            assert!(!back.join("run.json").exists());
            assert_eq!(fs::read(back.join("keystore")).unwrap(), b"sealed keys");
        }
    });
}

#[test]
fn what_did_not_change_is_not_sealed_again() {
    let site = site();
    let store = site.store();
    (1..200).for_each(|number| put(&store, number));
    drop(store);
    let first = site.make(1).unwrap();
    let second = site.make(2).unwrap();
    assert_eq!(first.files, second.files);
    assert_eq!((second.sealed, second.sealed_bytes), (0, 0));
    assert!(first.sealed > 4);
}

#[test]
fn a_backup_cut_or_changed_anywhere_is_detected_with_and_without_a_key() {
    let site = site();
    let store = site.store();
    (1..20).for_each(|number| put(&store, number));
    drop(store);
    site.make(1).unwrap();
    let set = site.folder.set(None).unwrap();
    for part in ["history", "secrets"] {
        for object in site.objects(part) {
            let bytes = fs::read(&object).unwrap();
            let step = (bytes.len() / 40).max(1);
            let spoilt = (0..bytes.len())
                .step_by(step)
                .map(|end| bytes[..end].to_vec())
                .chain((0..bytes.len()).step_by(step).map(|at| {
                    let mut changed = bytes.clone();
                    changed[at] ^= 1;
                    changed
                }));
            for spoilt in spoilt {
                fs::write(&object, spoilt).unwrap();
                let found = check(&site.folder, &set, None, 1).unwrap_err();
                assert!(matches!(&found, BackupError::Broken(all) if all.len() == 1));
                let back = site.dir.with_file_name("back");
                assert!(
                    restore(
                        &site.folder,
                        &set,
                        &site.identities,
                        &back,
                        how(false, 1, None)
                    )
                    .is_err()
                );
                assert!(!back.exists() && !back.with_file_name("back.restoring").exists());
            }
            fs::remove_file(&object).unwrap();
            assert!(check(&site.folder, &set, None, 1).is_err());
            fs::write(&object, bytes).unwrap();
        }
    }
    check(&site.folder, &set, None, 1).unwrap();
}

#[test]
fn the_wrong_key_another_node_and_a_filled_directory_are_refused() {
    let site = site();
    drop(site.store());
    site.make(1).unwrap();
    let set = site.folder.set(None).unwrap();
    let other = crate::site();
    let back = site.dir.with_file_name("back");
    let refused = restore(
        &site.folder,
        &set,
        &other.identities,
        &back,
        how(false, 1, None),
    );
    assert!(matches!(refused, Err(BackupError::OtherKey { .. })));
    let refused = check(&site.folder, &set, Some(&other.identities), 1);
    assert!(matches!(refused, Err(BackupError::OtherKey { unopened, of, .. }) if unopened == of));
    // With damage besides, the damage is what counts.
    fs::write(&site.objects("history")[0], "age-encryption.org/v1").unwrap();
    for refused in [
        check(&site.folder, &set, Some(&other.identities), 1).map(drop),
        restore(
            &site.folder,
            &set,
            &other.identities,
            &back,
            how(false, 1, None),
        )
        .map(drop),
    ] {
        assert!(matches!(&refused, Err(BackupError::Broken(all)) if all.len() == 1));
    }
    assert!(matches!(
        restore(
            &site.folder,
            &set,
            &site.identities,
            &site.dir,
            how(false, 1, None)
        ),
        Err(BackupError::NotEmpty { .. })
    ));
    let wanted = Wanted {
        node: "jiangjin.example/other".into(),
        dir: &site.dir,
        recipients: std::slice::from_ref(&site.recipient),
        secrets_millis: DAY,
        ledgers: vec![],
        now: 2,
    };
    assert!(matches!(
        make(&site.folder, &wanted),
        Err(BackupError::OtherNode { .. })
    ));
    let nobody = Wanted {
        recipients: &[],
        ..wanted
    };
    assert!(matches!(
        make(&site.folder, &nobody),
        Err(BackupError::Key(_))
    ));
}

#[test]
fn secrets_are_destroyed_when_their_time_is_over_and_the_history_stays() {
    let site = site();
    drop(site.store());
    site.make(1).unwrap();
    fs::write(site.dir.join("keystore"), "other keys").unwrap();
    let made = site.make(31 * DAY).unwrap();
    assert_eq!(made.expired, 1, "only the keystore had changed");
    let old = site.folder.set(Some(1)).unwrap();
    let back = site.dir.with_file_name("back");
    assert!(matches!(
        restore(
            &site.folder,
            &old,
            &site.identities,
            &back,
            how(false, 31 * DAY, None)
        ),
        Err(BackupError::SecretsGone)
    ));
    let restored = restore(
        &site.folder,
        &old,
        &site.identities,
        &back,
        how(true, 31 * DAY, None),
    )
    .unwrap();
    assert!(!restored.secrets && back.join("node.json").exists());
    assert!(!back.join("keystore").exists());
    // What it is to be known by comes with the rest, or not at all.
    assert!(!back.join("restored").exists());
    let marked = site.dir.with_file_name("marked");
    let mark = Some("restored");
    restore(
        &site.folder,
        &old,
        &site.identities,
        &marked,
        how(true, 31 * DAY, mark),
    )
    .unwrap();
    assert!(marked.join("restored").exists());
    assert!(
        check(&site.folder, &old, None, 31 * DAY)
            .unwrap()
            .secrets_gone
    );
}

#[test]
fn a_missing_secret_is_named_as_missing_and_not_called_expired() {
    let site = site();
    drop(site.store());
    site.make(1).unwrap();
    let set = site.folder.set(None).unwrap();
    fs::remove_file(&site.objects("secrets")[0]).unwrap();
    let back = site.dir.with_file_name("back");
    let refused = restore(
        &site.folder,
        &set,
        &site.identities,
        &back,
        how(false, 2, None),
    );
    assert!(matches!(&refused, Err(BackupError::Broken(all)) if all.len() == 1));
    assert!(!back.exists());
}

#[test]
fn pruning_keeps_the_newest_sets_and_what_they_need() {
    let site = site();
    for round in 1..=4 {
        let store = site.store();
        (1..20).for_each(|number| put(&store, round * 100 + number));
        drop(store);
        site.make(round).unwrap();
    }
    let before = site.objects("history").len();
    let pruned = prune(&site.folder, 2, 5).unwrap();
    assert_eq!(pruned.sets, 2);
    assert!(site.objects("history").len() < before);
    let (left, bad) = sets(&site.folder).unwrap();
    assert_eq!((left.len(), bad.len()), (2, 0));
    for set in &left {
        check(&site.folder, set, Some(&site.identities), 5).unwrap();
    }
}

/// Debian's age opens what a node backs up, with the identity alone.
#[test]
fn the_age_program_opens_an_object() {
    if std::process::Command::new("age")
        .arg("--version")
        .output()
        .is_err()
    {
        assert!(
            std::env::var_os("CI").is_none() || std::env::var_os("FANGZHI_WITHOUT_AGE").is_some(),
            "`age` is not installed; `make test-tools` installs it"
        );
        println!("NOT CHECKED: backups with the age program, which is not installed");
        return;
    }
    let site = site();
    let store = site.store();
    (1..20).for_each(|number| put(&store, number));
    drop(store);
    site.make(1).unwrap();
    let identity = site.dir.with_file_name("identity");
    let set = site.folder.set(None).unwrap();
    for item in set.history.iter().chain(&set.secrets) {
        let part = if item.path.starts_with("segments") {
            "history"
        } else {
            "secrets"
        };
        let object = site
            .to
            .join(part)
            .join(format!("{}.age", item.sealed_sha256));
        let out = std::process::Command::new("age")
            .arg("-d")
            .arg("-i")
            .arg(&identity)
            .arg(&object)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        assert_eq!(out.stdout, fs::read(site.dir.join(&item.path)).unwrap());
    }
}
