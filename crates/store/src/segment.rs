//! Segment files as files: their names, their making, and reading frames from them.
//!
//! Owns `dir/segments/NNNNNNNN.seg`, `NNNNNNNN.kept` and the open handles on them.
//! Refuses gaps in their order; what is inside a segment is `walk`'s business.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::ReadError;
use crate::format::{self, Pointer};
use crate::frame::{self, Held};
use crate::fs::{Fs, Handle, How, Real};

mod order;

pub(crate) use order::{Live, Order};

/// The number of the first segment.
pub(crate) const FIRST: u32 = 1;
/// Set in the number of a file that compaction made.
pub(crate) const KEPT: u32 = 1 << 31;
/// Handles kept open for reading; far below the usual limit of 1,024 per process.
const OPEN_MAX: usize = 256;
/// Frames this near to one another are read in one go.
const GAP_MAX: u64 = 4 << 10;
/// The most that one go reads, unless a single frame is longer.
const RUN_MAX: u64 = 1 << 20;

pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join("segments")
}

pub(crate) fn path(dir: &Path, number: u32) -> PathBuf {
    folder(dir).join(match number & KEPT {
        0 => format!("{number:08}.seg"),
        _ => format!("{:08}.kept", number & !KEPT),
    })
}

/// The number in a name of eight digits and `suffix`.
pub(crate) fn number(name: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_suffix(suffix)?;
    let plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&number| plain && number > 0)
}

/// Makes a durable segment with nothing but its header, over any remains of an earlier attempt.
pub(crate) fn create(fs: &dyn Fs, dir: &Path, number: u32) -> io::Result<Handle> {
    let file = fs.open(&path(dir, number), How::Truncate)?;
    fs.write_at(&file, &format::segment_header(number), 0)?;
    fs.sync(&file)?;
    fs.sync_dir(&folder(dir))?;
    Ok(file)
}

/// Opens a segment to be appended to or erased in.
pub(crate) fn open_to_write(fs: &dyn Fs, dir: &Path, number: u32) -> io::Result<Handle> {
    fs.open(&path(dir, number), How::Existing)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    Real.sync_dir(dir)
}

/// Holds the segments so that no file of theirs is taken away: whoever reads them without the
/// store does. Waits for a compaction that is taking some away.
pub(crate) fn lock_shared(dir: &Path) -> io::Result<File> {
    let folder = File::open(folder(dir))?;
    folder.lock_shared()?;
    Ok(folder)
}

/// Makes sure that nobody reads the segments without the store; `None` when somebody does.
pub(crate) fn lock_alone(dir: &Path) -> io::Result<Option<File>> {
    let folder = File::open(folder(dir))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A frame to read: the key it must hold, where it lies, and the place of the answer.
pub(crate) struct Wanted<'a> {
    pub slot: usize,
    pub key: &'a [u8],
    pub pointer: Pointer,
}

/// The segments of one store, open for reading.
pub(crate) struct Segments {
    dir: PathBuf,
    open: Mutex<HashMap<u32, Arc<File>>>,
}

impl Segments {
    pub(crate) fn new(dir: &Path) -> Segments {
        Segments {
            dir: dir.to_owned(),
            open: Mutex::default(),
        }
    }

    pub(crate) fn path(&self, number: u32) -> PathBuf {
        path(&self.dir, number)
    }

    /// Closes a file that is going away; a reader that has it keeps its own handle.
    pub(crate) fn forget(&self, number: u32) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number);
    }

    fn file(&self, number: u32) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&number) {
            return Ok(file.clone());
        }
        if open.len() >= OPEN_MAX {
            // Readers keep their own handle; the others are cheap to open again.
            open.clear();
        }
        let file = Arc::new(File::open(self.path(number))?);
        open.insert(number, file.clone());
        Ok(file)
    }

    /// Reads and checks the wanted frames, neighbours together, and hands each on as it comes.
    pub(crate) fn read(
        &self,
        wanted: &mut [Wanted<'_>],
        mut answer: impl FnMut(&Wanted<'_>, Result<Held<'_>, ReadError>),
    ) {
        wanted.sort_unstable_by_key(|frame| frame.pointer);
        let mut buffer = Vec::new();
        for run in wanted.chunk_by(near) {
            self.read_in_one_go(run, &mut buffer, &mut answer);
        }
    }

    fn read_in_one_go(
        &self,
        run: &[Wanted<'_>],
        buffer: &mut Vec<u8>,
        answer: &mut impl FnMut(&Wanted<'_>, Result<Held<'_>, ReadError>),
    ) {
        let mut rest = run;
        while let Some(first) = rest.first() {
            let (number, start) = (first.pointer.segment, u64::from(first.pointer.offset));
            let fits = |frame: &&Wanted<'_>| end(frame) - start <= RUN_MAX;
            let count = rest.iter().take_while(fits).count().max(1);
            let (part, later) = rest.split_at(count);
            rest = later;
            buffer.resize(
                (part.iter().map(end).max().unwrap_or(start) - start) as usize,
                0,
            );
            let read = self
                .file(number)
                .and_then(|file| read_up_to(&file, buffer, start));
            for frame in part {
                let from = (u64::from(frame.pointer.offset) - start) as usize;
                let held = match &read {
                    Ok(have) => buffer[..*have]
                        .get(from..from + frame.pointer.len as usize)
                        .ok_or("the file ends before the frame does")
                        .and_then(|bytes| frame::check_frame(bytes, frame.key))
                        .map_err(|what| self.damaged(frame.pointer, what)),
                    Err(source) => Err(ReadError::Io {
                        file: self.path(number),
                        source: Arc::new(io::Error::new(source.kind(), source.to_string())),
                    }),
                };
                answer(frame, held);
            }
        }
    }

    pub(crate) fn damaged(&self, pointer: Pointer, what: &'static str) -> ReadError {
        ReadError::Damaged {
            file: self.path(pointer.segment),
            offset: u64::from(pointer.offset),
            what,
        }
    }
}

fn end(frame: &Wanted<'_>) -> u64 {
    u64::from(frame.pointer.offset) + u64::from(frame.pointer.len)
}

fn near(a: &Wanted<'_>, b: &Wanted<'_>) -> bool {
    a.pointer.segment == b.pointer.segment && u64::from(b.pointer.offset) <= end(a) + GAP_MAX
}

/// Fills the buffer from `offset` on and says how far the file reached.
pub(crate) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read_at(&mut buffer[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// Overwrites the value of a body frame with zeros, unless that is done already. Durable only
/// after a sync of the file. `Ok(false)` means that there is no body frame of this key.
pub(crate) fn erase(fs: &dyn Fs, file: &Handle, pointer: Pointer, key: &[u8]) -> io::Result<bool> {
    let overhead = frame::FRAME_FIXED + key.len() + format::CRC;
    let Some(value_len) = (pointer.len as usize).checked_sub(overhead) else {
        return Ok(false);
    };
    let offset = u64::from(pointer.offset);
    let erased = frame::erased_frame(key, value_len as u32);
    let mut present = vec![0; erased.len()];
    let have = read_up_to(&file.file, &mut present, offset)?;
    // The form byte differs until the frame is overwritten; everything else before the value must
    // be what the erase frame says.
    let value = erased.len() - value_len - format::CRC;
    if have < present.len() || present[0] != erased[0] || present[2..value] != erased[2..value] {
        return Ok(false);
    }
    if present != erased {
        fs.write_at(file, &erased, offset)?;
    }
    Ok(true)
}
