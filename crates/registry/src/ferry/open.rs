//! Opening: everything is checked before anything is changed, then each message goes through a
//! session as if the sender were on the line.
//!
//! The first pass reads all files: lengths, hashes, signature, charters, number, every chunk, every
//! frame. The second gives them to [`sync::Session`], which verifies what a neighbour's word is not
//! enough for; each chunk of entries is one commit. Killed between two, the same command goes on.
//! Refuses what a session refuses, ledger by ledger, and remembers it for the receipt.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ferry::manifest::Kind;
use ferry::{Contents, Frame, Hex, Manifest, Opener};
use ledger::hash::Hash;
use record::authority::Charter;
use record::id::{DivisionId, Origin, UnixMillis};
use serde::{Deserialize, Serialize};
use sync::Message;
use sync::message::Hello;
use sync::output::Output;
use sync::session::Config;

use super::files::{self, Files};
use super::unload::Unloading;
use super::{Course, Opened, REMEMBERED, Refused};
use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock, private_directory, purpose};
use crate::session::Session;
use crate::table::Head;

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
        // Before all else: an altered copy of what was opened long ago is still an altered file.
        files.check_parts()?;
        if self.was_opened(&files, &course)? {
            return Ok(OpenReport {
                repeated: true,
                ..report(&files.manifest)
            });
        }
        self.gather(&mut files)?;
        let (info, sealed) = (files.manifest.info(), &files.manifest.payload.key.0);
        let keys = self.keys.unlocked()?;
        let key = keys
            .with_seal(|own| seal::ferry::open_key(&info, own, sealed))
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
            successions: sync::message::Successions::default(),
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
