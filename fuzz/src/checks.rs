//! One check for each decoder of bytes that come from outside.
//!
//! A check gives whether the bytes decode. It panics when what decodes does not encode to
//! the same bytes again, because then one value would have two spellings, two hashes and
//! two signatures. What a decoder does with bytes that it refuses is to refuse them.

use ledger::checkpoint::Checkpoint;
use ledger::frontier::Frontier;
use ledger::note::{KeyKind, Note, NoteSigner, SignatureLine, Verifier};
use ledger::proof::TlogProof;
use ledger::tile::{TilePath, encode_bundle, parse_bundle};
use ledger::witness::AddCheckpoint;
use minicbor::Encoder;
use record::authority::Charter;
use record::custody::ShareStep;
use record::entry::{Entry, SUITE};
use record::id::{GrantId, LetterId, OperatorId, Origin};
use record::letter::Step;
use record::plan::{Approval, Plan};
use record::proposal::{Answer, Proposal};
use record::published::{PublishedSet, What};
use record::schema::Catalogue;
use seal::body::Body;
use seal::dealt::{DealtInfo, open_dealt};
use seal::grant::{EnvelopeInfo, SealPrivateKey, open_envelope};
use seal::keystore::{Keystore, SoftwareKey, passphrase_of};
use seal::letter::{LetterInfo, open_letter};
use seal::parcel::Parcel;
use seal::recovery::{RecoveryInfo, open_recovery};
use seal::secret::Kek;
use seal::share::{Header, Share, combine};
use sha2::{Digest, Sha256};
use sync::Message;
use watermark::Mark;

/// A decoder under its name, which is also the name of its fuzz target.
pub struct Check {
    /// The name.
    pub name: &'static str,
    /// Whether the bytes decode.
    pub decodes: fn(&[u8]) -> bool,
    /// Whether the bytes are authenticated, so that no altered ones may decode.
    pub sealed: bool,
}

/// Every check.
pub const CHECKS: [Check; 34] = [
    open("entry", entry),
    open("charter", charter),
    open("plan", plan),
    open("approval", approval),
    open("published_set", published_set),
    open("message", message),
    open("body", body),
    open("parcel", parcel),
    sealed("envelope", envelope),
    sealed("letter", letter),
    open("proposal", proposal),
    open("answer", answer),
    sealed("keystore", keystore),
    sealed("recovery", recovery),
    open("share", share),
    open("share_header", share_header),
    open("share_text", share_text),
    open("share_step", share_step),
    sealed("dealt_share", dealt_share),
    open("note", note),
    open("checkpoint", checkpoint),
    open("proof", proof),
    open("add_checkpoint", add_checkpoint),
    open("key", key),
    open("frontier", frontier),
    open("tile_path", tile_path),
    open("bundle", bundle),
    open("origin", origin),
    open("mark", mark),
    open("ferry_head", ferry_head),
    open("ferry_manifest", ferry_manifest),
    open("ferry_frame", ferry_frame),
    open("join_request", join_request),
    open("admission", admission),
];

const fn open(name: &'static str, decodes: fn(&[u8]) -> bool) -> Check {
    Check {
        name,
        decodes,
        sealed: false,
    }
}

const fn sealed(name: &'static str, decodes: fn(&[u8]) -> bool) -> Check {
    Check {
        name,
        decodes,
        sealed: true,
    }
}

/// An entry of any ledger.
pub fn entry(bytes: &[u8]) -> bool {
    let Ok(entry) = Entry::decode(bytes) else {
        return false;
    };
    assert_eq!(entry.encode(), bytes);
    let _ = entry.body_hash();
    if let Entry::Act(act) = &entry {
        let _ = act.verify(&shard());
    }
    true
}

/// A charter, and its signature under its own key.
pub fn charter(bytes: &[u8]) -> bool {
    let Ok(charter) = Charter::decode(bytes) else {
        return false;
    };
    assert_eq!(charter.encode(), bytes);
    let _ = charter.verify(&charter.keys.sign);
    true
}

/// A plan, and whether a key signed it.
pub fn plan(bytes: &[u8]) -> bool {
    let Ok(plan) = Plan::decode(bytes) else {
        return false;
    };
    assert_eq!(plan.encode(), bytes);
    let _ = (plan.id(), plan.is_signed_by(&[1; 32]));
    true
}

/// An approval, and whether a key signed it.
pub fn approval(bytes: &[u8]) -> bool {
    let Ok(approval) = Approval::decode(bytes) else {
        return false;
    };
    assert_eq!(approval.encode(), bytes);
    let _ = approval.is_signed_by(&[1; 32]);
    true
}

/// A published set, and what the built-in catalogue becomes with it.
pub fn published_set(bytes: &[u8]) -> bool {
    let Ok(set) = PublishedSet::decode(bytes) else {
        return false;
    };
    assert_eq!(set.encode(), bytes);
    if set.what != What::Policies {
        let _ = Catalogue::builtin().with_published(&set);
    }
    true
}

/// A message of replication.
pub fn message(bytes: &[u8]) -> bool {
    let Ok(message) = Message::decode(bytes) else {
        return false;
    };
    assert_eq!(message.encode(), bytes);
    true
}

/// The first line of a ferry file.
pub fn ferry_head(bytes: &[u8]) -> bool {
    let Ok(head) = ferry::Head::decode(bytes) else {
        return false;
    };
    assert_eq!(head.encode().as_bytes(), bytes);
    true
}

/// The manifest of a ferry bundle, and whether somebody signed it.
pub fn ferry_manifest(bytes: &[u8]) -> bool {
    let Ok(manifest) = ferry::Manifest::decode(bytes) else {
        return false;
    };
    assert_eq!(manifest.encode(), bytes);
    let _ = (manifest.entries(), manifest.verify(bytes, &[1; 64]));
    true
}

/// A node's request to join, by file.
pub fn join_request(bytes: &[u8]) -> bool {
    let Ok(request) = ferry::JoinRequest::decode(bytes) else {
        return false;
    };
    assert_eq!(request.encode(), bytes);
    let _ = (request.keys(), request.proven());
    true
}

/// The parent's answer to it.
pub fn admission(bytes: &[u8]) -> bool {
    let Ok(admission) = ferry::Admission::decode(bytes) else {
        return false;
    };
    assert_eq!(admission.encode(), bytes);
    assert!(admission.charters().is_ok());
    true
}

/// A frame of a ferry's payload.
pub fn ferry_frame(bytes: &[u8]) -> bool {
    let Ok(frame) = ferry::Frame::decode(bytes) else {
        return false;
    };
    assert_eq!(frame.encode(), bytes);
    true
}

/// A sealed body, written again from what can be seen of it.
pub fn body(bytes: &[u8]) -> bool {
    let Ok(body) = Body::decode(bytes) else {
        return false;
    };
    assert_eq!(body.hash()[..], Sha256::digest(bytes)[..]);
    let positions: Vec<u8> = body.positions().collect();
    let mut again = Vec::new();
    let mut e = Encoder::new(&mut again);
    let written = (|| {
        e.map(4)?.u8(0)?.u8(seal::body::FORMAT)?.u8(1)?.u8(SUITE)?;
        e.u8(2)?.bytes(body.nonce())?;
        e.u8(3)?.array(positions.len() as u64)?;
        for position in positions {
            let cell = body.cell(position).expect("a position seen has a cell");
            e.array(2)?.u8(position)?.bytes(cell)?;
        }
        e.ok()
    })();
    written.expect("writing to memory does not fail");
    assert_eq!(again, bytes);
    true
}

/// A parcel of a grant, with the entry inside it.
pub fn parcel(bytes: &[u8]) -> bool {
    let Ok(parcel) = Parcel::decode(bytes) else {
        return false;
    };
    assert_eq!(parcel.encode(), bytes);
    let leaf = Entry::Record(parcel.entry().clone());
    assert_eq!(leaf.encode(), parcel.leaf());
    let _ = (
        parcel.index(),
        parcel.inclusion(),
        parcel.positions().count(),
    );
    true
}

/// An envelope of keys, opened with the holder's key.
pub fn envelope(bytes: &[u8]) -> bool {
    open_envelope(&envelope_info(), &holder(), bytes).is_ok()
}

/// A letter, opened with its reader's key.
pub fn letter(bytes: &[u8]) -> bool {
    open_letter(&letter_info(), &holder(), bytes).is_ok()
}

/// What a proposal says.
pub fn proposal(bytes: &[u8]) -> bool {
    let Ok(proposal) = Proposal::decode(bytes) else {
        return false;
    };
    assert_eq!(proposal.encode(), bytes);
    assert!(proposal.is_within_bounds());
    true
}

/// What an answer says.
pub fn answer(bytes: &[u8]) -> bool {
    let Ok(answer) = Answer::decode(bytes) else {
        return false;
    };
    assert_eq!(answer.encode(), bytes);
    true
}

/// A keystore, its header read without a key and its keys opened with one.
pub fn keystore(bytes: &[u8]) -> bool {
    let header = passphrase_of(bytes);
    let opened = Keystore::open(bytes, &key_file());
    assert!(header.is_ok() || opened.is_err());
    opened.is_ok()
}

/// What a lost station is rebuilt from, opened with the key that shares give.
pub fn recovery(bytes: &[u8]) -> bool {
    open_recovery(&recovery_info(), &holder(), bytes).is_ok()
}

/// A recovery share in its bytes.
pub fn share(bytes: &[u8]) -> bool {
    let Ok(share) = Share::decode(bytes) else {
        return false;
    };
    assert_eq!(*share.encode(), bytes);
    assert!(Share::from_text(&share.to_text()).is_ok());
    true
}

/// What everybody may know of a ceremony; a share of another never fits it.
pub fn share_header(bytes: &[u8]) -> bool {
    let Ok(header) = Header::decode(bytes) else {
        return false;
    };
    assert_eq!(header.encode(), bytes);
    assert!(combine(&header, &[]).is_err());
    true
}

/// A share as somebody typed it; people may spell one share in many ways, it is printed in one.
pub fn share_text(bytes: &[u8]) -> bool {
    let Some(Ok(share)) = str::from_utf8(bytes).ok().map(Share::from_text) else {
        return false;
    };
    let printed = Share::from_text(&share.to_text()).expect("what is printed can be typed");
    assert_eq!(*printed.encode(), *share.encode());
    true
}

/// A step of dealing a share to an officer above, and whether a key signed it.
pub fn share_step(bytes: &[u8]) -> bool {
    let Ok(step) = ShareStep::decode(bytes) else {
        return false;
    };
    assert_eq!(step.encode(), bytes);
    let _ = match &step {
        ShareStep::Ready(key) => (key.id(), key.is_signed_by(&[1; 32])),
        ShareStep::Dealt(dealt) => (dealt.id(), dealt.is_signed_by(&[1; 32])),
        ShareStep::Confirmed(word) => (word.id(), word.is_signed_by(&[1; 32])),
    };
    true
}

/// A share as it is sealed to an officer above.
pub fn dealt_share(bytes: &[u8]) -> bool {
    open_dealt(&dealt_info(), &holder(), bytes).is_ok()
}

/// A signed note, and each of its lines alone.
pub fn note(bytes: &[u8]) -> bool {
    let Ok(note) = Note::parse(bytes) else {
        return false;
    };
    assert_eq!(note.encode().as_bytes(), bytes);
    for line in note.signatures() {
        assert_eq!(
            SignatureLine::parse(line.to_string().as_bytes()).as_ref(),
            Ok(line)
        );
    }
    checkpoint(note.text().as_bytes());
    true
}

/// The text of a checkpoint.
pub fn checkpoint(bytes: &[u8]) -> bool {
    let Ok(checkpoint) = Checkpoint::parse(bytes) else {
        return false;
    };
    assert_eq!(checkpoint.to_text().as_bytes(), bytes);
    true
}

/// A proof in its portable text form.
pub fn proof(bytes: &[u8]) -> bool {
    let Ok(proof) = TlogProof::parse(bytes) else {
        return false;
    };
    assert_eq!(proof.encode().as_bytes(), bytes);
    true
}

/// A request to cosign a checkpoint, and what is decided of it.
pub fn add_checkpoint(bytes: &[u8]) -> bool {
    let Ok(request) = AddCheckpoint::parse(bytes) else {
        return false;
    };
    assert_eq!(request.encode().as_bytes(), bytes);
    let signer = NoteSigner::from_seed(shard().as_str(), &[1; 32]).expect("an origin is a name");
    let decided = request.decide(None, &signer.verifier(KeyKind::Note));
    // A witness that has cosigned nothing has nothing that a proof could start from.
    assert!(decided.is_err() || (request.old_size == 0 && request.proof.is_empty()));
    true
}

/// A verifier's key as text.
pub fn key(bytes: &[u8]) -> bool {
    let Ok(key) = Verifier::parse(bytes) else {
        return false;
    };
    assert_eq!(key.vkey().as_bytes(), bytes);
    true
}

/// A frontier of a ledger.
pub fn frontier(bytes: &[u8]) -> bool {
    let Ok(frontier) = Frontier::parse(bytes) else {
        return false;
    };
    assert_eq!(frontier.encode(), bytes);
    let _ = frontier.root();
    true
}

/// The path of a tile or of an entry bundle.
pub fn tile_path(bytes: &[u8]) -> bool {
    let Ok(path) = TilePath::parse(bytes) else {
        return false;
    };
    assert_eq!(path.to_string().as_bytes(), bytes);
    true
}

/// A bundle of entries.
pub fn bundle(bytes: &[u8]) -> bool {
    let Ok(entries) = parse_bundle(bytes) else {
        return false;
    };
    assert_eq!(encode_bundle(&entries).as_deref(), Ok(bytes));
    true
}

/// The origin of a ledger, and its parts.
pub fn origin(bytes: &[u8]) -> bool {
    let Some(Ok(origin)) = str::from_utf8(bytes).ok().map(Origin::parse) else {
        return false;
    };
    assert_eq!(origin.as_str().as_bytes(), bytes);
    let shard = Origin::new(&origin.realm(), &origin.division(), &origin.ledger());
    let again = match (origin.grant_id(), origin.counterpart()) {
        (Some(grant), _) => shard.grant(&grant),
        (None, Some(theirs)) => theirs.counterpart().expect("letters are answered"),
        (None, None) => shard,
    };
    assert_eq!(again, origin);
    true
}

/// A mark as somebody typed it; people may spell one mark in many ways, it is printed in one.
pub fn mark(bytes: &[u8]) -> bool {
    let Some(Ok(mark)) = str::from_utf8(bytes).ok().map(str::parse::<Mark>) else {
        return false;
    };
    assert_eq!(mark.code().parse(), Ok(mark));
    true
}

/// The shard that the valid bytes of [`super::seeds`] belong to.
pub fn shard() -> Origin {
    Origin::parse("jiangjin.example/jinfu/person").expect("a literal origin")
}

/// What letters are bound to.
pub fn letter_info() -> LetterInfo {
    LetterInfo {
        origin: Origin::parse("jiangjin.example/minzheng/proposals/jinfu").expect("a literal"),
        index: 7,
        id: LetterId([4; 16]),
        step: Step::Propose,
        reader: [5; 32],
    }
}

/// The key that envelopes, letters and recoveries are sealed to.
pub fn holder() -> SealPrivateKey {
    SealPrivateKey::from_bytes([8; 32])
}

/// What dealt shares are bound to.
pub fn dealt_info() -> DealtInfo {
    DealtInfo {
        realm: shard().realm(),
        division: shard().division(),
        plan: [1; 32],
        header: [2; 32],
        number: 2,
        organization: shard().division(),
        operator: OperatorId([3; 16]),
        key: [4; 32],
    }
}

/// The key that keystores are closed with.
pub fn key_file() -> SoftwareKey {
    SoftwareKey::from_kek(Kek::from_bytes([9; 32]))
}

/// What recoveries are bound to.
pub fn recovery_info() -> RecoveryInfo {
    RecoveryInfo {
        origin: shard(),
        index: 7,
        ceremony: [5; 16],
    }
}

/// What envelopes are bound to.
pub fn envelope_info() -> EnvelopeInfo {
    EnvelopeInfo {
        grant: GrantId([1; 16]),
        owner_charter: [2; 32],
        holder_charter: [3; 32],
        origin: shard(),
        epoch: 1,
        fields: vec![5, 12],
    }
}
