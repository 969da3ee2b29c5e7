//! The file system of the crash tests: it does what it is told, writes it down, fails on demand,
//! and builds what a power cut after any step may leave.
//!
//! Owns the model of what a disk keeps: what was synced, and of the rest any part: none, all, a
//! beginning torn at any byte, or any sectors of any file in any order. Names of one folder
//! follow in their order, up to any point, unless the folder was synced.
//! Refuses to know sled's files; the tests lose them or put older ones in their place.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Fs, Handle, How, Real};

/// What a disk writes at once.
const SECTOR: usize = 512;

/// One recorded step.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        id: u64,
        path: PathBuf,
    },
    Write {
        id: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        id: u64,
        len: u64,
    },
    Sync {
        id: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SyncDir {
        path: PathBuf,
    },
    /// The test was told that so many batches are durable.
    Acknowledged(usize),
}

/// What a step that fails does before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing, and says that the disk is broken.
    Broken,
    /// A write writes half, and says that there is no room; other steps do nothing.
    Full,
    /// All of it, and says that it failed.
    Done,
}

#[derive(Debug, Default)]
struct State {
    ids: BTreeMap<PathBuf, u64>,
    ops: Vec<Op>,
    /// The step that fails, counted without acknowledgements.
    fail: Option<(usize, Failure)>,
    steps: usize,
}

/// Records what is done to the files in one folder.
#[derive(Debug)]
pub(crate) struct Recording {
    base: PathBuf,
    state: Mutex<State>,
}

impl Recording {
    /// `base` holds no files yet.
    pub(crate) fn new(base: &Path) -> Recording {
        Recording {
            base: base.to_owned(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn fail_at(&self, step: usize, failure: Failure) {
        self.state().fail = Some((step, failure));
    }

    pub(crate) fn acknowledge(&self, count: usize) {
        self.state().ops.push(Op::Acknowledged(count));
    }

    pub(crate) fn ops(&self) -> Vec<Op> {
        self.state().ops.clone()
    }

    pub(crate) fn steps(&self) -> usize {
        self.state().steps
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inside(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.base)
            .unwrap_or(Path::new(""))
            .to_owned()
    }

    /// Does one step, or fails it. `half` is what a write does when there is no room.
    fn step<T>(
        &self,
        act: impl FnOnce() -> io::Result<T>,
        half: Option<&dyn Fn() -> io::Result<Op>>,
        note: impl FnOnce(&mut State, &T),
    ) -> io::Result<T> {
        let mut state = self.state();
        let step = state.steps;
        state.steps += 1;
        let failure = state
            .fail
            .filter(|(at, _)| *at == step)
            .map(|(_, failure)| failure);
        match failure {
            Some(Failure::Broken) => return Err(io::Error::from_raw_os_error(5)),
            Some(Failure::Full) => {
                if let Some(half) = half {
                    state.ops.push(half()?);
                }
                return Err(io::Error::from_raw_os_error(28));
            }
            Some(Failure::Done) | None => {}
        }
        let done = act()?;
        note(&mut state, &done);
        match failure {
            Some(_) => Err(io::Error::from_raw_os_error(5)),
            None => Ok(done),
        }
    }
}

impl Fs for Recording {
    fn open(&self, path: &Path, how: How) -> io::Result<Handle> {
        let inside = self.inside(path);
        let known = self.state().ids.get(&inside).copied();
        if known.is_some() && how != How::Truncate || how == How::Existing {
            // Changes nothing, so it is no step.
            let file = Real.open(path, how)?.file;
            let id = known.expect("every file was made through this file system");
            return Ok(Handle { file, id });
        }
        self.step(
            || Real.open(path, how),
            None,
            |state, _| match known {
                Some(id) => state.ops.push(Op::SetLen { id, len: 0 }),
                None => {
                    let id = state.ops.len() as u64 + 1;
                    state.ids.insert(inside.clone(), id);
                    let path = inside.clone();
                    state.ops.push(Op::Create { id, path });
                }
            },
        )
        .map(|handle| Handle {
            id: self.state().ids[&inside],
            ..handle
        })
    }

    fn write_at(&self, file: &Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        let op = |bytes: &[u8]| Op::Write {
            id: file.id,
            offset,
            bytes: bytes.to_vec(),
        };
        let half = &bytes[..bytes.len() / 2];
        self.step(
            || Real.write_at(file, bytes, offset),
            Some(&|| Real.write_at(file, half, offset).map(|()| op(half))),
            |state, ()| state.ops.push(op(bytes)),
        )
    }

    fn set_len(&self, file: &Handle, len: u64) -> io::Result<()> {
        let id = file.id;
        let act = || Real.set_len(file, len);
        self.step(act, None, |state, ()| {
            state.ops.push(Op::SetLen { id, len })
        })
    }

    fn sync(&self, file: &Handle) -> io::Result<()> {
        let id = file.id;
        // Whether the bytes reach the machine's own disk is of no interest here.
        self.step(|| Ok(()), None, |state, ()| state.ops.push(Op::Sync { id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(
            || Real.rename(from, to),
            None,
            |state, ()| {
                let (from, to) = (self.inside(from), self.inside(to));
                if let Some(id) = state.ids.remove(&from) {
                    state.ids.insert(to.clone(), id);
                }
                state.ops.push(Op::Rename { from, to });
            },
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(
            || Real.remove(path),
            None,
            |state, ()| {
                let path = self.inside(path);
                state.ids.remove(&path);
                state.ops.push(Op::Remove { path });
            },
        )
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = self.inside(path);
        self.step(
            || Ok(()),
            None,
            |state, ()| state.ops.push(Op::SyncDir { path }),
        )
    }
}

/// What becomes of bytes and names that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// They are lost.
    Lost,
    /// They are all there.
    Kept,
    /// The last write is there up to this byte, everything before it whole.
    Torn(usize),
    /// Of each file any sectors, of each folder the names up to any change; drawn by this seed.
    Drawn(u64),
}

#[derive(Default)]
struct Node {
    durable: Vec<u8>,
    pending: Vec<Op>,
}

/// What lies on the disk and on its way there.
#[derive(Default)]
pub(crate) struct Disk {
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<PathBuf, u64>,
    /// Changes of names by folder.
    moves: BTreeMap<PathBuf, Vec<Op>>,
    last_write: Option<u64>,
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

impl Disk {
    /// Takes one step in.
    pub(crate) fn step(&mut self, op: &Op) {
        match op {
            Op::Create { id, path } => {
                self.nodes.insert(*id, Node::default());
                self.moves.entry(parent(path)).or_default().push(op.clone());
            }
            Op::Write { id, .. } | Op::SetLen { id, .. } => {
                self.last_write = Some(*id);
                self.nodes.entry(*id).or_default().pending.push(op.clone());
            }
            Op::Sync { id } => {
                let node = self.nodes.entry(*id).or_default();
                for change in std::mem::take(&mut node.pending) {
                    change_bytes(&mut node.durable, &change);
                }
            }
            Op::Rename { to: path, .. } | Op::Remove { path } => {
                self.moves.entry(parent(path)).or_default().push(op.clone());
            }
            Op::SyncDir { path } => {
                for change in self.moves.remove(path).unwrap_or_default() {
                    change_names(&mut self.names, &change);
                }
            }
            Op::Acknowledged(_) => {}
        }
    }

    /// Bytes of the last write, while they are not synced.
    pub(crate) fn torn_bytes(&self) -> usize {
        let pending = self
            .last_write
            .and_then(|id| self.nodes.get(&id)?.pending.last());
        match pending {
            Some(Op::Write { bytes, .. }) => bytes.len(),
            _ => 0,
        }
    }

    /// Whether anything is not synced.
    pub(crate) fn is_unsettled(&self) -> bool {
        let names = self.moves.values().any(|moves| !moves.is_empty());
        names || self.nodes.values().any(|node| !node.pending.is_empty())
    }

    /// Makes the files that a power cut leaves.
    pub(crate) fn write_image(&self, unsynced: Unsynced, to: &Path) {
        let mut random = match unsynced {
            Unsynced::Drawn(seed) => seed | 1,
            _ => 1,
        };
        let mut draw = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 11) as usize % below
        };
        let mut names = self.names.clone();
        for moves in self.moves.values() {
            let count = match unsynced {
                Unsynced::Lost => 0,
                Unsynced::Kept | Unsynced::Torn(_) => moves.len(),
                Unsynced::Drawn(_) => draw(moves.len() + 1),
            };
            for change in &moves[..count] {
                change_names(&mut names, change);
            }
        }
        for (path, id) in names {
            let node = &self.nodes[&id];
            let mut bytes = node.durable.clone();
            let pending = node.pending.len();
            for (at, change) in node.pending.iter().enumerate() {
                let last = Some(id) == self.last_write && at + 1 == pending;
                match (unsynced, change) {
                    (Unsynced::Lost, _) => {}
                    (
                        Unsynced::Torn(end),
                        Op::Write {
                            offset,
                            bytes: written,
                            ..
                        },
                    ) if last => {
                        let torn = Op::Write {
                            id,
                            offset: *offset,
                            bytes: written[..end].to_vec(),
                        };
                        change_bytes(&mut bytes, &torn);
                    }
                    (
                        Unsynced::Drawn(_),
                        Op::Write {
                            offset,
                            bytes: written,
                            ..
                        },
                    ) => {
                        let mut from = 0;
                        while from < written.len() {
                            let in_sector = (*offset as usize + from) % SECTOR;
                            let end = (from + SECTOR - in_sector).min(written.len());
                            if draw(2) == 0 {
                                let sector = Op::Write {
                                    id,
                                    offset: offset + from as u64,
                                    bytes: written[from..end].to_vec(),
                                };
                                change_bytes(&mut bytes, &sector);
                            }
                            from = end;
                        }
                    }
                    (Unsynced::Drawn(_), _) if draw(2) == 0 => {}
                    _ => change_bytes(&mut bytes, change),
                }
            }
            let path = to.join(path);
            fs::create_dir_all(path.parent().expect("it is below `to`")).expect("a folder");
            fs::write(path, bytes).expect("the image can be written");
        }
    }
}

fn change_bytes(bytes: &mut Vec<u8>, change: &Op) {
    match change {
        Op::Write {
            offset,
            bytes: written,
            ..
        } => {
            let (start, end) = (*offset as usize, *offset as usize + written.len());
            if written.is_empty() {
                return;
            }
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(written);
        }
        Op::SetLen { len, .. } => bytes.resize(*len as usize, 0),
        _ => {}
    }
}

fn change_names(names: &mut BTreeMap<PathBuf, u64>, change: &Op) {
    match change {
        Op::Create { id, path } => drop(names.insert(path.clone(), *id)),
        Op::Rename { from, to } => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        Op::Remove { path } => drop(names.remove(path)),
        _ => {}
    }
}
