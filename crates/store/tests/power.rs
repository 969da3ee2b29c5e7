//! Power cuts on a real file system: ext4 in a file, shut down without flushing its journal while
//! a process commits; what it acknowledged is there when it is mounted again.
//!
//! Runs where the user is root, loop devices work and python3 is there (it calls the ioctl, so
//! that no crate here needs `unsafe`); says loudly when it does not run. `FANGZHI_SOAK_CUTS` sets
//! the number of cuts; with it set, not to run is a failure.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use store::embedded::{Embedded, Options};
use store::{Batch, Key, Snapshot, Store};

const DIR: &str = "STORE_POWER_DIR";
const CUTS: &str = "FANGZHI_SOAK_CUTS";
const WRITES: u64 = 5;
/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: from then on nothing reaches the disk,
/// the journal's last transaction included.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

fn key(table: &str, n: u64, write: u64) -> Key {
    let rest = [n.to_be_bytes(), write.to_be_bytes()].concat();
    Key::new("s", table, &rest).unwrap()
}

fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 100 << 10,
        compact_percent: 30,
        ..Options::default()
    }
}

/// Does nothing unless the test below starts it with a folder: then it commits until it cannot.
#[test]
fn a_child_commits_until_the_power_is_cut() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = Embedded::open(Path::new(&dir), options()).unwrap();
    let mut head = store.head("s").unwrap();
    let mut out = std::io::stdout();
    loop {
        let mut batch = Batch::new("s", Some(head));
        for write in 0..WRITES {
            batch.put_body(key("t", head, write), vec![head as u8; 300]);
        }
        batch.put(key("often", head % 3, 0), vec![head as u8; 600]);
        if head >= 10 {
            batch.delete(key("t", head - 10, 0));
        }
        let Ok(next) = store.commit(&batch) else {
            return;
        };
        head = next;
        writeln!(out, "\nacked {head}").unwrap();
        out.flush().unwrap();
    }
}

/// A file with ext4 in it, mounted; unmounted when dropped.
struct Disk {
    image: PathBuf,
    mounted: PathBuf,
    copies: u32,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Disk {
    fn make(dir: &Path) -> Result<Disk, String> {
        let (image, mounted) = (dir.join("image"), dir.join("mounted"));
        fs::create_dir(&mounted).unwrap();
        fs::File::create(&image)
            .unwrap()
            .set_len(256 << 20)
            .unwrap();
        run("mkfs.ext4", &["-q", "-F", text(&image)])?;
        let mut disk = Disk {
            image,
            mounted,
            copies: 0,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Mounts the image afresh. While anybody still holds the mount before, in a namespace of its
    /// own say, the system gives the same file system once more, shut down: then a copy is mounted.
    fn mount(&mut self) -> Result<(), String> {
        let mut dead = String::new();
        for _ in 0..5 {
            let image = text(&self.image);
            run("mount", &["-o", "loop", image, text(&self.mounted)])?;
            let probe = fs::File::create(self.mounted.join("probe"));
            match probe.and_then(|probe| probe.sync_all()) {
                Ok(()) => return Ok(()),
                Err(error) => dead = format!("mounted, and it is still shut down: {error}"),
            }
            self.unmount()?;
            self.copies += 1;
            let copy = self.image.with_extension(self.copies.to_string());
            run("cp", &["--sparse=always", image, text(&copy)])?;
            fs::remove_file(&self.image).map_err(|error| error.to_string())?;
            self.image = copy;
        }
        Err(dead)
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[text(&self.mounted)])
    }

    fn cut(&self) -> Result<(), String> {
        run("python3", &["-c", SHUT_DOWN, text(&self.mounted)])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

#[test]
fn whatever_was_acknowledged_survives_power_cuts_and_nothing_is_torn() {
    let asked = std::env::var(CUTS).ok();
    let cuts: u64 = asked.as_ref().map_or(4, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut disk = match Disk::make(dir.path()) {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("NO POWER WAS CUT: this needs root, loop devices and mkfs.ext4 ({error})");
            assert!(asked.is_none(), "{CUTS} is set, so this has to run");
            return;
        }
    };
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let (mut random, mut acked, mut compacted) = (seed, 0, 0);
    for cut in 0..cuts {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let store = disk.mounted.join("store");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_child_commits_until_the_power_is_cut",
                "--nocapture",
            ])
            .env(DIR, &store)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let acked = lines.map_while(Result::ok);
            acked
                .filter_map(|line| line.strip_prefix("acked ")?.parse::<u64>().ok())
                .last()
        });
        std::thread::sleep(Duration::from_millis(100 + random % 700));
        disk.cut().unwrap();
        // Only after the cut, so that the process cannot tidy up.
        child.kill().unwrap();
        child.wait().unwrap();
        acked = reader.join().unwrap().unwrap_or(acked).max(acked);
        disk.unmount().unwrap();
        disk.mount().unwrap();
        check(&store, acked, cut);
        let files = fs::read_dir(store.join("segments")).unwrap();
        compacted += files
            .filter(|file| {
                file.as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|e| e == "kept")
            })
            .count();
    }
    println!("{cuts} cuts, {acked} commits acknowledged, {compacted} compacted files seen");
    println!("{} times a copy had to be mounted", disk.copies);
    assert!(acked > 0, "the child never came to commit");
}

fn check(dir: &Path, acked: u64, cut: u64) {
    let store = Embedded::open(dir, options()).unwrap();
    let head = store.head("s").unwrap();
    assert!(
        head >= acked,
        "cut {cut}: {acked} acknowledged, {head} there"
    );
    let rows = store.scan("s", "t", b"", usize::MAX).unwrap();
    let expected = (0..head).flat_map(|n| (0..WRITES).map(move |write| (n, write)));
    let expected = expected.filter(|&(n, write)| write != 0 || n + 11 > head);
    let found = rows.iter().map(|(rest, value)| {
        let n = u64::from_be_bytes(rest[..8].try_into().unwrap());
        assert_eq!(*value, vec![n as u8; 300]);
        (n, u64::from_be_bytes(rest[8..].try_into().unwrap()))
    });
    assert!(found.eq(expected), "cut {cut}");
    drop(store);
    assert_eq!(Snapshot::open(dir).unwrap().findings(), [], "cut {cut}");
}
