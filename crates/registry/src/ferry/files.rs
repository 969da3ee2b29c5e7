//! A bundle's files: read as they were given, in any order, and written so that they are whole or
//! not there.
//!
//! Owns the layout first line, manifest, part, and the check that needs no key. Refuses to read more
//! than is declared, and to write over a file that is there.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ferry::head::HEAD_BYTES;
use ferry::manifest::Part;
use ferry::{Head, Hex, Manifest};
use ledger::hash::Hash;
use sha2::{Digest, Sha256};

use super::Refused;

/// How much is read at a time.
const BUFFER: usize = 256 * 1024;

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Refused {
    let path = name(path);
    move |error| Refused::File {
        path: path.clone(),
        what: error.to_string(),
    }
}

/// Opens a file to read. Whatever else has the name, a pipe say, would keep the reader waiting.
fn regular(path: &Path) -> Result<File, Refused> {
    let no_file = || Refused::File {
        path: name(path),
        what: "不是普通文件 / it is no regular file".into(),
    };
    if !std::fs::metadata(path).map_err(io(path))?.is_file() {
        return Err(no_file());
    }
    File::open(path).map_err(io(path))
}

/// One bundle's files, their manifest read and its signature checked against the charter inside.
#[derive(Debug)]
pub struct Files {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of its bytes.
    pub hash: Hash,
    /// Where the parts are, by number.
    parts: BTreeMap<u32, PathBuf>,
    /// Bytes before the part in each file.
    before: u64,
}

impl Files {
    /// Reads what the files say in clear.
    ///
    /// # Errors
    /// [`Refused`]: no bundle, an altered manifest, or files of two bundles.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Refused> {
        let mut found: Option<Self> = None;
        for path in paths {
            let mut file = regular(path)?;
            let mut first = Vec::new();
            let mut begin = (&mut file).take(HEAD_BYTES as u64);
            begin.read_to_end(&mut first).map_err(io(path))?;
            let head = Head::decode(&first).map_err(|source| Refused::Head {
                path: name(path),
                source,
            })?;
            let mut bytes = Vec::new();
            let mut rest = file.take(u64::from(head.manifest_bytes));
            rest.read_to_end(&mut bytes).map_err(io(path))?;
            let hash = Manifest::hash(&bytes);
            if found.as_ref().is_none_or(|found| found.hash != hash) {
                let refused = |source| Refused::Manifest {
                    path: name(path),
                    source,
                };
                let manifest = Manifest::decode(&bytes).map_err(refused)?;
                manifest.verify(&bytes, &head.signature).map_err(refused)?;
                if found.is_some() {
                    return Err(Refused::Mixed { path: name(path) });
                }
                found = Some(Self {
                    manifest,
                    hash,
                    parts: BTreeMap::new(),
                    before: (HEAD_BYTES + bytes.len()) as u64,
                });
            }
            if let Some(found) = &mut found {
                if head.part as usize > found.manifest.parts.len() {
                    return Err(Refused::Head {
                        path: name(path),
                        source: ferry::HeadError::Bounds,
                    });
                }
                found.parts.entry(head.part).or_insert_with(|| path.clone());
            }
        }
        found.ok_or_else(|| Refused::File {
            path: String::new(),
            what: "没有给文件 / no file was given".into(),
        })
    }

    /// The parts that are there.
    pub fn parts(&self) -> &BTreeMap<u32, PathBuf> {
        &self.parts
    }

    /// Adds what was kept of the same bundle before.
    pub(super) fn add(&mut self, kept: Self) {
        for (part, path) in kept.parts {
            self.parts.entry(part).or_insert(path);
        }
    }

    /// The numbers of the parts that are not.
    pub fn missing(&self) -> Vec<u32> {
        let all = 1..=self.manifest.parts.len() as u32;
        all.filter(|part| !self.parts.contains_key(part)).collect()
    }

    /// Reads every part that is there, and compares length and SHA-256.
    ///
    /// # Errors
    /// [`Refused::PartLength`], [`Refused::PartAltered`], [`Refused::File`].
    pub fn check_parts(&self) -> Result<(), Refused> {
        for (part, path) in &self.parts {
            let declared = &self.manifest.parts[*part as usize - 1];
            let mut file = regular(path)?;
            let length = file.metadata().map_err(io(path))?.len();
            let found = length.saturating_sub(self.before);
            if found != declared.bytes {
                return Err(Refused::PartLength {
                    part: *part,
                    declared: declared.bytes,
                    found,
                });
            }
            file.seek(SeekFrom::Start(self.before)).map_err(io(path))?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; BUFFER];
            let mut file = file.take(declared.bytes);
            loop {
                let count = file.read(&mut buffer).map_err(io(path))?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
            }
            if declared.sha256.0[..] != hash.finalize()[..] {
                return Err(Refused::PartAltered { part: *part });
            }
        }
        Ok(())
    }

    /// The payload's sealed bytes, one part after another.
    pub(super) fn stream(&self) -> Stream<'_> {
        Stream {
            files: self,
            next: 1,
            open: None,
        }
    }
}

/// Reads the parts as one.
pub(super) struct Stream<'f> {
    files: &'f Files,
    next: u32,
    open: Option<(std::io::Take<BufReader<File>>, &'f Path)>,
}

impl Stream<'_> {
    /// Fills the buffer from the parts, in their order.
    pub(super) fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), Refused> {
        while !buffer.is_empty() {
            let Some((file, path)) = &mut self.open else {
                let cut = || Refused::Payload(ferry::PayloadError::Cut);
                let path = self.files.parts.get(&self.next).ok_or_else(cut)?;
                let declared = &self.files.manifest.parts[self.next as usize - 1];
                let mut file = File::open(path).map_err(io(path))?;
                file.seek(SeekFrom::Start(self.files.before))
                    .map_err(io(path))?;
                let file = BufReader::with_capacity(BUFFER, file).take(declared.bytes);
                self.open = Some((file, path));
                self.next += 1;
                continue;
            };
            match file.read(buffer).map_err(io(path))? {
                0 => self.open = None,
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }
}

/// Writes a payload, cut into parts; what was not finished is removed.
pub(super) struct Writer {
    dir: PathBuf,
    name: String,
    part_bytes_max: u64,
    done: Vec<(PathBuf, Part)>,
    open: Option<(PathBuf, BufWriter<File>, Sha256, u64)>,
    composed: Vec<PathBuf>,
}

impl Writer {
    pub(super) fn new(dir: &Path, name: &str, part_bytes_max: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            part_bytes_max,
            done: Vec::new(),
            open: None,
            composed: Vec::new(),
        }
    }

    fn temporary(&self, part: usize, what: &str) -> PathBuf {
        self.dir.join(format!(".{}.{part}.{what}", self.name))
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Refused> {
        while !bytes.is_empty() {
            let Some((path, file, hash, count)) = &mut self.open else {
                let path = self.temporary(self.done.len() + 1, "part");
                let file = create(&path)?;
                self.open = Some((path, BufWriter::new(file), Sha256::new(), 0));
                continue;
            };
            let room = usize::try_from(self.part_bytes_max - *count).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            file.write_all(now).map_err(io(path))?;
            hash.update(now);
            *count += now.len() as u64;
            bytes = rest;
            if *count == self.part_bytes_max {
                self.close()?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        if let Some((path, mut file, hash, bytes)) = self.open.take() {
            let flushed = file.flush().map_err(io(&path));
            let sha256 = Hex(hash.finalize().into());
            self.done.push((path, Part { bytes, sha256 }));
            flushed?;
        }
        Ok(())
    }

    /// The parts, once everything was written.
    pub(super) fn parts(&mut self) -> Result<Vec<Part>, Refused> {
        self.close()?;
        Ok(self.done.iter().map(|(_, part)| part.clone()).collect())
    }

    /// Puts first line, manifest and part together, durably, under names that nobody looks for yet.
    pub(super) fn compose(&mut self, manifest: &[u8], signature: [u8; 64]) -> Result<(), Refused> {
        let manifest_bytes = u32::try_from(manifest.len()).unwrap_or(u32::MAX);
        for (at, (path, _)) in self.done.iter().enumerate() {
            let head = Head {
                part: at as u32 + 1,
                manifest_bytes,
                signature,
            };
            let whole = self.temporary(at + 1, "whole");
            let mut file = create(&whole)?;
            self.composed.push(whole.clone());
            file.write_all(head.encode().as_bytes())
                .and_then(|()| file.write_all(manifest))
                .map_err(io(&whole))?;
            let mut part = File::open(path).map_err(io(path))?;
            std::io::copy(&mut part, &mut file).map_err(io(&whole))?;
            file.sync_all().map_err(io(&whole))?;
            std::fs::remove_file(path).map_err(io(path))?;
        }
        Ok(())
    }

    /// The names that the files will have.
    fn names(&self) -> Vec<PathBuf> {
        match self.done.len() {
            1 => vec![self.dir.join(&self.name)],
            count => (1..=count)
                .map(|part| self.dir.join(format!("{}.{part:03}", self.name)))
                .collect(),
        }
    }

    /// Refuses names that are taken.
    pub(super) fn check_names(&self) -> Result<(), Refused> {
        let taken = self.names().into_iter().find(|path| is_taken(path));
        taken.map_or(Ok(()), |path| Err(exists(&path)))
    }

    /// Gives the files their names.
    pub(super) fn publish(mut self) -> Result<Vec<PathBuf>, Refused> {
        let names = self.names();
        for (whole, path) in self.composed.iter().zip(&names) {
            if is_taken(path) {
                return Err(exists(path));
            }
            std::fs::rename(whole, path).map_err(io(path))?;
        }
        self.composed.clear();
        self.done.clear();
        let dir = File::open(&self.dir).map_err(io(&self.dir))?;
        // A stick's file system may not know how to do this.
        let _ = dir.sync_all();
        Ok(names)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let open = self.open.take().map(|(path, ..)| path);
        let done = self.done.drain(..).map(|(path, _)| path);
        for path in done.chain(open).chain(self.composed.drain(..)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether anything has that name, be it a link to nowhere.
fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A name that is taken already.
pub(super) fn exists(path: &Path) -> Refused {
    Refused::File {
        path: name(path),
        what: "已存在，请换名或移走 / it is there already; choose another name, or move it away"
            .into(),
    }
}

/// A fresh file; what an attempt that was killed left is replaced.
fn create(path: &Path) -> Result<File, Refused> {
    let _ = std::fs::remove_file(path);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io(path))
}

/// Copies a part's file beside others of its bundle.
pub(super) fn keep(from: &Path, to: &Path) -> Result<(), Refused> {
    let temporary = to.with_extension("tmp");
    let mut source = regular(from)?;
    let mut file = create(&temporary)?;
    std::io::copy(&mut source, &mut file).map_err(io(&temporary))?;
    file.sync_all().map_err(io(&temporary))?;
    std::fs::rename(&temporary, to).map_err(io(to))
}
