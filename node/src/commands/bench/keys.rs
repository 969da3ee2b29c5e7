//! Keys (密钥): sealing, resealing, opening and granting, beside the cryptography alone.
//!
//! Owns records sealed in memory under keys of its own, one half of them for each core. The limit
//! is one HKDF and one XChaCha20-Poly1305 for each cell of the same widths, and nothing else:
//! no commitments, no row keys, no encoding.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use record::draft::{Checked, Draft};
use record::entry::{Entry, Operation, RecordEntry, SUITE};
use record::id::{GrantId, Origin, RecordId};
use record::schema::{Catalogue, Position, Schema};
use seal::body::{Body, CellContext, open_all, open_cell, reseal_body, seal_body};
use seal::derive::{FieldKeys, row_keys};
use seal::grant::{EnvelopeInfo, SealPrivateKey, open_envelope, seal_envelope};
use seal::parcel::{GrantScope, Parcel, ShardLeaf};
use seal::secret::{EpochSecret, GrantSecret, RecordSecret};
use sha2::Sha256;

use super::figures::{Figures, percentile, rate};
use super::rows;
use crate::fault::{Fault, Result};

/// Records that are sealed again and again.
const RECORDS: usize = 2_000;
const ROUNDS: usize = 12;
/// What the target of a grant is stated for.
const GRANT_ROWS: usize = 100_000;
const ENVELOPES: usize = 100;
/// How many fields a department's grant typically has.
const PERMITTED: usize = 8;
const TODAY: &str = "2026-06-30";
const NONCE: [u8; 24] = [2; 24];

/// Everything that one core works on.
struct Shelf {
    origin: Origin,
    schema: &'static Schema,
    now: FieldKeys,
    next: FieldKeys,
    rng: ChaCha20Rng,
    records: Vec<Held>,
}

/// A record as it was sealed.
struct Held {
    id: RecordId,
    secret: RecordSecret,
    checked: Checked,
    body: Vec<u8>,
    entry: RecordEntry,
}

pub fn run(figures: &mut Figures) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rows = rows::rows(RECORDS)?;
    let mut shelves = rows
        .chunks(rows.len().div_ceil(cores))
        .map(Shelf::new)
        .collect::<Result<Vec<_>>>()?;
    let cells: usize = shelves.iter().map(Shelf::cells).sum::<Result<usize>>()?;
    figures.add("keys.cells", cells as f64 / rows.len() as f64, "cells");

    let (mut seal, mut reseal, mut limit) = <(Took, Took, Took)>::default();
    for round in 0..=ROUNDS {
        let times = [
            together(&mut shelves, Shelf::limit)?,
            together(&mut shelves, Shelf::seal)?,
            together(&mut shelves, Shelf::reseal)?,
        ];
        // The first round fills caches and takes the first pages.
        if round > 0 {
            limit.add(times[0]);
            seal.add(times[1]);
            reseal.add(times[2]);
        }
    }
    report(figures, rows.len() as u64, seal, reseal, limit);
    opening(&mut shelves, figures)?;
    envelopes(figures)?;
    granting(&mut shelves, figures)
}

/// Rates by the clock; ratios of what the cores spent, which other work does not lengthen.
fn report(figures: &mut Figures, records: u64, seal: Took, reseal: Took, limit: Took) {
    let all = records * ROUNDS as u64;
    for (name, took) in [
        ("seal", seal),
        ("reseal", reseal),
        ("limit.aead_hkdf", limit),
    ] {
        figures.add(format!("keys.{name}"), rate(all, took.clock), "records/s");
        let each = took.cpu.as_secs_f64() * 1e6 / all as f64;
        figures.add(format!("keys.{name}.cpu"), each, "core-us");
    }
    let ratio = |limit: Took, of: Took| limit.cpu.as_secs_f64() / of.cpu.as_secs_f64();
    figures.add("keys.seal.ratio.aead_hkdf", ratio(limit, seal), "of-limit");
    figures.add("keys.reseal.ratio.seal", ratio(seal, reseal), "of-limit");
}

/// The records' permitted fields, opened on one core, each timed by itself.
fn opening(shelves: &mut [Shelf], figures: &mut Figures) -> Result<()> {
    let Some(shelf) = shelves.first() else {
        return Ok(());
    };
    let mut all = shelf.timed(Shelf::open_all)?;
    let mut permitted = shelf.timed(Shelf::open_permitted)?;
    figures.add("keys.open.all.p50", percentile(&mut all, 0.5) * 1e3, "us");
    figures.add("keys.open.all.p99", percentile(&mut all, 0.99) * 1e3, "us");
    let p50 = percentile(&mut permitted, 0.5) * 1e3;
    figures.add("keys.open.permitted.p50", p50, "us");
    let p99 = percentile(&mut permitted, 0.99) * 1e3;
    figures.add("keys.open.permitted.p99", p99, "us");
    Ok(())
}

/// One envelope of keys after the other: HPKE with X-Wing.
fn envelopes(figures: &mut Figures) -> Result<()> {
    let mut rng = rng()?;
    let schema = rows::schema()?;
    let secret = EpochSecret::generate(&mut rng);
    let fields = granted(schema);
    let keys = FieldKeys::derive(&secret, &origin()?, 1, schema).subset(&fields);
    let info = EnvelopeInfo {
        grant: GrantId([1; 16]),
        owner_charter: [2; 32],
        holder_charter: [3; 32],
        origin: origin()?,
        epoch: 1,
        fields,
    };
    let holder = SealPrivateKey::generate(&mut rng);
    let public = holder.public();
    let grant = GrantSecret::generate(&mut rng);
    let (mut sealing, mut opening) = (Vec::new(), Vec::new());
    for _ in 0..ENVELOPES {
        let start = Instant::now();
        let envelope = seal_envelope(&info, &public, &grant, &keys, &mut rng).map_err(words)?;
        sealing.push(start.elapsed());
        let start = Instant::now();
        black_box(open_envelope(&info, &holder, &envelope).map_err(words)?);
        opening.push(start.elapsed());
    }
    let seal = percentile(&mut sealing, 0.5);
    figures.add("keys.envelope.seal.p50", seal, "ms");
    let open = percentile(&mut opening, 0.5);
    figures.add("keys.envelope.open.p50", open, "ms");
    Ok(())
}

/// The parcels of a grant over many rows: decode, open, check, prove, seal the row keys, encode.
fn granting(shelves: &mut [Shelf], figures: &mut Figures) -> Result<()> {
    let each = GRANT_ROWS.div_ceil(shelves.len());
    let before = resident()?;
    let took = together(shelves, |shelf| shelf.grant(each))?;
    let after = resident()?;
    let rows = (each * shelves.len()) as f64;
    figures.add("keys.grant.rows", rows, "rows");
    figures.add("keys.grant", took.clock.as_secs_f64(), "s");
    let cores = took.cpu.as_secs_f64() / shelves.len() as f64;
    figures.add("keys.grant.cpu", cores, "s/core");
    let row = took.cpu.as_secs_f64() * 1e6 / rows;
    figures.add("keys.grant.row", row, "core-us");
    figures.add("keys.grant.memory.before", before, "MB");
    figures.add("keys.grant.memory.after", after, "MB");
    Ok(())
}

/// How long work took: by the clock until the last core was done, and on all cores together.
#[derive(Clone, Copy, Default)]
struct Took {
    clock: Duration,
    cpu: Duration,
}

impl Took {
    fn add(&mut self, other: Took) {
        self.clock += other.clock;
        self.cpu += other.cpu;
    }
}

/// Has every core do the same with its shelf.
fn together(shelves: &mut [Shelf], work: impl Fn(&mut Shelf) -> Result<()> + Sync) -> Result<Took> {
    let work = &work;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let timed = move |shelf: &mut Shelf| {
            work(shelf)?;
            on_core()
        };
        let running: Vec<_> = shelves
            .iter_mut()
            .map(|shelf| scope.spawn(move || timed(shelf)))
            .collect();
        let mut cpu = Duration::ZERO;
        for thread in running {
            cpu += thread
                .join()
                .map_err(|_| Fault::failed("a measuring thread stopped before its end"))??;
        }
        let clock = start.elapsed();
        Ok(Took { clock, cpu })
    })
}

/// How long this thread has run on a core.
fn on_core() -> Result<Duration> {
    let path = Path::new("/proc/thread-self/schedstat");
    let text = std::fs::read_to_string(path).map_err(|e| Fault::file(path, &e))?;
    let ns = text
        .split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok());
    ns.map(Duration::from_nanos)
        .ok_or_else(|| Fault::failed("the time of a thread cannot be read here"))
}

impl Shelf {
    fn new(rows: &[rows::Row]) -> Result<Self> {
        let mut rng = rng()?;
        let (origin, schema) = (origin()?, rows::schema()?);
        let keys = |epoch, rng: &mut ChaCha20Rng| {
            FieldKeys::derive(&EpochSecret::generate(rng), &origin, epoch, schema)
        };
        let (now, next) = (keys(1, &mut rng), keys(2, &mut rng));
        let records = rows
            .iter()
            .map(|fields| {
                let fields = fields.clone();
                let checked = Draft { fields }
                    .check(schema, Catalogue::builtin(), TODAY)
                    .map_err(|_| Fault::failed("a sample row breaks a rule"))?
                    .since(None);
                let mut id = RecordId([0; 16]);
                rng.fill_bytes(&mut id.0);
                let secret = RecordSecret::generate(&mut rng);
                let ctx = context(&origin, schema, id, 1);
                let sealed = seal_body(&checked, schema, &ctx, &now, &secret, &mut rng);
                let sealed = sealed.map_err(words)?;
                let entry = RecordEntry {
                    suite: SUITE,
                    record: id,
                    version: 1,
                    operation: Operation::Register,
                    previous: None,
                    schema: schema.version,
                    epoch: 1,
                    content: sealed.content,
                    body: sealed.hash,
                    recorded_at: api::now(),
                };
                let body = sealed.bytes;
                Ok(Held {
                    id,
                    secret,
                    checked,
                    body,
                    entry,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            origin,
            schema,
            now,
            next,
            rng,
            records,
        })
    }

    fn cells(&self) -> Result<usize> {
        self.records
            .iter()
            .map(|held| Ok(decode(held)?.positions().count()))
            .sum()
    }

    /// One HKDF and one AEAD for each cell, in place, with keys and buffers at hand.
    fn limit(&mut self) -> Result<()> {
        let aad = [7; 89];
        let info = [8; 24];
        let mut buffer = Vec::with_capacity(4_096);
        for held in &self.records {
            let body = decode(held)?;
            for position in body.positions() {
                let field = self.now.get(position).ok_or_else(no_field)?;
                let mut key = [0; 32];
                Hkdf::<Sha256>::new(Some(field.expose()), held.secret.expose())
                    .expand(&info, &mut key)
                    .map_err(words)?;
                let sealed = body.cell(position).ok_or_else(no_field)?.len();
                buffer.clear();
                buffer.resize(sealed - 16, 9);
                XChaCha20Poly1305::new(&Key::from(key))
                    .encrypt_in_place(&XNonce::from(NONCE), &aad, &mut buffer)
                    .map_err(words)?;
                black_box(&buffer);
            }
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<()> {
        for held in &self.records {
            let ctx = context(&self.origin, self.schema, held.id, 1);
            let sealed = seal_body(
                &held.checked,
                self.schema,
                &ctx,
                &self.now,
                &held.secret,
                &mut self.rng,
            );
            black_box(sealed.map_err(words)?);
        }
        Ok(())
    }

    /// As a rotation does: open under one epoch, check against the ledger, seal under the next.
    fn reseal(&mut self) -> Result<()> {
        for held in &self.records {
            let opened = self.open(held)?;
            let ctx = context(&self.origin, self.schema, held.id, 2);
            let sealed = reseal_body(
                &opened,
                self.schema,
                &ctx,
                &self.next,
                &held.secret,
                &mut self.rng,
            );
            black_box(sealed.map_err(words)?);
        }
        Ok(())
    }

    fn open(&self, held: &Held) -> Result<BTreeMap<Position, seal::body::Opened>> {
        let ctx = context(&self.origin, self.schema, held.id, 1);
        let body = decode(held)?;
        open_all(
            &body,
            &held.entry,
            self.schema,
            &ctx,
            &self.now,
            &held.secret,
        )
        .map_err(words)
    }

    fn open_all(&self, held: &Held) -> Result<()> {
        black_box(self.open(held)?);
        Ok(())
    }

    /// The fields of a grant and nothing else, from bytes and secrets on.
    fn open_permitted(&self, held: &Held) -> Result<()> {
        let body = decode(held)?;
        let ctx = context(&self.origin, self.schema, held.id, 1);
        let fields: Vec<_> = granted(self.schema)
            .into_iter()
            .filter_map(|position| self.schema.at(position))
            .collect();
        let groups = fields.iter().map(|field| &field.group);
        let rows = row_keys(&held.secret, &self.origin, &held.id, groups);
        for field in fields {
            if body.cell(field.position).is_none() {
                continue;
            }
            let key = self.now.get(field.position).ok_or_else(no_field)?;
            let row = rows.get(&field.group).ok_or_else(no_field)?;
            let opened = open_cell(&body, field.position, key, row, &ctx, field.width);
            black_box(opened.map_err(words)?);
        }
        Ok(())
    }

    fn timed(&self, work: impl Fn(&Self, &Held) -> Result<()>) -> Result<Vec<Duration>> {
        self.records
            .iter()
            .map(|held| {
                let start = Instant::now();
                work(self, held)?;
                Ok(start.elapsed())
            })
            .collect()
    }

    fn grant(&mut self, rows: usize) -> Result<()> {
        let secret = GrantSecret::generate(&mut self.rng);
        let fields = granted(self.schema);
        let groups: Vec<_> = self
            .schema
            .fields
            .iter()
            .filter(|field| fields.contains(&field.position))
            .map(|field| field.group.clone())
            .collect();
        let scope = GrantScope {
            grant: GrantId([1; 16]),
            origin: &self.origin,
            fields: &fields,
            secret: &secret,
            whole: false,
        };
        let mut bytes = 0;
        for index in 0..rows {
            let held = &self.records[index % self.records.len()];
            let opened = self.open(held)?;
            let row_keys = row_keys(&held.secret, &self.origin, &held.id, &groups);
            let leaf = ShardLeaf {
                entry: Entry::Record(held.entry.clone()).encode(),
                index: index as u64,
                inclusion: vec![[3; 32]; 17],
            };
            let body = decode(held)?;
            let parcel = Parcel::build(
                leaf,
                &body,
                &opened,
                self.schema,
                &row_keys,
                &scope,
                &mut self.rng,
            );
            bytes += parcel.map_err(words)?.encode().len();
        }
        black_box(bytes);
        Ok(())
    }
}

fn decode(held: &Held) -> Result<Body> {
    Body::decode(&held.body).map_err(words)
}

/// The first fields of the schema, as a grant might have them.
fn granted(schema: &Schema) -> Vec<Position> {
    let positions = schema.fields.iter().map(|field| field.position);
    positions.take(PERMITTED).collect()
}

fn context<'a>(
    origin: &'a Origin,
    schema: &Schema,
    record: RecordId,
    epoch: u32,
) -> CellContext<'a> {
    CellContext {
        origin,
        record,
        version: 1,
        epoch,
        schema: schema.version,
    }
}

fn origin() -> Result<Origin> {
    Origin::parse("bench.example/child/person").map_err(words)
}

fn rng() -> Result<ChaCha20Rng> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(words)?;
    Ok(ChaCha20Rng::from_seed(seed))
}

/// Memory of this process that lies in RAM, in MB.
fn resident() -> Result<f64> {
    let path = Path::new("/proc/self/status");
    let text = std::fs::read_to_string(path).map_err(|e| Fault::file(path, &e))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib * 1024.0 / 1e6)
        .ok_or_else(|| Fault::failed("the resident memory of this process cannot be read here"))
}

fn no_field() -> Fault {
    Fault::failed("a body has a cell that its schema lacks")
}

fn words(error: impl std::fmt::Display) -> Fault {
    Fault::failed(error.to_string())
}
