//! Replication: which ledgers go to whom, and what comes in is verified before it is kept.
//!
//! Up go all ledgers of the own subtree, with bodies. Down go the authority ledgers that are needed
//! there, and a grant's ledger toward its holder. `sync` verifies; here is what it asks, and the one
//! commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::checkpoint::{Checkpoint, add_signature_line, verify_cosignature};
use ledger::hash::leaf_hash;
use ledger::note::{KeyKind, Note, NoteSigner, SignatureLine, Verifier};
use ledger::tile::{TreeEdge, plan_append};
use ledger::verify::Verified;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use record::authority::{Charter, DivisionCode, Level, NodeKeys, Revocation, Statement};
use record::cbor;
use record::entry::{Entry, Operation, SUITE};
use record::id::{DivisionId, Hash, Kind, Origin, Realm, RecordId, UnixMillis};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::Batch;
use subtle::ConstantTimeEq;
use sync::chunk::Delivery;
use sync::message::{Gone, Item, fill};
use sync::output::{Load, Loaded};
use sync::trust::{Accept, Held, Refusal, Tail, Trust};

use crate::addresses::{Addresses, AddressesError};
use crate::arrived::Arrived;
use crate::book::commit;
use crate::chain;
use crate::config::ParentAddress;
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::heads::Line;
use crate::keys::rng;
use crate::node::{CHARTER_MILLIS, Registry, lock, purpose};
use crate::reach::Reach;
use crate::session::Session;
use crate::table::{self, Head, LOCAL, Newest, Tiles};

/// Invitations last a week.
pub const INVITATION_MILLIS: u64 = 7 * 24 * 3600 * 1000;
/// The most alarms kept of one ledger.
const ALARMS_MAX: usize = 64;

/// What is known of the nodes talked to, for the status page. Lines are lost at a restart.
#[derive(Debug, Default)]
pub struct Peers {
    pub(crate) lines: BTreeMap<String, PeerLine>,
    /// Ledgers of which their owner showed less than is held here: it is given the rest.
    pub(crate) behind: BTreeSet<Origin>,
    /// What each holds; of a chartered neighbour only, and kept over a restart.
    pub(crate) reaches: BTreeMap<String, Reach>,
}

/// The most peers remembered.
const PEERS_MAX: usize = 4096;

impl Peers {
    pub(crate) fn with(reaches: BTreeMap<String, Reach>) -> Self {
        Self {
            reaches,
            ..Self::default()
        }
    }

    /// What a peer holds, unless there are too many to remember it.
    pub(crate) fn reach(&mut self, peer: &str) -> Option<&mut Reach> {
        if !self.reaches.contains_key(peer) && self.reaches.len() >= PEERS_MAX {
            return None;
        }
        Some(self.reaches.entry(peer.to_owned()).or_default())
    }
}

/// One node talked to, or refused.
#[derive(Debug, Clone, Serialize)]
pub struct PeerLine {
    /// The division, or the transport key's first digits when it is not known.
    pub peer: String,
    /// Whether a session is open.
    pub connected: bool,
    /// When that last changed.
    pub since: UnixMillis,
    /// The last refusal or fault, in words.
    pub last_error: Option<String>,
    /// Sessions refused, by either side.
    pub refused: u64,
}

/// What a parent hands to a node that is to join: a file, to be carried by hand.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invitation {
    /// The version of this file.
    pub format: u32,
    /// The realm.
    pub realm: Realm,
    /// The realm root's `sign` key, hexadecimal.
    pub root: String,
    /// Where and who the parent is.
    pub parent: ParentAddress,
    /// The division that the node is to be.
    pub division: DivisionId,
    /// Its Chinese name.
    pub name: String,
    /// Its level.
    pub level: Level,
    /// The realm's quorum of cosignatures.
    pub quorum: u32,
    /// The one-time secret, hexadecimal.
    pub secret: String,
    /// Valid until.
    pub expires: UnixMillis,
    /// Whether an invitation that nobody had used is void from here on; told to the officer, not
    /// written to the file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces: bool,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation")
            .field("realm", &self.realm)
            .field("division", &self.division)
            .finish_non_exhaustive()
    }
}

/// What a security officer says of a node that is to join.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewInvitation {
    /// The division.
    pub division: DivisionId,
    /// Its Chinese name.
    pub name: String,
    /// Its level.
    pub level: Level,
    /// Official codes.
    #[serde(default)]
    pub codes: Vec<DivisionCode>,
    /// Where the parent is reached by the new node, see [`crate::addresses`]. QUIC is added where
    /// the parent listens for it and this names none.
    pub address: String,
}

/// What the parent keeps of an invitation: the secret's hash only.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(crate) struct Invited {
    #[n(0)]
    division: DivisionId,
    #[n(1)]
    name: String,
    #[n(2)]
    level: Level,
    #[n(3)]
    codes: Vec<DivisionCode>,
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(crate) secret_hash: Hash,
    #[n(5)]
    pub(crate) expires: UnixMillis,
    /// The transport key that used it: the same node may ask again when the answer was lost.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub(crate) used_by: Option<[u8; 32]>,
    /// Secrets' hashes of the invitations that this one replaced, at most [`REPLACED_MAX`].
    #[n(7)]
    #[cbor(default)]
    replaced: Vec<ByteArray<32>>,
}

/// How many invitations that were replaced are told apart from wrong ones.
const REPLACED_MAX: usize = 8;

/// Something about a ledger that an officer must look at. Kept until the ledger is mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[cbor(map)]
pub struct Alarm {
    /// Which ledger.
    #[n(0)]
    pub origin: Origin,
    /// A stable word, such as `mismatch` or `fork`.
    #[n(1)]
    pub code: String,
    /// In words.
    #[n(2)]
    pub reason: String,
    /// First seen.
    #[n(3)]
    pub at: UnixMillis,
    /// Of a fork: the two signed checkpoints, evidence for anybody.
    #[n(4)]
    pub notes: Vec<String>,
}

/// How many rows likely fill what is left of a message, by those read so far: what is read beyond
/// it is read in vain.
fn rows_to_read(items: usize, bytes: usize, max_bytes: usize) -> usize {
    if items == 0 || bytes == 0 {
        return 64;
    }
    let left = max_bytes.saturating_sub(bytes);
    (left.saturating_mul(items) / bytes + 1).clamp(1, 512)
}

fn not_invited() -> RegistryError {
    RegistryError::BadRequest(
        "邀请无效、已用过或已过期 / the invitation is wrong, used or expired; ask the parent's security officer for another".into(),
    )
}

pub(crate) fn hash_secret(secret: &[u8; 32]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(b"fangzhi/invitation/v1\0");
    hash.update(secret);
    hash.finalize().into()
}

impl Registry {
    /// Invites a node to join under this one.
    ///
    /// # Errors
    /// [`RegistryError::Denied`].
    pub fn invite(
        &self,
        session: &Session,
        new: &NewInvitation,
        now: UnixMillis,
    ) -> Result<Invitation> {
        self.may(session, policy::Action::Administer, &purpose("security"))?;
        if new.division == self.config.division || new.level <= self.config.level {
            return Err(RegistryError::BadRequest(
                "只能邀请级别低于本节点的单位，请核对单位代号和级别 / a node invites divisions of a level below its own; check division and level"
                    .into(),
            ));
        }
        let address: Addresses = new
            .address
            .parse()
            .map_err(|e: AddressesError| RegistryError::BadRequest(e.to_string()))?;
        let address = address.with_quic_of(&self.config.listen);
        self.may_charter(&new.division, None)?;
        let mut secret = zeroize::Zeroizing::new([0u8; 32]);
        rand_core::Rng::fill_bytes(&mut rng()?, secret.as_mut());
        let before = self.invited(&new.division)?;
        let open = |old: &Invited| old.used_by.is_none() && now <= old.expires;
        let replaces = before.as_ref().is_some_and(open);
        let mut replaced = Vec::new();
        if let Some(old) = before {
            replaced = old.replaced;
            if old.used_by.is_none() {
                replaced.push(old.secret_hash.into());
            }
            replaced.drain(..replaced.len().saturating_sub(REPLACED_MAX));
        }
        let invited = Invited {
            division: new.division.clone(),
            name: new.name.clone(),
            level: new.level,
            codes: new.codes.clone(),
            secret_hash: hash_secret(&secret),
            expires: UnixMillis(now.0 + INVITATION_MILLIS),
            used_by: None,
            replaced,
        };
        self.keep_local(
            table::INVITATION,
            new.division.as_str().as_bytes(),
            cbor::to_vec(&invited),
        )?;
        Ok(Invitation {
            format: 1,
            realm: self.config.realm.clone(),
            root: data_encoding::HEXLOWER.encode(&self.root_key()),
            parent: ParentAddress {
                division: self.config.division.clone(),
                address: address.to_string(),
                transport: data_encoding::HEXLOWER.encode(&self.keys.public().transport),
            },
            division: new.division.clone(),
            name: new.name.clone(),
            level: new.level,
            quorum: self.config.quorum,
            secret: data_encoding::HEXLOWER.encode(secret.as_ref()),
            expires: invited.expires,
            replaces,
        })
    }

    pub(crate) fn keep_local(&self, table: &str, rest: &[u8], value: Vec<u8>) -> Result<()> {
        let mut batch = Batch::new(LOCAL, None);
        batch.put(table::local(table, rest), value);
        self.store
            .commit(&batch)
            .map_err(|e| RegistryError::Store(e.to_string()))?;
        Ok(())
    }

    /// Charters a node that shows the secret of its invitation.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`], the same words for every way in which it does not fit.
    pub fn enrol(
        &self,
        division: &DivisionId,
        secret: &[u8; 32],
        keys: &NodeKeys,
        now: UnixMillis,
    ) -> Result<Vec<Charter>> {
        let refused = not_invited;
        let invited = self.invited(division)?.ok_or_else(refused)?;
        let hash = hash_secret(secret);
        let fits = bool::from(hash.ct_eq(&invited.secret_hash));
        // Only whoever was invited knows the secret of an earlier invitation.
        if !fits
            && invited
                .replaced
                .iter()
                .any(|old| bool::from(hash.ct_eq(&old[..])))
        {
            return Err(RegistryError::BadRequest(
                "此邀请已被后发的邀请取代 / this invitation was replaced by a later one for the same division; join with that, or ask the parent's security officer for another".into(),
            ));
        }
        if !fits || now > invited.expires {
            return Err(refused());
        }
        self.admit(division, keys, now)
    }

    /// What is kept of the newest invitation of a division.
    pub(crate) fn invited(&self, division: &DivisionId) -> Result<Option<Invited>> {
        let rest = division.as_str().as_bytes();
        let bytes = self.store.get(&table::local(table::INVITATION, rest))?;
        bytes
            .map(|bytes| table::decode("invitation", &bytes))
            .transpose()
    }

    /// Charters a node that showed that it has the invitation, which is used up by that.
    pub(crate) fn admit(
        &self,
        division: &DivisionId,
        keys: &NodeKeys,
        now: UnixMillis,
    ) -> Result<Vec<Charter>> {
        let refused = not_invited;
        let rest = division.as_str().as_bytes();
        let mut invited = self.invited(division)?.ok_or_else(refused)?;
        if let Some(used_by) = invited.used_by {
            let charter = self.authority().charter(division).cloned();
            return match charter {
                Some(charter) if used_by == keys.transport && charter.keys == *keys => {
                    self.chain_of(charter)
                }
                _ => Err(refused()),
            };
        }
        self.may_charter(division, Some(keys))
            .map_err(|_| refused())?;
        let serial = self
            .authority()
            .charter(division)
            .map_or(1, |old| old.serial + 1);
        let charter = Charter {
            suite: SUITE,
            realm: self.config.realm.clone(),
            division: division.clone(),
            name: invited.name.clone(),
            level: invited.level,
            parent: self.config.division.clone(),
            codes: invited.codes.clone(),
            keys: keys.clone(),
            serial,
            not_before: UnixMillis(now.0.saturating_sub(3_600_000)),
            not_after: UnixMillis(now.0 + CHARTER_MILLIS),
            signature: [0; 64],
        }
        .sign(&self.keys.unlocked()?.sign);
        if charter.encode().len() > record::authority::CHARTER_MAX {
            return Err(refused());
        }
        // Used first: a crash between the two costs a new invitation, never a second charter.
        invited.used_by = Some(keys.transport);
        self.keep_local(table::INVITATION, rest, cbor::to_vec(&invited))?;
        self.state(
            vec![Statement::Charter(charter.clone())],
            &self.service(purpose("administration")),
            now,
        )?;
        self.chain_of(charter)
    }

    fn chain_of(&self, charter: Charter) -> Result<Vec<Charter>> {
        let mut chain = vec![charter];
        chain.extend(self.chain()?);
        Ok(chain)
    }

    /// Revokes the charter of a node under this one; its next session is refused.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::NoCharter`].
    pub fn revoke(
        &self,
        session: &Session,
        division: &DivisionId,
        reason: &Kind,
        now: UnixMillis,
    ) -> Result<()> {
        self.may(session, policy::Action::Administer, &purpose("security"))?;
        let charter = self
            .authority()
            .charter(division)
            .filter(|c| c.parent == self.config.division && c.division != self.config.division)
            .cloned()
            .ok_or_else(|| RegistryError::NoCharter(division.clone()))?;
        let revocation = Revocation {
            charter: charter.id(),
            division: division.clone(),
            reason: reason.clone(),
        };
        self.state(
            vec![Statement::Revocation(revocation)],
            &session.signer(purpose("administration"), None),
            now,
        )?;
        Ok(())
    }

    /// The ledgers, with their checkpoints, that a peer may have, the authority ledgers from the
    /// root downward first: what follows needs the charters in them.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn offers(&self, peer: &Charter) -> Result<Vec<(Origin, String)>> {
        self.offers_among(peer, self.heads_to_offer()?)
    }

    /// Whether a division is the one above this node.
    pub(crate) fn is_parent(&self, division: &DivisionId) -> bool {
        let parent = self.config.parent.as_ref();
        parent.is_some_and(|parent| parent.division == *division)
    }

    /// Those among the ends of some ledgers that a peer may have.
    pub(crate) fn offers_among(
        &self,
        peer: &Charter,
        lines: Vec<Arc<Line>>,
    ) -> Result<Vec<(Origin, String)>> {
        let own = &self.config.division;
        let mut offers = Vec::new();
        let behind = lock(&self.peers).behind.clone();
        let upward = self.is_parent(&peer.division);
        for line in lines {
            let (origin, division) = (&line.origin, &line.division);
            let authority = self.authority();
            let give = if upward {
                authority.within(division, own)
            } else if behind.contains(origin) && *division == peer.division {
                true
            } else if !line.goes_down {
                false
            } else if line.is_authority {
                !authority.within(division, &peer.division)
                    && authority.is_needed(division, &peer.division)
            } else {
                authority.receiver(origin).is_some_and(|receiver| {
                    authority.within(&receiver, &peer.division)
                        && !authority.within(division, &peer.division)
                })
            };
            if !give {
                continue;
            }
            let depth = authority.ancestors(division).len();
            drop(authority);
            // A parent witnesses and gets the newest; everybody else what has its quorum.
            let head = &line.head;
            let note = if upward && head.whole.is_none() && self.guard.is_halted(origin) {
                // Cut short by a repair: the parent sees how much is left, and gives the rest.
                Some(self.short_head(origin)?)
            } else if upward || behind.contains(origin) {
                head.whole.clone()
            } else {
                line.published().map(str::to_owned)
            };
            if let Some(note) = note {
                let rank = (!line.is_authority, depth, origin.clone());
                offers.push((rank, (origin.clone(), note)));
            }
        }
        offers.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(offers.into_iter().map(|(_, offer)| offer).collect())
    }

    /// The checkpoint of what is left of an own ledger: of a size that was signed before.
    fn short_head(&self, origin: &Origin) -> Result<String> {
        let book = self.book(origin)?;
        let book = lock(&book);
        book.checkpoint_at(
            self.store.as_ref(),
            book.size(),
            &self.keys.unlocked()?.sign,
        )
    }

    /// Entries with their bodies for a peer, and the proofs that they belong to the head.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`] when they are not here.
    pub fn load(&self, load: &Load) -> Result<Loaded> {
        let origin = &load.origin;
        let store = self.store.as_ref();
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut at = load.from;
        while at < load.head_size && bytes < load.max_bytes {
            let limit = usize::try_from(load.head_size - at)
                .unwrap_or(usize::MAX)
                .min(rows_to_read(items.len(), bytes, load.max_bytes));
            let entries = store.scan(origin.as_str(), table::ENTRY, &at.to_be_bytes(), limit)?;
            if entries.is_empty() {
                return Err(RegistryError::damaged(format!(
                    "`{origin}` lacks entry {at}"
                )));
            }
            let keys: Vec<_> = (at..)
                .take(entries.len())
                .map(|i| table::body(origin, i))
                .collect();
            let bodies = store.get_many(&keys)?;
            for ((_, entry), body) in entries.into_iter().zip(bodies) {
                let gone = match body {
                    None if chain::has_chains(origin) => {
                        self.gone(origin, at, &entry, load.head_size)?
                    }
                    _ => None,
                };
                bytes += entry.len() + body.as_ref().map_or(0, Vec::len);
                bytes += gone
                    .as_ref()
                    .map_or(0, |g| g.entry.len() + 32 * g.proof.len());
                items.push(Item { entry, body, gone });
                at += 1;
            }
        }
        let items = fill(items, load.max_bytes);
        let end = load.from + items.len() as u64;
        let tiles = Tiles { store, origin };
        let proof = |from: u64| {
            ledger::proof::consistency(&tiles, from, load.head_size)
                .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))
        };
        Ok(Loaded {
            origin: origin.clone(),
            from: load.from,
            head_size: load.head_size,
            proof: proof(end)?,
            extends: load.known_size.map_or(Ok(Vec::new()), proof)?,
            items,
        })
    }

    /// Why the body of an entry is not here: the later entry under the head that says so.
    fn gone(&self, origin: &Origin, at: u64, entry: &[u8], size: u64) -> Result<Option<Gone>> {
        let store = self.store.as_ref();
        let entry = chain::decode(origin, at, entry)?;
        if entry.body_hash().is_none() {
            return Ok(None);
        }
        let Some((index, later)) = chain::destroyer(store, origin, at, &entry, size)? else {
            // Destroyed by an entry beyond the head that was offered: the next head covers it.
            return Err(RegistryError::damaged(format!(
                "`{origin}` lacks the body of entry {at}, and no entry below {size} says that it was destroyed"
            )));
        };
        let proof = ledger::proof::inclusion(&Tiles { store, origin }, index, size)
            .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
        Ok(Some(Gone {
            index,
            entry: later,
            proof,
        }))
    }

    /// Keeps what `sync` verified; returns how many entries are durable.
    ///
    /// # Errors
    /// [`RegistryError::Conflict`] when somebody else stored meanwhile; nothing was written.
    pub fn keep(&self, delivery: Delivery, now: UnixMillis) -> Result<u64> {
        self.keep_all(vec![delivery], now)
    }

    /// Keeps what `sync` verified of one ledger, in one commit, with this node's cosignatures on
    /// each head that is whole with it; returns how many entries are durable.
    ///
    /// # Errors
    /// As [`Registry::keep`], and [`RegistryError::BadRequest`] when they do not follow one another.
    pub fn keep_all(&self, deliveries: Vec<Delivery>, now: UnixMillis) -> Result<u64> {
        let arrived = Arrived::new(deliveries)?;
        let origin = arrived.origin().clone();
        let store = self.store.as_ref();
        let version = store.head(origin.as_str())?;
        let old = Head::read(store, &origin)?;
        if old.size != arrived.first() {
            return Err(RegistryError::Conflict(origin));
        }
        self.refuse_unentitled(&arrived, &old, now)?;
        if old.size == 0 {
            // Before it is stored: whoever is offered letters is offered their writer's authority.
            self.note_letters(&origin);
        }
        let before = old.clone();
        let edge = TreeEdge::load(
            &Tiles {
                store,
                origin: &origin,
            },
            old.size,
        )
        .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
        let leaf_hashes = arrived.leaf_hashes();
        let (edge, tiles) = plan_append(&edge, &leaf_hashes);
        if edge.frontier() != &arrived.held().frontier {
            return Err(RegistryError::damaged(format!(
                "`{origin}`: stored tiles differ from what was verified"
            )));
        }
        let mut batch = Batch::new(origin.as_str(), Some(version));
        for write in tiles {
            batch.put(table::tile(&origin, write.level, write.index), write.bytes);
        }
        let complete = arrived.is_complete();
        let held = arrived.held();
        let size = held.frontier.size();
        let root = held.frontier.root();
        // From the check to the commit: nobody cosigns another history meanwhile.
        let place = self.witnessing.of(&origin);
        let (mut whole, mut cosigned) = (old.whole, old.cosigned);
        let mut notes = BTreeMap::new();
        for (held, verified) in arrived.wholes() {
            let signed = verified.map(|v| self.cosigned_note(&origin, v, old.size, now));
            let note = signed.transpose()?.flatten().unwrap_or(held.note.clone());
            if self.has_quorum(&origin, &note) {
                cosigned = Some(note.clone());
            }
            notes.insert(held.frontier.size(), note.clone());
            whole = Some(note);
        }
        for (size, note) in notes {
            batch.put(table::note(&origin, size), note.into_bytes());
        }
        let head = Head {
            size,
            root,
            whole,
            target: (!complete).then(|| held.note.clone()),
            cosigned,
            act: held.tail.previous_act().copied(),
            tail: held.tail.len() as u64,
        };
        batch.put(table::head(&origin), cbor::to_vec(&head));
        let first = arrived.first();
        let own = origin.division() == self.config.division;
        let entries: Vec<&Entry> = arrived.entries().collect();
        let destroyed = chain::destroyed(store, &origin, first, &entries)?;
        let behind = chain::extend_replica(&mut batch, store, &origin, first, &entries, own)?;
        destroyed.write(&mut batch, &origin);
        self.count_letters(&mut batch, &arrived, &destroyed, now)?;
        if own {
            // What is kept beside the entries of an own shard was lost with them.
            let mut newest: BTreeMap<RecordId, Newest> = BTreeMap::new();
            let mut came: BTreeMap<RecordId, (u64, Operation)> = BTreeMap::new();
            for ((at, entry), leaf) in (first..).zip(arrived.entries()).zip(&leaf_hashes) {
                if let Entry::Record(entry) = entry {
                    let old = match newest.remove(&entry.record) {
                        Some(old) => Some(old),
                        None => self.newest(&origin, &entry.record)?,
                    };
                    newest.insert(entry.record, Newest::after(old, entry, at, *leaf));
                    let (_, last) = came.entry(entry.record).or_insert((at, entry.operation));
                    *last = entry.operation;
                }
            }
            crate::proposals::note_sources(&mut batch, &origin, arrived.entries());
            if origin.grant_id().is_some() {
                Self::rebuild_scope(&mut batch, &origin, arrived.entries());
                self.remake_cursor(&mut batch, &origin, arrived.entries())?;
            }
            for (record, mut newest) in newest {
                if newest.page == 0 {
                    if let Some(at) = self.find_secret(&record)? {
                        (newest.page, newest.offset, newest.length) = (at.page, at.offset, at.len);
                    } else if let Some((at, last)) = came.get(&record)
                        && !crate::lost::ends(*last)
                    {
                        crate::lost::note(&mut batch, store, &origin, &record, *at)?;
                    }
                }
                batch.put(
                    table::key(&origin, table::RECORD, &record.0),
                    cbor::to_vec(&newest),
                );
            }
        }
        let statements: Vec<(u64, Statement)> = (first + 1..)
            .zip(arrived.entries())
            .filter_map(|(size, entry)| match entry {
                Entry::Authority(entry) => Some((size, entry.statement.clone())),
                _ => None,
            })
            .collect();
        // First all entries, then all bodies: whoever looks the keys up finds neighbours together.
        let mut bodies = Vec::new();
        for (at, item) in (first..).zip(arrived.into_items()) {
            batch.put(table::entry(&origin, at), item.entry);
            if let Some(body) = item.body.filter(|_| !destroyed.arriving.contains(&at)) {
                bodies.push((at, body));
            }
        }
        for (at, body) in bodies {
            batch.put_body(table::body(&origin, at), body);
        }
        // Rows of the chain may have been written meanwhile; whatever else moved is a conflict.
        while let Err(error) = commit(store, &origin, &batch) {
            let is_same = || Ok::<_, RegistryError>(Head::read(store, &origin)? == before);
            let conflict = matches!(error, RegistryError::Conflict(_));
            let version = store.head(origin.as_str())?;
            if !conflict || batch.expected == Some(version) || !is_same()? {
                return Err(error);
            }
            batch.expected = Some(version);
        }
        drop(place);
        if behind {
            lock(&self.behind_chains).insert(origin.clone());
        }
        if origin.ledger().as_str() == "authority" {
            self.authority
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .follow(&origin, first, (size, root), &statements);
        }
        self.counters.replicated(size - first);
        let receipts = statements
            .iter()
            .any(|(_, statement)| matches!(statement, Statement::Receipt(_)));
        let orders = !destroyed.orders.is_empty();
        if orders {
            self.has_orders(&origin);
        }
        if complete && own {
            self.forget_book(&origin);
            self.forget_recovery();
            if self.guard.resume(&origin, size, &root)? {
                tracing::info!(%origin, size, "the ledger is whole again and is signed again");
                self.forget_secrets();
            }
            // Which epoch is the present one is known once the authority ledger is back.
            let authority = self.own("authority");
            if !self.keys.is_locked() && !self.guard.is_halted(&authority) {
                if origin == authority {
                    self.open_holdings(now)?;
                } else if origin.is_shard() {
                    self.advance_or_await(&origin, now)?;
                }
            }
        } else if complete {
            self.on_complete(&origin, now);
        }
        if orders || (complete && own) {
            self.go_on_destroying(now);
        }
        if receipts && let Err(error) = self.settle_receipts() {
            tracing::error!(%error, "receipts could not be compared with what they are for");
        }
        match own || orders {
            true => self.changed(),
            false => self.replica_changed(&origin),
        }
        Ok(size)
    }

    /// What follows from a ledger that came whole. It is not lost when it fails: the next
    /// checkpoint, or the next start, does it again.
    fn on_complete(&self, origin: &Origin, now: UnixMillis) {
        if origin.ledger().as_str() == "authority" || origin.grant_id().is_some() {
            self.go_on_transferring(now);
        }
        let mut ours = BTreeSet::new();
        if origin.ledger().as_str() == "authority" {
            self.adopt_from(origin, now);
            // It may have the last word of an officer above.
            self.try_tend_shares(now);
            // It may name envelopes that came before it.
            let held = self
                .holdings
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let of_owner =
                |o: &&Origin| o.grant_id().is_some() && o.division() == origin.division();
            ours.extend(held.keys().filter(of_owner).cloned());
        } else {
            ours.extend(self.holds_grant_at(origin, now).then(|| origin.clone()));
        }
        if self.keys.is_locked() {
            return;
        }
        self.take_letters(origin, now);
        for ledger in ours {
            if !self.keys.is_locked()
                && let Err(error) = self.advance_or_await(&ledger, now)
            {
                tracing::error!(origin = %ledger, %error, "a grant's ledger could not be worked through");
                self.alarm(&ledger, "holding", &error.to_string(), vec![], now);
            }
        }
    }

    /// Signs a head that is held whole: that it extends what was seen, and that its entries are
    /// durable here. Persisted before it is given away.
    ///
    /// # Errors
    /// A failure of the store, or [`RegistryError::Conflict`] when more was stored meanwhile.
    pub fn cosign(&self, verified: &Verified, now: UnixMillis) -> Result<(u64, Vec<String>)> {
        let checkpoint = verified.checkpoint();
        let origin = Origin::parse(checkpoint.origin())
            .map_err(|e| RegistryError::damaged(e.to_string()))?;
        let store = self.store.as_ref();
        if let Some(lines) = self.lines_made(&origin, checkpoint)? {
            lock(&self.peers).behind.remove(&origin);
            self.clear_alarm(&origin, "shorter")?;
            return Ok((checkpoint.size(), lines));
        }
        let version = store.head(origin.as_str())?;
        let mut head = Head::read(store, &origin)?;
        if head.size != checkpoint.size() || head.root != *checkpoint.root() {
            return Err(RegistryError::Conflict(origin));
        }
        let _one = self.witnessing.of(&origin);
        let text = String::from_utf8_lossy(verified.note()).into_owned();
        if !self.goes_on_from_witnessed(&origin, head.size, &text, now)? {
            return Err(RegistryError::Conflict(origin));
        }
        lock(&self.peers).behind.remove(&origin);
        self.clear_alarm(&origin, "shorter")?;
        // Of an empty ledger nothing is kept: a restored node asks whether it is to be empty.
        let is_empty = head.size == 0;
        // A head that the owner signed again with a later key takes the place of the one held.
        let later = |held: &String| {
            let authority = self.authority();
            let serial = |note: &str| authority.signer_of(&origin, note).map(|c| c.serial);
            serial(held) >= serial(&text)
        };
        let mut note = head.whole.clone().filter(later).unwrap_or(text.clone());
        let mut lines = Vec::new();
        let mut signed = false;
        let keys = self.keys.unlocked()?;
        for (role, key) in [("witness", &keys.witness), ("held", &keys.held)] {
            let signer = cosigner(&self.config.realm, &self.config.division, role, key)?;
            let verifier = signer.verifier(KeyKind::Cosignature);
            let line = match own_line(&note, &verifier) {
                Some(line) => line,
                None => {
                    signed = true;
                    let line = verified
                        .cosign(&signer, now.secs())
                        .map_err(|e| RegistryError::damaged(e.to_string()))?;
                    note = add_signature_line(note.as_bytes(), line.as_bytes())
                        .map_err(|e| RegistryError::damaged(e.to_string()))?;
                    line
                }
            };
            lines.push(line);
        }
        if signed && !is_empty {
            self.renew(&origin, &mut head, note);
            let mut batch = Batch::new(origin.as_str(), Some(version));
            batch.put(table::head(&origin), cbor::to_vec(&head));
            commit(store, &origin, &batch)?;
            self.replica_changed(&origin);
        }
        Ok((checkpoint.size(), lines))
    }

    /// Keeps the parent's cosignatures on a head of an own or replicated ledger.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn cosigned(
        &self,
        origin: &Origin,
        size: u64,
        lines: &[String],
        now: UnixMillis,
    ) -> Result<()> {
        if origin.division() != self.config.division {
            return self.cosigned_replica(origin, size, lines);
        }
        let book = self.book(origin)?;
        let mut book = lock(&book);
        if size == book.size()
            && self.guard.is_halted(origin)
            && self.guard.resume(origin, size, &book.root())?
        {
            tracing::info!(%origin, size, "the parent holds no more than is here; the ledger is signed again");
        }
        if size == 0 {
            return Ok(());
        }
        let store = self.store.as_ref();
        let known = book
            .head
            .cosigned
            .as_deref()
            .map(checkpoint_of)
            .transpose()?;
        if known.is_some_and(|known| known.size() > size) {
            return Ok(());
        }
        // The ledger may have grown since it was offered: then the note of that size is made again.
        let note = match book.head.whole.clone() {
            Some(note) if book.size() == size => note,
            _ => match book.head.cosigned.clone() {
                Some(note) if checkpoint_of(&note)?.size() == size => note,
                _ => book.checkpoint_at(store, size, &self.keys.unlocked()?.sign)?,
            },
        };
        let merged = merge(&note, lines)?;
        if merged == note {
            return Ok(());
        }
        let since = self.signed_at(origin, size)?;
        for (witness, secs) in self.cosigned_at(origin, &merged) {
            let theirs = UnixMillis(secs.saturating_mul(1000));
            self.compare_clock(&witness, theirs, since, now);
        }
        let quorum = self.has_quorum(origin, &merged);
        book.keep_cosigned(store, size, merged, quorum)?;
        drop(book);
        self.changed();
        if origin.is_shard() {
            self.advance_grants(now)?;
            self.go_on_transferring(now);
        }
        Ok(())
    }

    /// When each witness cosigned a note, in seconds.
    fn cosigned_at(&self, origin: &Origin, note: &str) -> Vec<(String, u64)> {
        let Ok(parsed) = Note::parse(note.as_bytes()) else {
            return Vec::new();
        };
        let witnesses = self.authority().witnesses(&origin.division(), &parsed);
        let times = witnesses.iter();
        times
            .filter_map(|witness| {
                let secs = verify_cosignature(note.as_bytes(), witness).ok()?;
                Some((witness.name().to_owned(), secs))
            })
            .collect()
    }

    /// Puts a note with more signatures on a replica's head.
    fn renew(&self, origin: &Origin, head: &mut Head, note: String) {
        if self.has_quorum(origin, &note) {
            head.cosigned = Some(note.clone());
        }
        head.whole = Some(note);
    }

    fn cosigned_replica(&self, origin: &Origin, size: u64, lines: &[String]) -> Result<()> {
        let store = self.store.as_ref();
        let version = store.head(origin.as_str())?;
        let mut head = Head::read(store, origin)?;
        let Some(note) = head.whole.clone() else {
            return Ok(());
        };
        if checkpoint_of(&note)?.size() != size {
            return Ok(());
        }
        let merged = merge(&note, lines)?;
        if merged == note {
            return Ok(());
        }
        self.renew(origin, &mut head, merged);
        let mut batch = Batch::new(origin.as_str(), Some(version));
        batch.put(table::head(origin), cbor::to_vec(&head));
        commit(store, origin, &batch)?;
        Ok(())
    }

    /// Keeps an alarm about a ledger, once per code.
    pub fn alarm(
        &self,
        origin: &Origin,
        code: &str,
        reason: &str,
        notes: Vec<String>,
        now: UnixMillis,
    ) {
        let alarm = Alarm {
            origin: origin.clone(),
            code: code.to_owned(),
            reason: reason.to_owned(),
            at: now,
            notes,
        };
        let result = (|| {
            let known = self.alarms()?;
            let of_ledger = known.iter().filter(|a| a.origin == *origin).count();
            if of_ledger >= ALARMS_MAX
                || known.iter().any(|a| a.origin == *origin && a.code == code)
            {
                return Ok(());
            }
            let rest = alarm_key(origin, code);
            self.keep_local(table::ALARM, &rest, cbor::to_vec(&alarm))
        })();
        if let Err::<(), RegistryError>(error) = result {
            tracing::error!(%origin, %error, "an alarm could not be kept");
        }
        // Last: who sees the count finds the alarm.
        self.counters.alarm();
    }

    /// Takes back an alarm about something that is mended.
    pub(crate) fn clear_alarm(&self, origin: &Origin, code: &str) -> Result<()> {
        let key = table::local(table::ALARM, &alarm_key(origin, code));
        if self.store.get(&key)?.is_none() {
            return Ok(());
        }
        let mut batch = Batch::new(LOCAL, None);
        batch.delete(key);
        self.store
            .commit(&batch)
            .map_err(|e| RegistryError::Store(e.to_string()))?;
        Ok(())
    }

    /// Every alarm kept.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn alarms(&self) -> Result<Vec<Alarm>> {
        self.store
            .scan(LOCAL, table::ALARM, b"", 10_000)?
            .iter()
            .map(|(_, bytes)| table::decode("alarm", bytes))
            .collect()
    }

    /// With how many nodes a session is open.
    pub fn peers_connected(&self) -> usize {
        let peers = lock(&self.peers);
        peers.lines.values().filter(|line| line.connected).count()
    }

    /// Notes for the status page that a session with a peer opened, ended or was refused.
    pub fn peer_seen(
        &self,
        peer: &str,
        connected: bool,
        error: Option<String>,
        refused: bool,
        now: UnixMillis,
    ) {
        let mut peers = lock(&self.peers);
        if refused {
            self.counters.refused();
        }
        if !peers.lines.contains_key(peer) && peers.lines.len() >= PEERS_MAX {
            return;
        }
        let line = peers
            .lines
            .entry(peer.to_owned())
            .or_insert_with(|| PeerLine {
                peer: peer.to_owned(),
                connected: false,
                since: now,
                last_error: None,
                refused: 0,
            });
        line.connected = connected;
        line.since = now;
        line.refused += u64::from(refused);
        if connected {
            line.last_error = None;
        } else if error.is_some() {
            line.last_error = error;
        }
    }

    /// The verifier of a ledger's checkpoint: of whichever charter signed it. A key of a charter
    /// that was replaced signs nothing any more once what is held was signed by a later one.
    pub(crate) fn log_verifier(&self, origin: &Origin, note: &str) -> Result<Verifier> {
        let held = Head::read(self.store.as_ref(), origin)?;
        let held = held.target.or(held.whole);
        let authority = self.authority();
        let none = || RegistryError::NoCharter(origin.division());
        let signer = authority.signer_of(origin, note).ok_or_else(none)?;
        let before = held.and_then(|held| authority.signer_of(origin, &held));
        let signer = match before {
            Some(before) if before.serial > signer.serial => before,
            _ => signer,
        };
        log_verifier(origin, &signer.keys.sign)
    }

    /// The same, unless the charter was revoked: for what comes from anywhere.
    pub(crate) fn standing_log(&self, origin: &Origin, note: &str) -> Result<Verifier> {
        let authority = self.authority();
        let signer = authority.signer_of(origin, note);
        if signer.is_some_and(|signer| authority.revoked(&signer.id())) {
            return Err(RegistryError::NoCharter(origin.division()));
        }
        drop(authority);
        self.log_verifier(origin, note)
    }
}

pub(crate) fn log_verifier(origin: &Origin, key: &[u8; 32]) -> Result<Verifier> {
    Verifier::new(origin.as_str(), KeyKind::Note, key)
        .map_err(|e| RegistryError::damaged(e.to_string()))
}

fn alarm_key(origin: &Origin, code: &str) -> Vec<u8> {
    let mut rest = Sha256::digest(origin.as_str()).to_vec();
    rest.extend(code.as_bytes());
    rest
}

/// The name under which a node cosigns: `<realm>/<division>/<role>`.
pub(crate) fn cosigner(
    realm: &Realm,
    division: &DivisionId,
    role: &str,
    key: &ed25519_dalek::SigningKey,
) -> Result<NoteSigner> {
    NoteSigner::new(&format!("{realm}/{division}/{role}"), key.clone())
        .map_err(|e| RegistryError::damaged(e.to_string()))
}

pub(crate) fn own_line(note: &str, verifier: &Verifier) -> Option<String> {
    verify_cosignature(note.as_bytes(), verifier).ok()?;
    let parsed = Note::parse(note.as_bytes()).ok()?;
    // There may be one more under this name, by a key of an earlier charter.
    let own = |line: &&SignatureLine| line.name() == verifier.name() && line.id() == verifier.id();
    parsed
        .signatures()
        .iter()
        .find(own)
        .map(ToString::to_string)
}

fn merge(note: &str, lines: &[String]) -> Result<String> {
    let mut merged = note.to_owned();
    for line in lines {
        merged = add_signature_line(merged.as_bytes(), line.as_bytes())
            .map_err(|e| RegistryError::damaged(e.to_string()))?;
    }
    Ok(merged)
}

impl Trust for Registry {
    fn realm_root(&self) -> [u8; 32] {
        self.root_key()
    }

    fn renewed(&self, shown: &[Charter]) -> Option<Vec<Charter>> {
        self.renewed_chain(shown)
    }

    fn is_revoked(&self, charter: &Hash) -> bool {
        self.authority().revoked(charter)
    }

    fn log(&self, origin: &Origin, note: &str) -> Option<Verifier> {
        self.standing_log(origin, note).ok()
    }

    fn is_news(&self, origin: &Origin, head: &Checkpoint) -> bool {
        self.contradicts(origin, head).unwrap_or(true)
    }

    fn accept(
        &self,
        peer: &Charter,
        origin: &Origin,
        note: &str,
    ) -> std::result::Result<Accept, Refusal> {
        let refuse = |reason: &str| Refusal {
            reason: reason.to_owned(),
            passing: false,
        };
        let awaited = |reason: &str| Refusal {
            passing: true,
            ..refuse(reason)
        };
        let authority = self.authority();
        let own = &self.config.division;
        let division = origin.division();
        if origin.realm() != self.config.realm {
            return Err(refuse("the ledger belongs to another realm"));
        }
        if division == *own {
            drop(authority);
            return self.accept_own(peer, origin, note);
        }
        if authority.charter(&division).is_none() {
            return Err(awaited(
                "the charter of the ledger's division is not known here yet; offer its parent's authority ledger first",
            ));
        }
        // Of the peers themselves every key is known: a child's is issued here, a parent shows its
        // own. Whoever is further away may have changed its key, and that comes with the charter.
        if division != peer.division && authority.signer_known(origin, note).is_none() {
            return Err(awaited(
                "the charter of whoever signed this head is not known here yet; offer its parent's authority ledger first",
            ));
        }
        let from_child = peer.parent == *own;
        let allowed = if from_child {
            authority.within(&division, &peer.division)
        } else if origin.ledger().as_str() == "authority" {
            !authority.within(&division, own)
        } else {
            let receiver = authority.receiver(origin);
            receiver.is_some_and(|receiver| authority.within(&receiver, own))
        };
        drop(authority);
        if !allowed {
            return Err(refuse("this node does not take this ledger from this peer"));
        }
        let verifier = self
            .log_verifier(origin, note)
            .map_err(|e| refuse(&e.to_string()))?;
        let held = self.held(origin).map_err(|e| refuse(&e.to_string()))?;
        Ok(Accept {
            verifier,
            held,
            cosign: from_child,
        })
    }
}

impl Registry {
    /// An own ledger is taken from the parent only, and only while it is halted: the rest of a
    /// history that this node signed and lost.
    fn accept_own(
        &self,
        peer: &Charter,
        origin: &Origin,
        note: &str,
    ) -> std::result::Result<Accept, Refusal> {
        let refuse = |reason: &str| Refusal {
            reason: reason.to_owned(),
            passing: false,
        };
        let from_parent = self
            .config
            .parent
            .as_ref()
            .is_some_and(|p| p.division == peer.division);
        if self.keys.is_locked() {
            return Err(refuse(
                "the node is locked; what it lost is taken back once it is open",
            ));
        }
        if !from_parent || !self.guard.is_halted(origin) {
            return Err(refuse(
                "the ledger is this node's own; nobody else writes it",
            ));
        }
        let verifier = self
            .log_verifier(origin, note)
            .map_err(|e| refuse(&e.to_string()))?;
        let held = self.held(origin).map_err(|e| refuse(&e.to_string()))?;
        Ok(Accept {
            verifier,
            held,
            cosign: false,
        })
    }

    /// A peer holds more of an own ledger than is here. If that is true, its note is signed by
    /// this very node: then nothing more is signed until the rest is back.
    pub fn told_of_more(&self, origin: &Origin, note: Option<&str>) -> bool {
        if origin.division() != self.config.division {
            return false;
        }
        let proven = (|| {
            let note = note?;
            let verifier = self.log_verifier(origin, note).ok()?;
            let checkpoint = ledger::checkpoint::open(note.as_bytes(), &verifier).ok()?;
            let held = Head::read(self.store.as_ref(), origin).ok()?.size;
            (checkpoint.size() > held).then_some((checkpoint.size(), held))
        })();
        let Some((signed, held)) = proven else {
            return false;
        };
        self.guard.halt(origin, signed, held, "上级收存的比本机多 / the parent holds more than is here; this directory was restored from an old copy");
        true
    }

    /// The owner of a ledger showed less than is held here; it is offered the rest.
    pub fn owner_is_behind(&self, origin: &Origin) {
        lock(&self.peers).behind.insert(origin.clone());
        self.changed();
    }

    /// What is held of a replica, as the next delivery must continue it.
    fn held(&self, origin: &Origin) -> Result<Option<Held>> {
        let store = self.store.as_ref();
        let head = Head::read(store, origin)?;
        let Some(note) = head.target.or(head.whole) else {
            return Ok(None);
        };
        let edge = TreeEdge::load(&Tiles { store, origin }, head.size)
            .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
        let mut tail = head.act.map_or_else(Tail::new, Tail::after_act);
        let from = head.size - head.tail;
        for (_, bytes) in store.scan(
            origin.as_str(),
            table::ENTRY,
            &from.to_be_bytes(),
            head.tail as usize,
        )? {
            let entry = Entry::decode(&bytes).map_err(|e| RegistryError::damaged(e.to_string()))?;
            tail.follow(&entry, leaf_hash(&bytes));
        }
        Ok(Some(Held {
            frontier: edge.frontier().clone(),
            note,
            tail,
        }))
    }
}
