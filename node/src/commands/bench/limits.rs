//! Limits (极限): the least that the work needs, done by itself on the same bytes.
//!
//! Checking and sealing in memory, SHA-256, append and fsync to a plain file, a TCP copy.
//! Each is timed next to what it bounds, so that a busy machine slows both.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use record::draft::Draft;
use record::entry::{Entry, Operation, RecordEntry, SUITE};
use record::id::{Origin, RecordId};
use record::schema::{Catalogue, Schema};
use seal::body::{Body, CellContext, SealedBody, seal_body};
use seal::derive::FieldKeys;
use seal::secret::{EpochSecret, RecordSecret};
use sha2::{Digest as _, Sha256};

use super::rows::{self, Row};
use crate::fault::{Fault, Result};

/// A day on which every row holds.
const TODAY: &str = "2026-06-30";
const EPOCH: u32 = 1;

/// Times one piece of work.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    let done = work()?;
    Ok((done, start.elapsed()))
}

/// Checks and seals rows as a register does, under keys of its own, on one core, in memory.
pub struct Sealing {
    origin: Origin,
    schema: &'static Schema,
    keys: FieldKeys,
    rng: ChaCha20Rng,
}

/// One row sealed, with what opens it.
struct SealedRow {
    record: RecordId,
    secret: RecordSecret,
    body: SealedBody,
}

impl Sealing {
    pub fn new(origin: &Origin) -> Result<Self> {
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).map_err(|e| Fault::failed(e.to_string()))?;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let schema = rows::schema()?;
        let secret = EpochSecret::generate(&mut rng);
        Ok(Self {
            origin: origin.clone(),
            schema,
            keys: FieldKeys::derive(&secret, origin, EPOCH, schema),
            rng,
        })
    }

    fn seal(&mut self, fields: &Row) -> Result<SealedRow> {
        let checked = Draft {
            fields: fields.clone(),
        }
        .check(self.schema, Catalogue::builtin(), TODAY)
        .map_err(|violations| {
            Fault::failed(format!("a sample row breaks {} rules", violations.len()))
        })?
        .since(None);
        let mut id = [0u8; 16];
        self.rng.fill_bytes(&mut id);
        let record = RecordId(id);
        let secret = RecordSecret::generate(&mut self.rng);
        let context = context(&self.origin, self.schema, record);
        let body = seal_body(
            &checked,
            self.schema,
            &context,
            &self.keys,
            &secret,
            &mut self.rng,
        )
        .map_err(|e| Fault::failed(e.to_string()))?;
        Ok(SealedRow {
            record,
            secret,
            body,
        })
    }

    /// Seals rows; gives the bytes that a ledger and its bodies keep of them, and the time.
    pub fn rows(&mut self, rows: &[Row]) -> Result<(Vec<u8>, Duration)> {
        let (sealed, time) = timed(|| {
            rows.iter()
                .map(|row| self.seal(row))
                .collect::<Result<Vec<_>>>()
        })?;
        let mut bytes = Vec::new();
        for row in sealed {
            bytes.extend(Entry::Record(self.entry(&row)).encode());
            bytes.extend(row.body.bytes);
        }
        Ok((bytes, time))
    }

    fn entry(&self, row: &SealedRow) -> RecordEntry {
        RecordEntry {
            suite: SUITE,
            record: row.record,
            version: 1,
            operation: Operation::Register,
            previous: None,
            schema: self.schema.version,
            epoch: EPOCH,
            content: row.body.content,
            body: row.body.hash,
            recorded_at: api::now(),
        }
    }

    /// How long opening each of these rows takes, all cells and the check against the entry.
    pub fn opening(&mut self, rows: &[Row]) -> Result<Vec<Duration>> {
        rows.iter()
            .map(|row| {
                let sealed = self.seal(row)?;
                let entry = self.entry(&sealed);
                let (_, time) = timed(|| {
                    let body = Body::decode(&sealed.body.bytes)
                        .map_err(|e| Fault::failed(e.to_string()))?;
                    let opened = seal::body::open_all(
                        &body,
                        &entry,
                        self.schema,
                        &context(&self.origin, self.schema, sealed.record),
                        &self.keys,
                        &sealed.secret,
                    )
                    .map_err(|e| Fault::failed(e.to_string()))?;
                    Ok(black_box(opened))
                })?;
                Ok(time)
            })
            .collect()
    }
}

fn context<'a>(origin: &'a Origin, schema: &Schema, record: RecordId) -> CellContext<'a> {
    CellContext {
        origin,
        record,
        version: 1,
        epoch: EPOCH,
        schema: schema.version,
    }
}

/// How long SHA-256 over bytes takes on one core.
pub fn hashing(bytes: &[u8]) -> Duration {
    let start = Instant::now();
    black_box(Sha256::digest(bytes));
    start.elapsed()
}

/// A plain file that only grows.
pub struct Appending(File);

impl Appending {
    pub fn new(path: &Path) -> Result<Self> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(Self)
            .map_err(|e| Fault::file(path, &e))
    }

    /// How long writing bytes to its end and making them durable takes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Duration> {
        let done = timed(|| {
            self.0
                .write_all(bytes)
                .and_then(|()| self.0.sync_data())
                .map_err(|e| Fault::failed(e.to_string()))
        });
        done.map(|((), time)| time)
    }
}

/// How long sending bytes over a loopback connection takes, until the other side has them all.
pub fn tcp_copy(bytes: &[Vec<u8>]) -> Result<Duration> {
    let words = |e: std::io::Error| Fault::failed(e.to_string());
    let listener = TcpListener::bind("127.0.0.1:0").map_err(words)?;
    let address = listener.local_addr().map_err(words)?;
    let whole: u64 = bytes.iter().map(|b| b.len() as u64).sum();
    std::thread::scope(|scope| {
        let receiving = scope.spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = vec![0; 256 * 1024];
            let mut left = whole;
            while left > 0 {
                let got = stream.read(&mut buffer)?;
                if got == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                left = left.saturating_sub(got as u64);
            }
            stream.write_all(&[1])
        });
        let ((), time) = timed(|| {
            let mut stream = TcpStream::connect(address).map_err(words)?;
            for part in bytes {
                stream.write_all(part).map_err(words)?;
            }
            stream.read_exact(&mut [0]).map_err(words)
        })?;
        match receiving.join() {
            Ok(done) => done.map_err(words).map(|()| time),
            Err(_) => Err(Fault::failed("the receiving thread stopped before its end")),
        }
    })
}
