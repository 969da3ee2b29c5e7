//! Opening: everything is checked before anything is changed, then each message goes through a
//! session as if the sender were on the line.
//!
//! The first pass reads all files: lengths, hashes, signature, charters, number, every chunk, every
//! frame. The second gives them to [`sync::Session`], which verifies what a neighbour's word is not
//! enough for; each chunk of entries is one commit. Killed between two, the same command goes on.
//! Refuses what a session refuses, ledger by ledger, and remembers it for the receipt.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use ferry::manifest::Kind;
use ferry::{Contents, Frame, Hex, Manifest, Opener};
use ledger::evidence::{Evidence, Form};
use ledger::hash::Hash;
use ledger::tile::TreeEdge;
use minicbor::bytes::ByteVec;
use record::authority::Charter;
use record::id::{DivisionId, Origin, UnixMillis};
use serde::{Deserialize, Serialize};
use sync::Message;
use sync::code::RejectCode;
use sync::message::{Entries, Hello, Offer, Rejected, Want};
use sync::output::Output;
use sync::session::Config;

use super::files::{self, Files};
use super::{Course, Opened, REMEMBERED, Refused};
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::node::{Registry, lock, private_directory, purpose};
use crate::session::Session;
use crate::table::{self, Head, Tiles};

/// What is to be opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// Absolute paths of a bundle's files, in any order.
    pub files: Vec<PathBuf>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenReport {
    /// Who sent it.
    pub from: DivisionId,
    /// `bundle` or `receipt`.
    pub kind: String,
    /// Its number; 0 of a receipt.
    pub number: u64,
    /// Whether it was opened before, so that nothing was done.
    pub repeated: bool,
    /// Entries that were new here.
    pub entries: u64,
    /// The newest bundle packed here that it acknowledges.
    pub acknowledged: Option<u64>,
    /// Its ledgers.
    pub ledgers: Vec<OpenedLedger>,
}

/// One ledger of an opened bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenedLedger {
    /// Which.
    pub origin: Origin,
    /// Size of the head that came.
    pub size: u64,
    /// Entries held here.
    pub held: u64,
    /// Why not more, in words.
    pub error: Option<String>,
}

impl Registry {
    /// Takes in a bundle or a receipt for this node.
    ///
    /// # Errors
    /// [`RegistryError::Ferry`]: nothing was changed. [`RegistryError::Store`]: what was kept until
    /// then stays; open it again. [`RegistryError::Denied`], [`RegistryError::Locked`].
    pub fn ferry_open(
        &self,
        session: &Session,
        request: &OpenRequest,
        now: UnixMillis,
    ) -> Result<OpenReport> {
        self.may(session, policy::Action::Administer, &purpose("security"))?;
        if !request.files.iter().all(|path| path.is_absolute()) {
            return Err(RegistryError::BadRequest(
                "须用绝对路径 / the files must be absolute paths".into(),
            ));
        }
        let _one = lock(&self.ferrying);
        let mut files = Files::read(&request.files)?;
        let (line, sender) = self.line_of(&files.manifest, now)?;
        let course = self.course(&sender.division)?;
        if self.was_opened(&files, &course)? {
            return Ok(OpenReport {
                repeated: true,
                ..report(&files.manifest)
            });
        }
        files.check_parts()?;
        self.gather(&mut files)?;
        let key = seal::ferry::open_key(
            &files.manifest.info(),
            &self.keys.seal_private()?,
            &files.manifest.payload.key.0,
        )
        .map_err(Refused::Key)?;
        self.look_through(&files, key.duplicate())?;

        let mut unloading = Unloading {
            registry: self,
            line,
            now,
            report: report(&files.manifest),
            course,
            want: None,
            proofs: BTreeMap::new(),
            noted: BTreeMap::new(),
        };
        each_frame(&files, key, |frame| unloading.frame(frame))?;
        let Unloading {
            line,
            mut report,
            mut course,
            mut noted,
            ..
        } = unloading;
        self.acknowledge(&files.manifest, &mut course, &mut report, now)?;
        for range in &files.manifest.ledgers {
            let origin = &range.origin;
            let held = Head::read(self.store.as_ref(), origin)?.size;
            let brought = course.brought.entry(origin.clone()).or_default();
            *brought = range.to.max(*brought);
            if held >= range.to && !noted.contains_key(origin) {
                course.rejected.remove(origin);
            }
            report.ledgers.push(OpenedLedger {
                origin: origin.clone(),
                size: range.to,
                held,
                error: noted.remove(origin),
            });
        }
        if files.manifest.kind == Kind::Bundle {
            course.opened.push(Opened {
                number: files.manifest.number,
                manifest: files.hash,
                at: now,
            });
            let surplus = course.opened.len().saturating_sub(REMEMBERED);
            course.opened.drain(..surplus);
        }
        self.keep_course(&sender.division, &course, None)?;
        let bytes = (0, files.manifest.payload.bytes);
        self.peer_stands(sender.division.as_str(), line.status(), bytes, true, now);
        self.clear_kept(&files);
        self.changed();
        Ok(report)
    }

    /// A session with the sender, open because its signature under the manifest says who it is.
    fn line_of(
        &self,
        manifest: &Manifest,
        now: UnixMillis,
    ) -> Result<(sync::session::Session, Charter)> {
        let own = &self.config.division;
        if manifest.to.division != *own || manifest.realm != self.config.realm {
            return Err(Refused::WrongReceiver {
                to: manifest.to.division.clone(),
                own: own.clone(),
            }
            .into());
        }
        let chain = self.chain()?;
        if chain
            .first()
            .is_none_or(|c| c.id() != manifest.to.charter.0)
        {
            return Err(Refused::OtherCharter.into());
        }
        let charters = manifest.charters().map_err(|source| Refused::Manifest {
            path: String::new(),
            source,
        })?;
        let Some(sender) = charters.first().cloned() else {
            return Err(RegistryError::NoCharter(manifest.from.division.clone()));
        };
        let mut line = sync::session::Session::listen(Config {
            realm: self.config.realm.clone(),
            chain,
            peer_key: sender.keys.transport,
        });
        let hello = Message::Hello(Hello {
            realm: manifest.realm.clone(),
            chain: charters,
            now,
        });
        for output in line.receive(&hello.encode(), now, self) {
            if let Output::Refused { code, reason, .. } = output {
                self.count_refusal(code.as_str(), 1);
                return Err(Refused::Sender {
                    from: sender.division,
                    reason,
                }
                .into());
            }
        }
        Ok((line, sender))
    }

    /// Whether the bundle was opened before; refuses one that cannot be next.
    fn was_opened(&self, files: &Files, course: &Course) -> Result<bool> {
        let manifest = &files.manifest;
        if manifest.kind == Kind::Receipt {
            return Ok(false);
        }
        let (number, after, last) = (manifest.number, manifest.after, course.opened_last());
        let from = manifest.from.division.clone();
        let hash_of = |number: u64| {
            let mut opened = course.opened.iter();
            opened
                .find(|opened| opened.number == number)
                .map(|o| o.manifest)
        };
        if number <= last {
            return match hash_of(number) {
                Some(hash) if hash != files.hash => {
                    Err(Refused::OtherHistory { from, number }.into())
                }
                _ => Ok(true),
            };
        }
        if after > last {
            let missing = match after - last {
                1 => after.to_string(),
                _ => format!("{}-{after}", last + 1),
            };
            return Err(Refused::Gap {
                from,
                missing,
                after,
                opened: last,
            }
            .into());
        }
        match (hash_of(after), &manifest.previous) {
            (Some(known), Some(Hex(named))) if known != *named => Err(Refused::OtherHistory {
                from,
                number: after,
            }
            .into()),
            _ => Ok(false),
        }
    }

    fn kept_dir(&self, hash: &Hash) -> PathBuf {
        let ferry = self.files.dir().join("ferry");
        ferry.join(data_encoding::HEXLOWER.encode(hash))
    }

    /// Adds the parts that were given before. When some are still missing, those given are kept.
    fn gather(&self, files: &mut Files) -> Result<()> {
        let dir = self.kept_dir(&files.hash);
        let kept: Vec<PathBuf> = std::fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|e| e == "part"))
            .collect();
        if !kept.is_empty() {
            let kept = Files::read(&kept)?;
            // Copied by this program, and a medium may fail all the same.
            kept.check_parts()?;
            if kept.hash == files.hash {
                files.add(kept);
            }
        }
        let missing = files.missing();
        if missing.is_empty() {
            return Ok(());
        }
        private_directory(&dir)?;
        for (part, path) in files.parts() {
            if !path.starts_with(&dir) {
                files::keep(path, &dir.join(format!("{part:05}.part")))?;
            }
        }
        let numbers: Vec<String> = missing.iter().map(u32::to_string).collect();
        Err(Refused::MissingPart {
            missing: numbers.join(", "),
            of: files.manifest.parts.len(),
            kept: true,
        }
        .into())
    }

    /// Removes what was kept of this bundle, and of earlier ones of its sender.
    fn clear_kept(&self, files: &Files) {
        let all = std::fs::read_dir(self.files.dir().join("ferry"));
        for dir in all.into_iter().flatten().flatten().map(|dir| dir.path()) {
            let parts = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            let parts: Vec<PathBuf> = parts.map(|part| part.path()).collect();
            let is_over = match Files::read(&parts) {
                Ok(kept) => {
                    kept.hash == files.hash
                        || (kept.manifest.from.division == files.manifest.from.division
                            && kept.manifest.number <= files.manifest.number)
                }
                // An interrupted copy.
                Err(_) => false,
            };
            if is_over && let Err(error) = std::fs::remove_dir_all(&dir) {
                tracing::warn!(%error, "parts that were kept could not be removed");
            }
        }
    }

    /// The first pass: that every chunk opens and every frame is what the manifest declares.
    fn look_through(&self, files: &Files, key: seal::secret::FerryKey) -> Result<()> {
        let mut contents = Contents::new(&files.manifest);
        each_frame(files, key, |frame| {
            Ok(contents.take(&frame).map_err(Refused::Contents)?)
        })?;
        contents.finish().map_err(Refused::Contents)?;
        Ok(())
    }

    /// Learns what the sender opened of what was packed here.
    fn acknowledge(
        &self,
        manifest: &Manifest,
        course: &mut Course,
        report: &mut OpenReport,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(acknowledged) = &manifest.acknowledges else {
            return Ok(());
        };
        let (number, peer) = (acknowledged.number, &manifest.from.division);
        if number > course.packed {
            // This node was restored from an old copy: its numbers go on where they were.
            tracing::warn!(%peer, number, "a bundle is acknowledged that is not remembered here");
            course.packed = number;
            course.packed_at.get_or_insert(now);
        } else if let Some(packed) = self.packed(peer, number)?
            && packed.manifest != acknowledged.manifest.0
        {
            tracing::warn!(%peer, number, "another bundle of this number is acknowledged; pack again with `--since 0`");
            return Ok(());
        }
        report.acknowledged = Some(number);
        if number > course.acknowledged {
            course.acknowledged = number;
            course.acknowledged_at = Some(now);
        }
        Ok(())
    }

    /// A checkpoint of a ledger of exactly this size, for the sender to look a cosignature up by.
    fn note_of(&self, origin: &Origin, size: u64) -> Result<Option<String>> {
        let store = self.store.as_ref();
        if origin.division() == self.config.division {
            let book = self.book(origin)?;
            let book = lock(&book);
            if size > book.size() {
                return Ok(None);
            }
            let note = book.checkpoint_at(store, size, &self.keys.unlocked()?.sign)?;
            return Ok(Some(note));
        }
        let head = Head::read(store, origin)?;
        for note in head.whole.into_iter().chain(head.cosigned) {
            if checkpoint_of(&note)?.size() == size {
                return Ok(Some(note));
            }
        }
        let note = store.get(&table::note(origin, size))?;
        Ok(note.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether a head is one that this ledger went through here.
    fn went_through(&self, origin: &Origin, size: u64, root: &Hash) -> Result<bool> {
        let store = self.store.as_ref();
        let edge = TreeEdge::load(&Tiles { store, origin }, size)
            .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
        Ok(edge.frontier().root() == *root)
    }
}

fn report(manifest: &Manifest) -> OpenReport {
    OpenReport {
        from: manifest.from.division.clone(),
        kind: match manifest.kind {
            Kind::Bundle => "bundle".into(),
            Kind::Receipt => "receipt".into(),
        },
        number: manifest.number,
        repeated: false,
        entries: 0,
        acknowledged: None,
        ledgers: Vec::new(),
    }
}

fn each_frame(
    files: &Files,
    key: seal::secret::FerryKey,
    mut act: impl FnMut(Frame) -> Result<()>,
) -> Result<()> {
    let mut opener = Opener::new(key, files.manifest.payload.bytes);
    let mut stream = files.stream();
    let mut chunk = Vec::new();
    loop {
        while let Some(frame) = opener.frame().map_err(Refused::Payload)? {
            act(frame)?;
        }
        if opener.wants() == 0 {
            return Ok(());
        }
        chunk.resize(opener.wants(), 0);
        stream.read_exact(&mut chunk)?;
        opener.chunk(&chunk).map_err(Refused::Payload)?;
    }
}

/// The second pass.
struct Unloading<'r> {
    registry: &'r Registry,
    line: sync::session::Session,
    now: UnixMillis,
    report: OpenReport,
    course: Course,
    /// What the session asked for and the next entries answer.
    want: Option<Want>,
    /// Proofs from earlier heads of the ledger offered last.
    proofs: BTreeMap<u64, Vec<Hash>>,
    /// Why a ledger was not taken to its end.
    noted: BTreeMap<Origin, String>,
}

impl Unloading<'_> {
    fn frame(&mut self, frame: Frame) -> Result<()> {
        match frame {
            Frame::Extends(extends) => {
                self.proofs.insert(extends.known_size, extends.hashes());
                Ok(())
            }
            Frame::Message(message) => match *message {
                Message::Offer(offer) => self.offer(offer),
                Message::Entries(entries) => self.entries(entries),
                Message::Cosigned(cosigned) => {
                    let size = cosigned.size;
                    self.offer_again(
                        &cosigned.origin,
                        (!cosigned.lines.is_empty()).then_some(size),
                    )?;
                    self.receive(&Message::Cosigned(cosigned))
                }
                Message::Rejected(rejected) => {
                    self.offer_again(&rejected.origin, None)?;
                    self.receive(&Message::Rejected(rejected))
                }
                other => self.receive(&other),
            },
        }
    }

    fn receive(&mut self, message: &Message) -> Result<()> {
        let outputs = self
            .line
            .receive(&message.encode(), self.now, self.registry);
        self.perform(outputs)
    }

    fn offer(&mut self, offer: Offer) -> Result<()> {
        self.want = None;
        self.proofs.clear();
        let head = checkpoint_of(&offer.note)?;
        let held = Head::read(self.registry.store.as_ref(), &offer.origin)?;
        // A line may have been faster than the disk: that is no rewritten history. But an earlier
        // disk was not, and a sender that showed more on it was restored from an old copy.
        let brought = self.course.brought.get(&offer.origin).copied();
        if head.size() < held.size
            && brought.is_none_or(|brought| brought <= head.size())
            && self
                .registry
                .went_through(&offer.origin, head.size(), head.root())?
        {
            return Ok(());
        }
        let target = held.target.as_deref().map(checkpoint_of).transpose()?;
        if target.is_some_and(|target| target.size() > head.size()) {
            let words = "一次未完的传输在等更新的账头 / a transfer that was cut off waits for a newer head; open the bundle or the line that showed it";
            let (origin, size) = (offer.origin, held.size);
            self.not_taken(origin, size, words);
            return Ok(());
        }
        self.receive(&Message::Offer(offer))
    }

    /// Answers what the session wants from what the file has.
    fn entries(&mut self, mut entries: Entries) -> Result<()> {
        let Some(want) = self.want.as_ref().filter(|w| w.origin == entries.origin) else {
            return Ok(());
        };
        let end = entries.first + entries.items.len() as u64;
        if end <= want.from {
            return Ok(());
        }
        let known = want.known_size.map(|size| self.proofs.get(&size).cloned());
        let why = if entries.first > want.from {
            Some(
                "本包起点之前缺条目 / entries before those of this bundle are missing here; let the sender pack with an earlier `--since`",
            )
        } else if known == Some(None) {
            Some(
                "一次未完的传输在等另一账头 / a transfer that was cut off waits for another head; open the bundle that had it",
            )
        } else {
            None
        };
        let from = want.from;
        self.want = None;
        if let Some(words) = why {
            let rejected = self.not_taken(entries.origin, from, words);
            // The session need not wait for it.
            return self.receive(&rejected);
        }
        let skip = usize::try_from(from - entries.first).unwrap_or(usize::MAX);
        entries.items.drain(..skip);
        entries.first = from;
        entries.extends = known.flatten().unwrap_or_default();
        self.receive(&Message::Entries(entries))
    }

    /// Remembers for the receipt that a ledger did not come to its end here.
    fn not_taken(&mut self, origin: Origin, size: u64, words: &str) -> Message {
        let reject = |origin: Origin| {
            Message::Rejected(Rejected {
                origin,
                code: RejectCode::Unavailable,
                size,
                reason: words.to_owned(),
                note: None,
            })
        };
        self.noted.insert(origin.clone(), words.to_owned());
        let message = reject(origin.clone());
        self.course
            .rejected
            .insert(origin, ByteVec::from(message.encode()));
        message
    }

    /// Shows the session what was packed for the sender, as it answers that.
    fn offer_again(&mut self, origin: &Origin, size: Option<u64>) -> Result<()> {
        let note = match size {
            Some(size) => self.registry.note_of(origin, size)?,
            None => Head::read(self.registry.store.as_ref(), origin)?.whole,
        };
        if let Some(note) = note {
            // What it would send is in the bundle that is answered.
            let _ = self.line.offer(origin.clone(), note);
        }
        Ok(())
    }

    fn perform(&mut self, outputs: Vec<Output>) -> Result<()> {
        let mut outputs = VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            for output in self.one(output)?.into_iter().rev() {
                outputs.push_front(output);
            }
        }
        Ok(())
    }

    fn one(&mut self, output: Output) -> Result<Vec<Output>> {
        let (registry, now) = (self.registry, self.now);
        match output {
            Output::Send(bytes) => self.sent(&bytes.0),
            Output::Store(delivery) => {
                let origin = delivery.origin().clone();
                let count = delivery.items().len() as u64;
                match registry.keep(*delivery, now) {
                    Ok(size) => {
                        self.report.entries += count;
                        return Ok(self.line.stored(&origin, size, registry));
                    }
                    // An act that nobody was entitled to: the ledger's trouble, not the disk's.
                    Err(error @ RegistryError::Damaged { .. }) => {
                        let words = error.to_string();
                        return Ok(self.line.not_stored(&origin, &words, registry));
                    }
                    Err(error) => return Err(error),
                }
            }
            Output::Cosign { origin, verified } => match registry.cosign(&verified, now) {
                Ok((size, lines)) => return Ok(self.line.cosigned(&origin, size, lines)),
                Err(RegistryError::Conflict(_)) => {}
                Err(error) => {
                    tracing::warn!(%origin, %error, "a head was not cosigned; the receipt tries again");
                }
            },
            Output::Cosigned {
                origin,
                size,
                lines,
            } => {
                registry.cosigned(&origin, size, &lines, now)?;
                self.course.again.remove(&origin);
            }
            Output::Fork { origin, evidence } => {
                registry.count_refusal("fork", 1);
                registry.fork(&origin, signed_notes(&evidence), now);
            }
            Output::Seen {
                origin,
                checkpoint,
                note,
            } => registry.head_seen(&origin, &checkpoint, &note, now)?,
            Output::Alarm {
                origin,
                code,
                reason,
                ..
            } => {
                registry.count_refusal(code.as_str(), 1);
                if code == RejectCode::Shorter {
                    registry.owner_is_behind(&origin);
                }
                registry.alarm(&origin, code.as_str(), &reason, Vec::new(), now);
            }
            Output::Declined { code, .. } => registry.count_refusal(code.as_str(), 1),
            Output::Rejected {
                origin,
                code,
                size,
                reason,
                note,
            } => {
                let told =
                    code == RejectCode::Shorter && registry.told_of_more(&origin, note.as_deref());
                let passing = [RejectCode::NotAccepted, RejectCode::Unavailable].contains(&code);
                if !told && !passing {
                    let words = format!("the peer rejects this ledger: {reason}");
                    let code = format!("rejected-{}", code.as_str());
                    registry.alarm(&origin, &code, &words, Vec::new(), now);
                }
                // The next bundle goes on from what it has.
                self.course.again.insert(origin, size);
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    /// What a session sends, a file cannot answer at once: a want is answered from the file, the rest
    /// is for the receipt.
    fn sent(&mut self, bytes: &[u8]) {
        match Message::decode(bytes) {
            Ok(Message::Want(want)) => self.want = Some(want),
            Ok(Message::Rejected(rejected)) => {
                self.noted
                    .insert(rejected.origin.clone(), rejected.reason.clone());
                self.course
                    .rejected
                    .insert(rejected.origin, ByteVec::from(bytes.to_vec()));
            }
            Ok(Message::Cosigned(cosigned)) => {
                self.course.rejected.remove(&cosigned.origin);
            }
            _ => {}
        }
    }
}

/// The signed checkpoints of a piece of evidence.
fn signed_notes(evidence: &Evidence) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match evidence.form() {
        Form::Roots { notes } => notes.iter().map(|note| text(note)).collect(),
        Form::Leaves { proofs, .. } => proofs.iter().map(|proof| text(proof.note())).collect(),
    }
}
