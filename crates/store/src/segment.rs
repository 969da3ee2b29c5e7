//! Segment files as files: their names, their making, and reading frames from them.
//!
//! Owns `dir/segments/NNNNNNNN.seg` and the open handles on them.
//! Refuses gaps in the numbering; what is inside a segment is `walk`'s business.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::ReadError;
use crate::format::{self, Pointer};
use crate::frame::{self, Held};

/// The number of the first segment.
pub(crate) const FIRST: u32 = 1;
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
    folder(dir).join(format!("{number:08}.seg"))
}

/// The numbers of all segment files, in order; other files are passed over.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder(dir))? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| number(name, ".seg")));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number in a name of eight digits and `suffix`.
pub(crate) fn number(name: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_suffix(suffix)?;
    let plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&number| plain && number > 0)
}

/// The first number missing from a list that should count up from [`FIRST`].
pub(crate) fn gap(numbers: &[u32]) -> Option<u32> {
    (FIRST..)
        .zip(numbers)
        .find_map(|(expected, &number)| (expected != number).then_some(expected))
}

/// Makes a durable segment with nothing but its header, over any remains of an earlier attempt.
pub(crate) fn create(dir: &Path, number: u32) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path(dir, number))?;
    file.write_all_at(&format::segment_header(number), 0)?;
    file.sync_all()?;
    sync_dir(&folder(dir))?;
    Ok(file)
}

/// Opens a segment to be appended to or erased in.
pub(crate) fn open_to_write(dir: &Path, number: u32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path(dir, number))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
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
pub(crate) fn erase(file: &File, pointer: Pointer, key: &[u8]) -> io::Result<bool> {
    let overhead = frame::FRAME_FIXED + key.len() + format::CRC;
    let Some(value_len) = (pointer.len as usize).checked_sub(overhead) else {
        return Ok(false);
    };
    let offset = u64::from(pointer.offset);
    let erased = frame::erased_frame(key, value_len as u32);
    let mut present = vec![0; erased.len()];
    let have = read_up_to(file, &mut present, offset)?;
    // The form byte differs until the frame is overwritten; everything else before the value must
    // be what the erase frame says.
    let value = erased.len() - value_len - format::CRC;
    if have < present.len() || present[0] != erased[0] || present[2..value] != erased[2..value] {
        return Ok(false);
    }
    if present != erased {
        file.write_all_at(&erased, offset)?;
    }
    Ok(true)
}
