//! Packing: the ledgers that a neighbour would be offered over a line, written to files for it.
//!
//! Owns the number of a bundle and what it goes on from. The order is: files written and durable
//! under names that nobody looks for, then the row that remembers the bundle, then their names; so
//! a number is never given twice, and a bundle that was never seen is packed again.
//! Refuses other receivers than parent and children, and to write over a file that is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferry::limits::{EXTENDS_MAX, FORMAT, LEDGERS_MAX, PARTS_MAX};
use ferry::manifest::{Acknowledged, Kind, LedgerRange, Party, Payload};
use ferry::{Extends, Frame, Hex, Manifest, Sealer};
use ledger::tile::TreeEdge;
use ledger::verify;
use record::authority::Charter;
use record::entry::SUITE;
use record::id::{DivisionId, Origin, UnixMillis};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sync::Message;
use sync::code::RejectCode;
use sync::limits::CHUNK_BYTES_MAX;
use sync::message::{Cosigned, Entries, Offer, Seen};
use sync::output::Load;

use super::files::{Writer, exists};
use super::{Course, Packed, Reached, Refused};
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::session::Session;
use crate::table::{Head, Tiles};

/// The least room of a disk.
const PART_BYTES_MIN: u64 = 1024 * 1024;
/// Room for first line, charters, and what a manifest says beside ledgers and parts.
const FIXED_BYTES: u64 = 128 * 1024;
/// Room that a manifest takes for each part.
const PART_LINE_BYTES: u64 = 160;
/// Room that a manifest takes for each ledger.
const LEDGER_LINES_BYTES: u64 = 512;

/// What is to be packed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackRequest {
    /// For whom.
    pub to: DivisionId,
    /// Absolute: a folder to write it in under a name of its own, or the file to write, whose name
    /// has an extension.
    pub out: PathBuf,
    /// Room on one disk, in bytes.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// Go on from this bundle instead of the last one; 0 packs everything.
    #[serde(default)]
    pub since: Option<u64>,
    /// Nothing comes back: everything since `since`, or from the beginning, each time.
    #[serde(default)]
    pub one_way: bool,
    /// Only answer what came.
    #[serde(default)]
    pub receipt: bool,
}

/// What was packed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PackReport {
    /// For whom.
    pub to: DivisionId,
    /// Its number; 0 of a receipt.
    pub number: u64,
    /// The bundle that it goes on from.
    pub after: u64,
    /// The newest bundle of the receiver's that it acknowledges.
    pub acknowledges: Option<u64>,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Ledgers inside.
    pub ledgers: u64,
    /// Entries inside.
    pub entries: u64,
    /// SHA-256 of the manifest, hexadecimal.
    pub manifest: String,
}

/// One ledger to be written.
struct Ledger {
    range: LedgerRange,
    note: String,
    /// Sizes of earlier heads that the receiver may have been shown.
    known: Vec<u64>,
}

/// Where a bundle goes on from.
struct Base {
    after: u64,
    packed: Option<Packed>,
}

impl Registry {
    /// Writes a bundle, or a receipt, for the parent or a child.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::Locked`], [`RegistryError::Ferry`]; no file was written.
    pub fn ferry_pack(
        &self,
        session: &Session,
        request: &PackRequest,
        now: UnixMillis,
    ) -> Result<PackReport> {
        self.may(session, policy::Action::Administer, &purpose("security"))?;
        let _one = lock(&self.ferrying);
        let peer = self.neighbour(&request.to)?;
        let mut course = self.course(&request.to)?;
        let base = self.base(request, &course)?;
        let ledgers = match request.receipt {
            true => Vec::new(),
            false => self.to_pack(&peer, &course, &base)?,
        };
        let replies = self.replies(&peer, &course, now)?;
        if request.receipt && course.opened.is_empty() {
            return Err(RegistryError::BadRequest(format!(
                "还没有开过 `{0}` 的包 / nothing of `{0}` was opened here yet; there is nothing to acknowledge",
                request.to
            )));
        }
        let asked = request.since.is_some() || request.one_way || request.receipt;
        if ledgers.is_empty() && !asked && (course.packed > 0 || replies.is_empty()) {
            return Err(Refused::NothingNew { after: base.after }.into());
        }
        let number = match request.receipt {
            true => 0,
            false => course.packed + 1,
        };
        let mut manifest = self.manifest(request, &peer, &base, number, now)?;
        manifest.acknowledges = course.opened.last().map(|opened| Acknowledged {
            number: opened.number,
            manifest: Hex(opened.manifest),
        });
        let (key, sealed) = seal::ferry::seal_key(&manifest.info(), &peer.keys.seal, &mut rng()?)
            .map_err(Refused::Key)?;
        let sealed = sealed.try_into().map_err(|_| {
            RegistryError::damaged("a sealed payload key has another length than the format says")
        })?;
        manifest.payload.key = Hex(sealed);
        let mut writer = self.writer(request, number, ledgers.len())?;
        let mut sealer = Sealer::new(key);
        let mut out = Vec::new();
        for reply in replies {
            put(&mut sealer, &mut out, &mut writer, message(reply))?;
        }
        for ledger in &ledgers {
            self.write_ledger(ledger, |frame| {
                put(&mut sealer, &mut out, &mut writer, frame)
            })?;
        }
        for (origin, notes) in self.heads_to_tell(&peer, &mut crate::heads::Looked::default())? {
            let seen = Message::Seen(Seen { origin, notes });
            put(&mut sealer, &mut out, &mut writer, message(seen))?;
        }
        manifest.payload.frames = sealer.finish(&mut out);
        writer.write(&out)?;
        manifest.parts = writer.parts()?;
        if manifest.parts.len() > PARTS_MAX {
            return Err(RegistryError::BadRequest(format!(
                "要 {0} 盘，最多 {PARTS_MAX} / this takes {0} disks and may take {PARTS_MAX}; give more room with `--max-bytes`",
                manifest.parts.len()
            )));
        }
        manifest.payload.bytes = manifest.parts.iter().map(|part| part.bytes).sum();
        manifest.ledgers = ledgers.iter().map(|ledger| ledger.range.clone()).collect();
        let bytes = manifest.encode();
        // What the receiver would refuse is not written.
        Manifest::decode(&bytes).map_err(|source| Refused::Manifest {
            path: request.out.display().to_string(),
            source,
        })?;
        let signature = Manifest::sign(&bytes, &self.keys.unlocked()?.sign);
        let hash = Manifest::hash(&bytes);
        writer.compose(&bytes, signature)?;
        writer.check_names()?;
        let mut packed = packed_from(&base, &ledgers, hash, now, request.one_way);
        if !request.receipt {
            course.packed = number;
            course.packed_at = Some(now);
            course.one_way = request.one_way;
            for ledger in &ledgers {
                course.again.remove(&ledger.range.origin);
            }
            self.keep_course(&request.to, &course, Some((number, &packed)))?;
        }
        let files = writer.publish()?;
        if !request.receipt {
            packed.ready = true;
            self.keep_course(&request.to, &course, Some((number, &packed)))?;
        }
        Ok(PackReport {
            to: request.to.clone(),
            number,
            after: base.after,
            acknowledges: manifest.acknowledges.as_ref().map(|a| a.number),
            files,
            bytes: manifest.payload.bytes,
            ledgers: manifest.ledgers.len() as u64,
            entries: manifest.entries(),
            manifest: Hex(hash).to_string(),
        })
    }

    /// What the bundle goes on from: the last one whose files were written, or the one asked for.
    fn base(&self, request: &PackRequest, course: &Course) -> Result<Base> {
        let nothing = Base {
            after: 0,
            packed: None,
        };
        if request.receipt {
            return Ok(nothing);
        }
        let mut after = match (request.since, request.one_way) {
            (Some(since), _) => since,
            (None, true) => 0,
            (None, false) => course.packed,
        };
        if after > course.packed {
            return Err(RegistryError::BadRequest(format!(
                "没有装过第 {after} 包 / bundle {after} was never packed; the last is {}",
                course.packed
            )));
        }
        while after > 0 {
            match self.packed(&request.to, after)? {
                Some(packed) if packed.ready => {
                    return Ok(Base {
                        after,
                        packed: Some(packed),
                    });
                }
                // Killed before its files had their names: nobody opens it.
                Some(packed) => after = packed.after,
                None if request.since.is_some() => {
                    return Err(RegistryError::BadRequest(format!(
                        "不再记得第 {after} 包 / bundle {after} is not remembered any more; use `--since 0`"
                    )));
                }
                None => after = 0,
            }
        }
        Ok(nothing)
    }

    fn to_pack(&self, peer: &Charter, course: &Course, base: &Base) -> Result<Vec<Ledger>> {
        let mut ledgers = Vec::new();
        // Heads that later bundles had: the receiver may hold one of them, if it opened half of such.
        let mut later = Vec::new();
        for number in (base.after + 1..=course.packed).rev().take(EXTENDS_MAX) {
            later.extend(self.packed(&peer.division, number)?);
        }
        // Whoever showed less of its own ledger than it signed is given the rest.
        for (origin, bytes) in &course.rejected {
            if let Ok(Message::Rejected(rejected)) = Message::decode(bytes)
                && rejected.code == RejectCode::Shorter
            {
                self.owner_is_behind(origin);
            }
        }
        for (origin, note) in self.offers(peer)? {
            if ledgers.len() == LEDGERS_MAX {
                tracing::warn!(%origin, "more ledgers than one bundle takes; the next brings the rest");
                break;
            }
            let head = checkpoint_of(&note)?;
            let reached = base.packed.as_ref().and_then(|p| p.ledgers.get(&origin));
            let again = course.again.get(&origin).copied();
            if again.is_none() && reached == Some(&reach(head.size(), &note)) {
                continue;
            }
            let from = reached.map_or(0, |reached| reached.size);
            let from = from.min(again.unwrap_or(u64::MAX)).min(head.size());
            let mut known: Vec<u64> = later
                .iter()
                .filter_map(|packed| packed.ledgers.get(&origin))
                .map(|reached| reached.size)
                .filter(|size| (from + 1..head.size()).contains(size))
                .collect();
            known.sort_unstable();
            known.dedup();
            ledgers.push(Ledger {
                range: LedgerRange {
                    origin,
                    from,
                    to: head.size(),
                    root: Hex(*head.root()),
                },
                note,
                known,
            });
        }
        Ok(ledgers)
    }

    fn manifest(
        &self,
        request: &PackRequest,
        peer: &Charter,
        base: &Base,
        number: u64,
        now: UnixMillis,
    ) -> Result<Manifest> {
        let chain = self.chain()?;
        let own = chain
            .first()
            .ok_or_else(|| RegistryError::NoCharter(self.config.division.clone()))?;
        let hex = |charter: &Charter| data_encoding::HEXLOWER.encode(&charter.encode());
        Ok(Manifest {
            format: FORMAT,
            kind: match request.receipt {
                true => Kind::Receipt,
                false => Kind::Bundle,
            },
            realm: self.config.realm.clone(),
            from: Party {
                division: own.division.clone(),
                charter: Hex(own.id()),
            },
            to: Party {
                division: peer.division.clone(),
                charter: Hex(peer.id()),
            },
            number,
            after: base.after,
            previous: base.packed.as_ref().map(|packed| Hex(packed.manifest)),
            one_way: request.one_way,
            made: now,
            acknowledges: None,
            ledgers: Vec::new(),
            payload: Payload {
                suite: SUITE,
                key: Hex([0; seal::ferry::SEALED_KEY_BYTES]),
                bytes: 0,
                frames: 0,
            },
            parts: Vec::new(),
            chain: chain.iter().map(hex).collect(),
        })
    }

    fn writer(&self, request: &PackRequest, number: u64, ledgers: usize) -> Result<Writer> {
        if !request.out.is_absolute() {
            return Err(RegistryError::BadRequest(
                "`out` 须是绝对路径 / `out` must be an absolute path".into(),
            ));
        }
        let (dir, name) = if request.out.is_dir() {
            let what = match request.receipt {
                true => format!("receipt-{}", self.course(&request.to)?.opened_last()),
                false => number.to_string(),
            };
            let own = &self.config.division;
            let name = format!("{own}-{}-{what}.ferry", request.to);
            (request.out.clone(), name)
        } else {
            let name = request.out.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| {
                RegistryError::BadRequest("`out` 不是文件名 / `out` names no file".into())
            })?;
            // A folder that is not there, such as a disk that is not mounted, names no file.
            if request.out.extension().is_none() {
                return Err(RegistryError::BadRequest(format!(
                    "没有文件夹 `{0}`；写成文件须带扩展名 / there is no folder `{0}`: mount or make it first; a file to write has an extension, as in `{0}.ferry`",
                    request.out.display()
                )));
            }
            let dir = request.out.parent().unwrap_or(Path::new("/"));
            (dir.to_owned(), name.to_owned())
        };
        self.refuse_own_place(&dir)?;
        let path = dir.join(&name);
        if path.symlink_metadata().is_ok() {
            return Err(exists(&path).into());
        }
        let Some(max) = request.max_bytes else {
            return Ok(Writer::new(&dir, &name, u64::MAX));
        };
        // Each file carries the whole manifest, whose length is known once all are written.
        let clear =
            FIXED_BYTES + PART_LINE_BYTES * PARTS_MAX as u64 + LEDGER_LINES_BYTES * ledgers as u64;
        if max < PART_BYTES_MIN || max <= clear {
            return Err(RegistryError::BadRequest(format!(
                "每盘至少 {0} 字节 / a disk needs room for {0} bytes; give more with `--max-bytes`",
                PART_BYTES_MIN.max(clear + 1)
            )));
        }
        Ok(Writer::new(&dir, &name, max - clear))
    }

    /// A bundle never lies among the files that this node lives on.
    fn refuse_own_place(&self, dir: &Path) -> Result<()> {
        let canonical = |path: &Path| {
            path.canonicalize()
                .map_err(|e| RegistryError::file(path, e))
        };
        let (at, own) = (canonical(dir)?, canonical(self.files.dir())?);
        if at.starts_with(&own) || at.starts_with(self.guard.folder()) {
            return Err(RegistryError::BadRequest(
                "不能写入节点自己的目录 / `out` lies in this node's own directory; name another folder".into(),
            ));
        }
        Ok(())
    }

    /// The ledger as a session would send it: offer, then entries up to the head.
    fn write_ledger(
        &self,
        ledger: &Ledger,
        mut put: impl FnMut(Frame) -> Result<()>,
    ) -> Result<()> {
        let LedgerRange {
            origin, from, to, ..
        } = &ledger.range;
        let offer = Offer {
            origin: origin.clone(),
            note: ledger.note.clone(),
        };
        put(message(Message::Offer(offer)))?;
        for known_size in &ledger.known {
            let tiles = Tiles {
                store: self.store.as_ref(),
                origin,
            };
            let proof = ledger::proof::consistency(&tiles, *known_size, *to)
                .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
            put(Frame::Extends(Extends {
                origin: origin.clone(),
                known_size: *known_size,
                proof: proof.concat(),
            }))?;
        }
        let mut at = *from;
        while at < *to {
            let loaded = self.load(&Load {
                origin: origin.clone(),
                from: at,
                head_size: *to,
                known_size: None,
                max_bytes: CHUNK_BYTES_MAX,
            })?;
            at += loaded.items.len() as u64;
            put(message(Message::Entries(Entries {
                origin: loaded.origin,
                head_size: loaded.head_size,
                first: loaded.from,
                items: loaded.items,
                proof: loaded.proof,
                extends: Vec::new(),
            })))?;
        }
        Ok(())
    }

    /// What is answered to a neighbour: how much of each ledger that it brought is held here, with
    /// this node's signatures if it is a child, and what was not taken.
    fn replies(&self, peer: &Charter, course: &Course, now: UnixMillis) -> Result<Vec<Message>> {
        let mut replies = Vec::new();
        for (origin, offered) in &course.brought {
            let head = Head::read(self.store.as_ref(), origin)?;
            let rejected = course.rejected.get(origin);
            match rejected.and_then(|bytes| Message::decode(bytes).ok()) {
                Some(Message::Rejected(rejected))
                    if rejected.code == RejectCode::Shorter || head.size < *offered =>
                {
                    replies.push(Message::Rejected(rejected));
                    continue;
                }
                _ => {}
            }
            let Some(note) = &head.whole else { continue };
            let size = checkpoint_of(note)?.size();
            let from_child = peer.parent == self.config.division;
            let signed = match from_child && size == head.size {
                true => self.sign_whole(origin, &head, note, now),
                false => Ok((size, Vec::new())),
            };
            match signed {
                Ok((size, lines)) => replies.push(Message::Cosigned(Cosigned {
                    origin: origin.clone(),
                    size,
                    lines,
                })),
                Err(RegistryError::Locked) => return Err(RegistryError::Locked),
                Err(error) => {
                    tracing::warn!(%origin, %error, "a head was not cosigned; the next receipt tries again");
                }
            }
        }
        Ok(replies)
    }

    fn sign_whole(
        &self,
        origin: &Origin,
        head: &Head,
        note: &str,
        now: UnixMillis,
    ) -> Result<(u64, Vec<String>)> {
        let store = self.store.as_ref();
        let damaged =
            |e: &dyn std::fmt::Display| RegistryError::damaged(format!("`{origin}`: {e}"));
        let edge = TreeEdge::load(&Tiles { store, origin }, head.size).map_err(|e| damaged(&e))?;
        let log = self.log_verifier(origin, note)?;
        let frontier = edge.frontier();
        let verified = verify::extension(frontier, &[], note.as_bytes(), &log, origin.as_str())
            .map_err(|e| damaged(&e))?;
        self.cosign(&verified, now)
    }
}

fn message(message: Message) -> Frame {
    Frame::Message(Box::new(message))
}

fn put(sealer: &mut Sealer, out: &mut Vec<u8>, writer: &mut Writer, frame: Frame) -> Result<()> {
    sealer.frame(&frame, out);
    writer.write(out)?;
    out.clear();
    Ok(())
}

fn reach(size: u64, note: &str) -> Reached {
    let hash = Sha256::digest(note);
    let mut begin = [0; 8];
    begin.copy_from_slice(&hash[..8]);
    Reached { size, note: begin }
}

fn packed_from(
    base: &Base,
    ledgers: &[Ledger],
    manifest: [u8; 32],
    made: UnixMillis,
    one_way: bool,
) -> Packed {
    let before = base.packed.as_ref();
    let mut reached: BTreeMap<Origin, Reached> =
        before.map_or_else(BTreeMap::new, |packed| packed.ledgers.clone());
    for ledger in ledgers {
        let range = &ledger.range;
        reached.insert(range.origin.clone(), reach(range.to, &ledger.note));
    }
    Packed {
        after: base.after,
        manifest,
        made,
        ready: false,
        one_way,
        ledgers: reached,
    }
}
