//! Valid bytes for each check, made by the code that makes them in earnest.
//!
//! Owns one small realm of made-up keys, in which nobody exists. Gives the same bytes in
//! every run, so that a case found from them can be found again.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use ferry::manifest::{Kind as FerryKind, LedgerRange, Part, Party, Payload};
use ferry::{Admission, Extends, Frame, Hex, JoinRequest, Manifest};
use ledger::checkpoint::{self, Checkpoint};
use ledger::frontier::Frontier;
use ledger::hash::leaf_hash;
use ledger::note::{KeyKind, NoteSigner};
use ledger::proof::{TlogProof, consistency, inclusion};
use ledger::tile::{TilePath, TileTree, encode_bundle, plan_append};
use ledger::verify;
use ledger::witness::AddCheckpoint;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use record::act::{Act, Capacity};
use record::authority::{
    AuthorityEntry, Charter, DivisionCode, GrantAmendment, GrantStatement, History, InForce, Level,
    NodeKeys, OperatorCertificate, Renewal, Revocation, Role, Statement, Succession,
};
use record::custody::{DealtShare, ShareKey, ShareStep, ShareWord};
use record::draft::Draft;
use record::entry::{
    AccessEntry, Entry, GrantEntry, GrantOperation, Operation, RecordEntry, SUITE,
};
use record::id::{
    DivisionId, GrantId, Kind, LetterId, OperatorId, Origin, Purpose, Realm, RecordId, UnixMillis,
};
use record::letter::{LetterEntry, Step};
use record::moving::{
    BatchAcceptance, BatchAnswer, BatchItem, BatchOffer, BatchRefusal, Moving, ShardClosed,
};
use record::plan::{
    Approval, ClassTerm, Figure, Outcome, Plan, PlanClosed, ShareHolder, StandingOrder, Task, Work,
};
use record::proposal::{About, Answer, Proposal, Wanted, Written};
use record::published::{Declined, Published, PublishedSet, SetFile, What};
use record::schema::Catalogue;
use record::transfer::{
    Acceptance, TransferAnswer, TransferEvent, TransferOffer, TransferStep, TransferWord,
};
use seal::body::{Body, CellContext, SealedBody, open_all, seal_body};
use seal::dealt::seal_dealt;
use seal::derive::{FieldKeys, row_keys};
use seal::grant::seal_envelope;
use seal::keystore::Keystore;
use seal::letter::{salted, seal_letter};
use seal::parcel::{GrantScope, Parcel, ShardLeaf};
use seal::recovery::seal_recovery;
use seal::secret::{EpochSecret, FieldKey, GrantSecret, PageKey, RecordSecret};
use seal::share::{Header, Share, ShareContext, split};
use sync::message::{
    Cosigned, Enrol, Enrolled, Entries, Hello, Offer, Refused, Rejected, Successions, Want, Welcome,
};
use sync::recovery::{Recovery, RecoveryAsk, RecoveryPiece};
use sync::{Gone, Item, Message, RefusalCode, RejectCode, Secret};
use watermark::{Mark, MarkKey, Receipt};

use super::checks::{
    dealt_info, envelope_info, holder, key_file, letter_info, recovery_info, shard,
};

const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
const RECORD: RecordId = RecordId([0x11; 16]);

/// Valid bytes of the check of this name.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "entry" => entries().iter().map(Entry::encode).collect(),
        "charter" => vec![charter("jinfu").encode()],
        "plan" => plans().iter().map(Plan::encode).collect(),
        "approval" => vec![approval().encode()],
        "published_set" => vec![published_set().encode()],
        "message" => messages().iter().map(Message::encode).collect(),
        "body" => vec![sealed_body().0.bytes],
        "parcel" => vec![parcel().encode()],
        "envelope" => vec![envelope()],
        "letter" => vec![letter()],
        "proposal" => proposals().iter().map(Proposal::encode).collect(),
        "answer" => vec![answer().encode()],
        "keystore" => vec![keystore()],
        "recovery" => vec![recovery()],
        "share" => ceremony()
            .1
            .iter()
            .map(|share| share.encode().to_vec())
            .collect(),
        "share_header" => vec![ceremony().0.encode()],
        "share_text" => {
            let text = |share: &Share| share.to_text().as_bytes().to_vec();
            ceremony().1.iter().map(text).collect()
        }
        "share_step" => share_steps().iter().map(ShareStep::encode).collect(),
        "dealt_share" => vec![dealt()],
        "note" => vec![note(3).into_bytes(), cosigned(3).into_bytes()],
        "checkpoint" => vec![head(3).to_text().into_bytes()],
        "proof" => [vec![], vec![1, 2]].into_iter().map(proof).collect(),
        "add_checkpoint" => [0, 1, 3].map(|old| request(old).into_bytes()).into(),
        "key" => [KeyKind::Note, KeyKind::Cosignature]
            .map(|kind| signer().verifier(kind).vkey().into_bytes())
            .into(),
        "frontier" => [0, 1, 3, 300].map(|size| frontier(size).encode()).into(),
        "tile_path" => tile_paths(),
        "bundle" => vec![bundle()],
        "origin" => {
            let grant = shard().grant(&GrantId([1; 16]));
            let theirs = letter_info().origin;
            let back = theirs.counterpart().expect("letters are answered");
            [shard(), grant, theirs, back]
                .map(|origin| origin.as_str().into())
                .into()
        }
        "mark" => vec![mark().code().into_bytes()],
        "ferry_head" => vec![ferry_head().into_bytes()],
        "ferry_manifest" => vec![ferry_manifest().encode()],
        "join_request" => vec![join_request().encode()],
        "admission" => vec![admission().encode()],
        "ferry_frame" => {
            let message = |message| Frame::Message(Box::new(message)).encode();
            let mut frames: Vec<_> = messages().into_iter().map(message).collect();
            frames.push(ferry_proof().encode());
            frames
        }
        _ => Vec::new(),
    }
}

fn ferry_head() -> String {
    let manifest = ferry_manifest().encode();
    ferry::Head {
        part: 1,
        manifest_bytes: manifest.len() as u32,
        signature: Manifest::sign(&manifest, &SigningKey::from_bytes(&[1; 32])),
    }
    .encode()
}

fn ferry_manifest() -> Manifest {
    let charter = charter("jinfu");
    let party = |id: &str, charter| Party {
        division: division(id),
        charter: Hex(charter),
    };
    Manifest {
        format: 1,
        kind: FerryKind::Bundle,
        realm: realm(),
        from: party("jinfu", charter.id()),
        to: party("shuangfu", [2; 32]),
        number: 2,
        after: 1,
        previous: Some(Hex([3; 32])),
        one_way: false,
        made: NOW,
        acknowledges: None,
        ledgers: vec![LedgerRange {
            origin: shard(),
            from: 1,
            to: 3,
            root: Hex([4; 32]),
        }],
        payload: Payload {
            suite: SUITE,
            key: Hex([5; seal::ferry::SEALED_KEY_BYTES]),
            bytes: 100,
            frames: 3,
        },
        parts: vec![Part {
            bytes: 100,
            sha256: Hex([6; 32]),
        }],
        chain: vec![
            charter
                .encode()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect(),
        ],
    }
}

fn join_request() -> JoinRequest {
    let key = |number| SigningKey::from_bytes(&[number; 32]);
    let public = |number| key(number).verifying_key().to_bytes();
    let keys = NodeKeys {
        sign: public(1),
        witness: public(2),
        held: public(3),
        transport: public(4),
        seal: vec![5; 1216],
    };
    let between = (division("shuangfu"), division("jinfu"));
    let mut request = JoinRequest::new(realm(), between, &keys, NOW).expect("keys of their length");
    request.proof = Hex([6; 32]);
    request.sign([&key(1), &key(2), &key(3), &key(4)])
}

fn admission() -> Admission {
    let between = (division("shuangfu"), division("jinfu"));
    Admission::new(realm(), between, &[charter("jinfu")], NOW)
}

fn ferry_proof() -> Frame {
    Frame::Extends(Extends {
        origin: shard(),
        known_size: 2,
        proof: vec![7; 64],
    })
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn ceremony() -> (Header, Vec<Share>) {
    let context = ShareContext {
        realm: shard().realm(),
        division: shard().division(),
    };
    split(&[7; 32], 5, 3, &context, &mut rng(6)).expect("3 of 5 can be made")
}

fn dealt() -> Vec<u8> {
    let share = ceremony().1[1].encode();
    seal_dealt(&dealt_info(), &holder().public(), &share, &mut rng(7)).unwrap_or_default()
}

/// The three steps of a share for an officer above.
fn share_steps() -> Vec<ShareStep> {
    let officer = SigningKey::from_bytes(&[6; 32]);
    let key = ShareKey {
        suite: SUITE,
        organization: division("jiangjin"),
        operator: OperatorId([2; 16]),
        division: division("jinfu"),
        public: holder().public().into(),
        made_at: NOW,
        signature: [0; 64],
    };
    let dealt = DealtShare {
        suite: SUITE,
        division: division("jinfu"),
        plan: [1; 32],
        header: ceremony().0.encode().into(),
        number: 2,
        organization: division("jiangjin"),
        operator: OperatorId([2; 16]),
        key: key.id(),
        sealed: dealt().into(),
        signature: [0; 64],
    };
    let word = ShareWord {
        suite: SUITE,
        division: division("jinfu"),
        header: [2; 32],
        number: 2,
        organization: division("jiangjin"),
        operator: OperatorId([2; 16]),
        signed_at: NOW,
        signature: [0; 64],
    };
    vec![
        ShareStep::Ready(key.sign(&officer)),
        ShareStep::Dealt(dealt.sign(&officer)),
        ShareStep::Confirmed(word.sign(&officer)),
    ]
}

fn division(id: &str) -> DivisionId {
    DivisionId::new(id).expect("a literal division")
}

fn kind(id: &str) -> Kind {
    Kind::new(id).expect("a literal kind")
}

fn purpose() -> Purpose {
    Purpose::new("registration").expect("a literal purpose")
}

fn realm() -> Realm {
    Realm::new("jiangjin.example").expect("a literal realm")
}

fn node_keys() -> NodeKeys {
    Keystore::generate(&mut rng(1)).public_keys()
}

fn charter(id: &str) -> Charter {
    let unsigned = Charter {
        suite: SUITE,
        realm: realm(),
        division: division(id),
        name: "示例社区".into(),
        level: Level::Community,
        parent: division("town"),
        codes: vec![DivisionCode {
            scheme: kind("mca"),
            code: "500116".into(),
            valid_from: "2020-01-01".into(),
        }],
        keys: node_keys(),
        serial: 1,
        not_before: UnixMillis(NOW.0 - 1),
        not_after: UnixMillis(NOW.0 + 1),
        signature: [0; 64],
    };
    unsigned.sign(&SigningKey::from_bytes(&[4; 32]))
}

fn act() -> Act {
    let unsigned = Act {
        suite: SUITE,
        capacity: Capacity::Operator,
        key: [0; 32],
        organization: division("jinfu"),
        purpose: purpose(),
        source: Some([1; 32]),
        first: 24,
        count: 300,
        root: [2; 32],
        previous: Some([3; 32]),
        authority_size: 70_000,
        authority_root: [4; 32],
        signed_at: NOW,
        signature: [0; 64],
    };
    unsigned.sign(&shard(), &SigningKey::from_bytes(&[5; 32]))
}

/// One plan for each work that there is.
fn plans() -> Vec<Plan> {
    let works = vec![
        Work::RotateEpoch {
            origin: shard(),
            compromised: true,
        },
        Work::RetireEpoch {
            origin: shard(),
            epoch: 1,
        },
        Work::EndGrant {
            grant: GrantId([1; 16]),
            reason: kind("agreement-ended"),
        },
        Work::Erase {
            origin: shard(),
            record: RECORD,
            basis: "PIPL 47".into(),
        },
        Work::RotateNode {
            division: division("jinfu"),
        },
        Work::ReplaceCharter {
            division: division("jinfu"),
            keys: Some([7; 32]),
        },
        Work::ReplaceCharter {
            division: division("jinfu"),
            keys: None,
        },
        Work::Share {
            shares: 2,
            threshold: 2,
            holders: vec![
                ShareHolder {
                    organization: division("jinfu"),
                    operator: OperatorId([1; 16]),
                    key: None,
                },
                ShareHolder {
                    organization: division("jiangjin"),
                    operator: OperatorId([2; 16]),
                    key: Some([3; 32]),
                },
            ],
        },
        Work::RotateKek {
            division: division("jinfu"),
        },
        Work::Order(StandingOrder {
            tasks: vec![Task::Reseal, Task::Retention],
            origins: vec![shard()],
            not_after: NOW,
            classes: Some(vec![ClassTerm {
                kind: kind("person"),
                group: kind("care"),
                days: 1_096,
            }]),
        }),
        Work::AmendGrant {
            grant: GrantId([1; 16]),
            fields: vec![5, 30],
            rows: [3; 32],
            history: History::All,
            basis: "PIPL 13(3)".into(),
            assessment: "2026-8".into(),
        },
        Work::Officer {
            operator: OperatorId([3; 16]),
            key: [4; 32],
        },
        Work::MoveShard {
            origin: shard(),
            to: division("dingshan-xi"),
            rows: [6; 32],
            closes: true,
            basis: "2026-118".into(),
        },
        Work::ReceiveShard {
            origin: shard(),
            plan: [7; 32],
        },
        Work::ExplainClock {
            origin: shard(),
            first: 3,
            end: 8,
            claimed: NOW,
            cosigned: NOW,
            reason: "2026-9".into(),
        },
        Work::Publish {
            what: What::Codes,
            version: 2,
            hash: published_set().hash(),
        },
    ];
    let plan = |work| Plan {
        suite: SUITE,
        division: division("jinfu"),
        work,
        made_by: OperatorId([1; 16]),
        made_at: NOW,
        not_after: NOW,
        figures: vec![Figure {
            name: kind("records"),
            count: 70_000,
        }],
        nonce: [5; 16],
        signature: [0; 64],
    };
    let maker = SigningKey::from_bytes(&[5; 32]);
    works.into_iter().map(|w| plan(w).sign(&maker)).collect()
}

fn approval() -> Approval {
    let unsigned = Approval {
        suite: SUITE,
        plan: [1; 32],
        division: division("jinfu"),
        organization: division("jiangjin"),
        operator: OperatorId([2; 16]),
        approved: true,
        signed_at: NOW,
        signature: [0; 64],
    };
    unsigned.sign(&SigningKey::from_bytes(&[6; 32]))
}

fn grant() -> GrantStatement {
    GrantStatement {
        id: GrantId([1; 16]),
        origin: shard(),
        holder: division("civil-affairs"),
        holder_charter: [2; 32],
        fields: vec![5, 12, 30],
        schema: 1,
        rows: [3; 32],
        purpose: purpose(),
        basis: "PIPL 13(3)".into(),
        assessment: "2026-7".into(),
        epoch: 1,
        envelope: [4; 32],
        policy: [5; 32],
        not_after: NOW,
        owner_charter: [6; 32],
        history: None,
    }
}

fn renewal() -> Renewal {
    Renewal {
        division: division("jinfu"),
        plan: [1; 32],
        replaces: [2; 32],
        keys: node_keys(),
        old: [3; 64],
        new: [4; 64],
    }
}

fn succession() -> Succession {
    Succession::sign(
        charter("jiangjin"),
        charter("jiangjin"),
        &SigningKey::from_bytes(&[5; 32]),
    )
}

fn published_set() -> PublishedSet {
    PublishedSet {
        format: record::published::FORMAT,
        what: What::Codes,
        version: 2,
        program: "0.1.0".into(),
        files: vec![SetFile {
            name: "dialect.csv".into(),
            text: "code,name,aliases\n1,甲,A|a\n2,乙\n".into(),
        }],
        lowers: vec![],
    }
}

fn statements() -> Vec<Statement> {
    let mut statements: Vec<Statement> = plans().into_iter().map(Statement::Plan).collect();
    statements.push(Statement::Approval(approval()));
    statements.push(Statement::PlanClosed(PlanClosed {
        plan: [1; 32],
        outcome: Outcome::Withdrawn,
    }));
    statements.extend([
        Statement::Renewal(Box::new(renewal())),
        Statement::Succession(Box::new(succession())),
        Statement::Charter(charter("jinfu")),
        Statement::Revocation(Revocation {
            charter: [1; 32],
            division: division("jinfu"),
            reason: kind("lost-key"),
        }),
        Statement::Operator(OperatorCertificate {
            operator: OperatorId([1; 16]),
            key: [2; 32],
            organization: division("jinfu"),
            role: Role::GridWorker,
            not_after: NOW,
            grid: Some([3; 32]),
        }),
        Statement::OperatorDisabled(OperatorId([1; 16])),
        Statement::Grant(grant()),
        Statement::GrantAmended(GrantAmendment {
            plan: [1; 32],
            grant: GrantStatement {
                fields: vec![5, 30],
                history: Some(History::All),
                ..grant()
            },
        }),
        Statement::InForce(InForce {
            what: kind("policies"),
            version: 2,
            hash: [6; 32],
        }),
        Statement::Published(Published {
            what: What::Codes,
            version: 2,
            hash: published_set().hash(),
            plan: [7; 32],
        }),
        Statement::Declined(Declined {
            what: What::Policies,
            version: 3,
            hash: [8; 32],
            reason: kind("program-too-old"),
        }),
    ]);
    statements.extend(transfers());
    let steps = share_steps().into_iter();
    statements.extend(steps.map(|step| Statement::Share(Box::new(step))));
    statements
}

/// An offer, both answers, and both steps.
fn transfers() -> Vec<Statement> {
    let transfer = GrantId([1; 16]);
    let answer = |word| {
        Statement::TransferAnswer(TransferAnswer {
            transfer,
            origin: shard(),
            word,
        })
    };
    let step = |event| {
        Statement::TransferStep(TransferStep {
            transfer,
            origin: shard(),
            event,
        })
    };
    vec![
        Statement::TransferOffer(TransferOffer {
            id: transfer,
            origin: shard(),
            record: RECORD,
            version: 3,
            leaf: [2; 32],
            content: [3; 32],
            to: division("dingshan-xi"),
            basis: "2026-118".into(),
            offered_at: NOW,
            closed_at: Some(NOW),
        }),
        answer(TransferWord::Accepted(Acceptance {
            origin: shard(),
            index: 7,
            entry: vec![0x83, 1, 1].into(),
            proof: vec![[4; 32].into()],
            checkpoint: "a note\n".into(),
        })),
        answer(TransferWord::Refused {
            reason: kind("not-ours"),
        }),
        step(TransferEvent::Withdrawn),
        step(TransferEvent::Erased { plan: [5; 32] }),
        Statement::Moving(Box::new(Moving::Offered(BatchOffer {
            id: transfer,
            plan: [6; 32],
            origin: shard(),
            to: division("dingshan-xi"),
            basis: "2026-118".into(),
            offered_at: NOW,
            items: vec![BatchItem {
                record: RECORD,
                version: 3,
                leaf: [2; 32],
                content: [3; 32],
                closed_at: None,
            }],
        }))),
        Statement::Moving(Box::new(Moving::Answered(BatchAnswer {
            batch: transfer,
            origin: shard(),
            refused: vec![BatchRefusal {
                place: 1,
                reason: kind("registered-already"),
            }],
            acceptance: Some(BatchAcceptance {
                origin: shard(),
                first: 6,
                peaks: vec![[4; 32].into(), [5; 32].into()],
                leaves: vec![[6; 32].to_vec().into(), vec![0x83, 1, 1].into()],
                proof: vec![[7; 32].into()],
                checkpoint: "a note\n".into(),
            }),
        }))),
        Statement::ShardClosed(Box::new(ShardClosed {
            origin: shard(),
            plan: [6; 32],
            size: 12,
            root: [7; 32],
            checkpoint: "a note\n".into(),
            successors: vec![shard()],
            closed_at: NOW,
        })),
    ]
}

fn record_entry(sealed: &SealedBody) -> RecordEntry {
    RecordEntry {
        suite: SUITE,
        record: RECORD,
        version: 1,
        operation: Operation::Register,
        previous: None,
        schema: 1,
        epoch: 1,
        content: sealed.content,
        body: sealed.hash,
        recorded_at: NOW,
    }
}

fn entries() -> Vec<Entry> {
    let mut entries = vec![
        Entry::Record(sealed_body().1),
        Entry::Act(act()),
        Entry::Access(AccessEntry {
            suite: SUITE,
            epoch: 1,
            content: [1; 32],
            body: [2; 32],
            recorded_at: NOW,
        }),
        Entry::Grant(GrantEntry {
            suite: SUITE,
            operation: GrantOperation::Enter,
            record: Some(RECORD),
            shard_size: 9,
            shard_root: [1; 32],
            parcel: Some([2; 32]),
            recorded_at: NOW,
        }),
        Entry::Letter(LetterEntry {
            suite: SUITE,
            step: Step::Propose,
            id: LetterId([1; 16]),
            answers: None,
            entry: None,
            content: Some([2; 32]),
            body: Some([3; 32]),
            until: Some(NOW),
            recorded_at: NOW,
        }),
        Entry::Letter(LetterEntry {
            suite: SUITE,
            step: Step::Accept,
            id: LetterId([1; 16]),
            answers: Some([4; 32]),
            entry: Some([5; 32]),
            content: Some([2; 32]),
            body: Some([3; 32]),
            until: None,
            recorded_at: NOW,
        }),
    ];
    entries.extend(statements().into_iter().map(|statement| {
        Entry::Authority(AuthorityEntry {
            suite: SUITE,
            statement,
            recorded_at: NOW,
        })
    }));
    entries
}

/// A sealed record of nobody, its entry, and the parcel of three of its fields.
fn sealed_record() -> (SealedBody, RecordEntry, Parcel) {
    let catalogue = Catalogue::builtin();
    let schema = catalogue
        .version(&kind("person"), 1)
        .expect("the first schema of persons is built in");
    let mut draft = Draft::default();
    for (field, value) in [("name", "张三"), ("citizen_number", "11010519491231002X")] {
        draft.fields.insert(field.into(), value.into());
    }
    let checked = draft
        .check(schema, catalogue, "2026-06-30")
        .expect("the draft obeys the schema");
    let origin = shard();
    let ctx = CellContext {
        origin: &origin,
        record: RECORD,
        version: 1,
        epoch: 1,
        schema: 1,
    };
    let keys = FieldKeys::derive(&EpochSecret::from_bytes([1; 32]), &origin, 1, schema);
    let secret = RecordSecret::from_bytes([2; 32]);
    let sealed = seal_body(&checked, schema, &ctx, &keys, &secret, &mut rng(2))
        .expect("values, schema and keys belong together");
    let entry = record_entry(&sealed);
    let body = Body::decode(&sealed.bytes).expect("what was sealed decodes");
    let opened =
        open_all(&body, &entry, schema, &ctx, &keys, &secret).expect("what was sealed opens");
    let leaf = ShardLeaf {
        entry: Entry::Record(entry.clone()).encode(),
        index: 9,
        inclusion: vec![[1; 32], [2; 32]],
    };
    let groups = schema.fields.iter().map(|field| &field.group);
    let rows = row_keys(&secret, &origin, &RECORD, groups);
    let grant_secret = GrantSecret::from_bytes([3; 32]);
    let fields: Vec<u8> = schema.fields.iter().map(|field| field.position).collect();
    let scope = GrantScope {
        grant: GrantId([1; 16]),
        origin: &origin,
        fields: &fields[..3],
        secret: &grant_secret,
        whole: false,
    };
    let parcel = Parcel::build(leaf, &body, &opened, schema, &rows, &scope, &mut rng(3))
        .expect("entry, body and values belong together");
    (sealed, entry, parcel)
}

fn sealed_body() -> (SealedBody, RecordEntry) {
    let (sealed, entry, _) = sealed_record();
    (sealed, entry)
}

fn parcel() -> Parcel {
    sealed_record().2
}

fn recovery() -> Vec<u8> {
    let public = holder().public();
    let sealed = seal_recovery(&recovery_info(), &public, b"keys and files", &mut rng(4));
    sealed.unwrap_or_default()
}

fn envelope() -> Vec<u8> {
    let info = envelope_info();
    let keys: BTreeMap<u8, FieldKey> = info
        .fields
        .iter()
        .map(|position| (*position, FieldKey::from_bytes([*position; 32])))
        .collect();
    let secret = GrantSecret::from_bytes([6; 32]);
    seal_envelope(&info, &holder().public(), &secret, &keys, &mut rng(4))
        .expect("the keys are those of the fields")
}

fn letter() -> Vec<u8> {
    let salted = salted(b"words", &mut rng(3));
    seal_letter(&letter_info(), &holder().public(), &salted, &mut rng(4))
        .expect("the words are short")
}

/// One for each way in which a proposal names its record.
fn proposals() -> Vec<Proposal> {
    let about = [
        (Wanted::Register, About::New),
        (
            Wanted::Close,
            About::Record {
                record: RECORD,
                version: Some(3),
            },
        ),
        (
            Wanted::Amend,
            About::Value {
                position: 5,
                value: "11010519491231002X".into(),
            },
        ),
    ];
    about
        .map(|(wanted, about)| Proposal {
            kind: kind("person"),
            schema: 1,
            wanted,
            about,
            changes: BTreeMap::from([(4, "张三".into()), (11, String::new())]),
            reason: kind("moved"),
            basis: "依据".into(),
            note: Some("说明".into()),
            purpose: Purpose::new("welfare").expect("a slug"),
            grant: Some(GrantId([1; 16])),
        })
        .into()
}

fn answer() -> Answer {
    Answer {
        reason: kind("done"),
        words: Some("已办".into()),
        rule: Some("default-nothing".into()),
        written: Some(Written {
            record: RECORD,
            version: 4,
            index: 9,
        }),
        otherwise: vec![11],
    }
}

fn keystore() -> Vec<u8> {
    let mut keystore = Keystore::generate(&mut rng(1));
    let epoch = EpochSecret::from_bytes([1; 32]);
    keystore.epochs.insert((shard(), 1), epoch);
    keystore.pages.insert(7, PageKey::generate(&mut rng(5)));
    keystore
        .seal(&key_file(), &mut rng(6))
        .expect("a key file is always there")
}

fn signer() -> NoteSigner {
    NoteSigner::from_seed(shard().as_str(), &[1; 32]).expect("an origin is a key name")
}

fn leaves(size: u64) -> Vec<ledger::Hash> {
    (0..size)
        .map(|leaf| leaf_hash(&leaf.to_be_bytes()))
        .collect()
}

fn frontier(size: u64) -> Frontier {
    let mut frontier = Frontier::new();
    for leaf in leaves(size) {
        frontier.append(leaf);
    }
    frontier
}

fn head(size: u64) -> Checkpoint {
    Checkpoint::new(shard().as_str(), size, frontier(size).root()).expect("an origin and a size")
}

fn note(size: u64) -> String {
    head(size).sign(&signer()).expect("the key is the origin's")
}

fn cosigned(size: u64) -> String {
    let note = note(size);
    let log = signer().verifier(KeyKind::Note);
    let bytes = note.as_bytes();
    let verified = verify::extension(
        &Frontier::new(),
        &leaves(size),
        bytes,
        &log,
        shard().as_str(),
    )
    .expect("the leaves are those under the head");
    let witness =
        NoteSigner::from_seed("jiangjin.example/town/witness", &[2; 32]).expect("a literal name");
    let line = verified
        .cosign(&witness, NOW.secs())
        .expect("a time in range");
    checkpoint::add_signature_line(bytes, line.as_bytes()).expect("one line fits")
}

/// A request to cosign the head of five leaves.
fn request(old_size: u64) -> String {
    let proof = consistency(&tiles(5), old_size, 5).expect("the tiles are those of the tree");
    let note = note(5);
    let request = AddCheckpoint {
        old_size,
        proof,
        note,
    };
    request.encode()
}

fn tiles(size: u64) -> BTreeMap<(u8, u64), Vec<u8>> {
    let (_, writes) = plan_append(&ledger::tile::TreeEdge::new(), &leaves(size));
    writes
        .into_iter()
        .map(|write| ((write.level, write.index), write.bytes))
        .collect()
}

fn proof(extra: Vec<u8>) -> Vec<u8> {
    let hashes = inclusion(&tiles(5), 2, 5).expect("the tiles are those of the tree");
    let proof = TlogProof::new(extra, 2, hashes, cosigned(5).as_bytes());
    proof
        .expect("the parts are well-formed")
        .encode()
        .into_bytes()
}

fn tile_paths() -> Vec<Vec<u8>> {
    let hashes = TileTree::Hashes { level: 1 };
    [
        (hashes, 0, 17),
        (hashes, 1_234_067, 256),
        (TileTree::Entries, u64::MAX, 255),
    ]
    .map(|(tree, index, width)| {
        let path = TilePath::new(tree, index, width).expect("level and width are in range");
        path.to_string().into_bytes()
    })
    .into()
}

fn bundle() -> Vec<u8> {
    let entries: Vec<Vec<u8>> = entries().iter().map(Entry::encode).collect();
    encode_bundle(&entries[..3]).expect("three entries fit")
}

fn mark() -> Mark {
    let origin = Origin::new(&realm(), &division("jinfu"), &kind("access"));
    let receipt = Receipt::committed(origin, 41, [1; 32], NOW);
    Mark::of(&MarkKey::from_bytes([2; 32]), &receipt)
}

fn messages() -> Vec<Message> {
    let origin = shard();
    let chain = vec![charter("jinfu"), charter("town")];
    let (sealed, entry, _) = sealed_record();
    let entry = Entry::Record(entry).encode();
    let gone = Gone {
        index: 9,
        entry: entry.clone(),
        proof: vec![[5; 32]],
    };
    let items = vec![
        Item {
            entry: entry.clone(),
            body: Some(sealed.bytes),
            gone: None,
        },
        Item {
            entry,
            body: None,
            gone: Some(gone),
        },
    ];
    let cosigned = cosigned(3);
    let line = cosigned.lines().last().unwrap_or_default();
    vec![
        Message::Enrol(Enrol {
            division: division("jinfu"),
            secret: Secret::new([7; 32]),
            keys: node_keys(),
        }),
        Message::Enrolled(Enrolled {
            chain: chain.clone(),
        }),
        Message::Hello(Hello {
            realm: realm(),
            chain: chain.clone(),
            now: NOW,
            successions: Successions::default(),
        }),
        Message::Welcome(Welcome {
            chain,
            now: NOW,
            successions: Successions::default(),
        }),
        Message::Renew(renewal()),
        Message::Recovery(Recovery::Ask(RecoveryAsk {
            division: division("jinfu"),
            secret: Secret::new([5; 32]),
            file: None,
            offset: 0,
        })),
        Message::Recovery(Recovery::Ask(RecoveryAsk {
            division: division("jinfu"),
            secret: Secret::new([5; 32]),
            file: Some([6; 32]),
            offset: 131_072,
        })),
        Message::Recovery(Recovery::Piece(RecoveryPiece {
            file: [6; 32],
            total: 131_080,
            offset: 131_072,
            bytes: vec![7; 8],
        })),
        Message::Welcome(Welcome {
            chain: vec![charter("jiangjin")],
            now: NOW,
            successions: Successions(vec![succession()]),
        }),
        Message::Refused(Refused {
            code: RefusalCode::Expired,
            reason: "过期 / expired".into(),
        }),
        Message::Offer(Offer {
            origin: origin.clone(),
            note: note(3),
        }),
        Message::Want(Want {
            origin: origin.clone(),
            from: 3,
            head_size: 9,
            known_size: Some(5),
        }),
        Message::Entries(Entries {
            origin: origin.clone(),
            head_size: 9,
            first: 7,
            items,
            proof: vec![[8; 32]; 2],
            extends: vec![[9; 32]],
        }),
        Message::Cosigned(Cosigned {
            origin: origin.clone(),
            size: 3,
            lines: vec![format!("{line}\n")],
        }),
        Message::Rejected(Rejected {
            origin,
            code: RejectCode::Fork,
            size: 4,
            reason: "分叉 / fork".into(),
            note: Some(note(3)),
        }),
    ]
}
