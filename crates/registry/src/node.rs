//! A node: its store, keys, ledgers and holdings, opened together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use record::act::Capacity;
use record::authority::{
    AuthorityEntry, Charter, DivisionCode, InForce, Level, NodeKeys, Statement,
};
use record::entry::{Entry, SUITE};
use record::id::{DivisionId, Hash, Kind, Origin, Purpose, Realm, UnixMillis};
use record::schema::Catalogue;
use store::Store;
use store::embedded::{Embedded, Options};
use store::pages::Pages;

use crate::authority::{Authority, kept};
use crate::book::{Appended, Book, Leaf, Signer, Stamp};
use crate::config::{CONFIG_FORMAT, Files, KeyCustody, NodeConfig, ParentAddress};
use crate::error::{RegistryError, Result};
use crate::guard::Guard;
use crate::holding::Holding;
use crate::keys::{Custody, Keys, Opener};
use crate::moves::{Moves, Watched};
use crate::replicate::Peers;

/// Charters last two years.
pub const CHARTER_MILLIS: u64 = 2 * 365 * 24 * 3600 * 1000;

/// Whom it concerns that a head moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concerns {
    /// Everybody with whom this node speaks.
    All,
    /// The node above, and whoever shows what is here: nobody below is offered more by it.
    Above,
}

/// Called after a ledger's head moved, from the thread that moved it.
pub type Listener = Box<dyn Fn(Concerns) + Send + Sync>;

/// An open node.
pub struct Registry {
    /// `node.json` as it was at the start; what changes of it is in `standing`.
    pub(crate) config: NodeConfig,
    pub(crate) standing: RwLock<crate::standing::Standing>,
    /// Why the parent issued no charter of the keys that wait, when it was asked last.
    pub(crate) renewal_refused: Mutex<Option<String>>,
    pub(crate) files: Files,
    pub(crate) store: Arc<dyn Store>,
    /// Which shards moved; the store notes it.
    pub(crate) moves: Arc<Moves>,
    /// Replicas whose records' chains are to be completed.
    pub(crate) behind_chains: Mutex<BTreeSet<Origin>>,
    pub(crate) pages: Mutex<Pages>,
    pub(crate) damaged_pages: crate::secrets::DamagedPages,
    pub(crate) growth: crate::disk::History,
    pub(crate) keys: Custody,
    pub(crate) guard: Guard,
    /// What the own recovery ledger has, once it was read.
    pub(crate) recovered: Mutex<Option<crate::recovery::Recovered>>,
    /// Where the secrets of records lie whose pointers were lost, once that was looked for.
    pub(crate) found_secrets: Mutex<Option<crate::recovery::FoundSecrets>>,
    /// What is to open the keystore from the next change of its key-encryption key on.
    pub(crate) next_opener: Mutex<Option<Opener>>,
    /// Held while a ceremony of shares is changed.
    pub(crate) ceremony: Mutex<()>,
    /// Held while a piece of a recovery is given.
    pub(crate) giving: Mutex<()>,
    /// The schemas, code lists and policies that it runs.
    pub(crate) published: crate::published::InUse,
    pub(crate) authority: RwLock<Authority>,
    books: Mutex<HashMap<Origin, Arc<Mutex<Book>>>>,
    pub(crate) holdings: RwLock<BTreeMap<Origin, Arc<RwLock<Holding>>>>,
    /// Ledgers that wait for a schema.
    pub(crate) awaited: Mutex<crate::awaited::Awaited>,
    pub(crate) peers: Mutex<Peers>,
    /// Where pages of record secrets are that were written again under another number.
    pub(crate) moved: RwLock<BTreeMap<u32, u32>>,
    /// Ledgers with destructions that are not done, or whose receipts have not all come.
    pub(crate) destructions: Mutex<BTreeSet<Origin>>,
    /// Held while destructions are done: two at once would sign two receipts.
    pub(crate) destroying: Mutex<()>,
    /// Held while the files of the working index are written or destroyed.
    pub(crate) indexing: Mutex<()>,
    /// The latest time that an own ledger was signed at, in milliseconds.
    pub(crate) latest: AtomicU64,
    /// Whose clocks say something else.
    pub(crate) clocks: Mutex<crate::clock::Clocks>,
    /// Held while a checkpoint is checked, persisted and cosigned.
    pub(crate) witnessing: Places,
    /// Held while a proposal is taken in or answered: an answer and what it says are one thing.
    pub(crate) answering: Mutex<()>,
    /// When proposals that were kept long enough were looked for last, in milliseconds.
    pub(crate) letters_swept: AtomicU64,
    /// Held while a plan is made or run.
    pub(crate) planning: Mutex<()>,
    /// Held while a bundle is packed or opened.
    pub(crate) ferrying: Mutex<()>,
    /// What is done for records that move, one at a time, and what was checked of them.
    pub(crate) transfers: crate::transfer::Desk,
    /// What the policies in force say of grants that stand.
    pub(crate) judged: crate::grant::judged::Verdicts,
    pub(crate) counters: crate::status::Counters,
    /// The end of every ledger, as read last; see [`crate::heads`].
    pub(crate) lines: RwLock<crate::heads::Lines>,
    listener: RwLock<Option<Listener>>,
}

/// What a node is told when it is made.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// The realm.
    pub realm: Realm,
    /// The division.
    pub division: DivisionId,
    /// Its Chinese name.
    pub name: String,
    /// Its level.
    pub level: Level,
    /// Official codes.
    pub codes: Vec<DivisionCode>,
    /// Where HTTP listens.
    pub http: String,
    /// Where replication listens.
    pub listen: String,
    /// What opens the keystore.
    pub custody: KeyCustody,
    /// The realm's quorum of cosignatures.
    pub quorum: u32,
}

/// A name of this program's own, known to be well formed.
pub(crate) fn word(text: &'static str) -> Kind {
    Kind::new(text).expect("a literal slug")
}

/// A purpose of this program's own.
pub(crate) fn purpose(text: &'static str) -> Purpose {
    Purpose::new(text).expect("a literal slug")
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held leaves memory behind, never half a commit: the store is the truth.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One lock for each of a few groups of ledgers, so that one ledger rarely waits for another.
#[derive(Default)]
pub(crate) struct Places([Mutex<()>; 32]);

impl Places {
    /// Waits for a ledger's place. Nobody holds two.
    pub(crate) fn of(&self, origin: &Origin) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        origin.as_str().hash(&mut hasher);
        lock(&self.0[hasher.finish() as usize % self.0.len()])
    }
}

/// The keys of a node that waits for its charter.
pub struct Applicant {
    keys: Keys,
    new: NewNode,
    dir: std::path::PathBuf,
}

impl Applicant {
    /// Makes the keys of a node that will join a realm.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when the directory holds a node already.
    pub fn create(dir: &Path, new: NewNode, opener: &Opener) -> Result<Self> {
        refuse_existing(dir)?;
        private_directory(dir)?;
        let files = Files::new(dir);
        // A join that was cut off before its charter came goes on with the keys it made.
        let keys = if files.keystore().exists() {
            Keys::open(dir, opener)?
        } else {
            Keys::create(dir, &new.custody, opener)?
        };
        Ok(Self {
            keys,
            new,
            dir: dir.to_owned(),
        })
    }

    /// Makes other keys for a node that is there, under its own division, to be chartered again.
    /// Everything else of it stays; it must not run meanwhile.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when the directory holds no node of this division.
    pub fn renew(dir: &Path, new: NewNode, opener: &Opener) -> Result<Self> {
        let config = NodeConfig::read(dir)?;
        if config.division != new.division || config.realm != new.realm {
            return Err(RegistryError::Directory(format!(
                "邀请给的是 `{}`，此处是 `{}` / the invitation is for another division than the node here",
                new.division, config.division
            )));
        }
        let keys = Keys::open(dir, opener)?.renewed()?;
        Ok(Self {
            keys,
            new: NewNode {
                http: config.http,
                listen: config.listen,
                custody: config.custody,
                ..new
            },
            dir: dir.to_owned(),
        })
    }

    /// The public keys to be chartered.
    pub fn public(&self) -> NodeKeys {
        self.keys.public()
    }

    /// Signs a request to join with every signing key.
    pub(crate) fn sign_request(&self, request: ferry::JoinRequest) -> ferry::JoinRequest {
        let transport = ed25519_dalek::SigningKey::from_bytes(&self.keys.transport_seed());
        let keys = &self.keys;
        request.sign([&keys.sign, &keys.witness, &keys.held, &transport])
    }

    /// The transport key's seed, for the network.
    pub fn transport_seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        self.keys.transport_seed()
    }

    /// Writes `node.json`; from here on the directory holds a node.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when the chain is not for these keys or does not hold.
    pub fn chartered(
        self,
        chain: &[Charter],
        root: &[u8; 32],
        parent: Option<ParentAddress>,
        now: UnixMillis,
    ) -> Result<()> {
        record::authority::verify_chain(chain, &self.new.realm, root, now, |_| false)
            .map_err(|e| RegistryError::Directory(e.to_string()))?;
        let own = &chain[0];
        if own.keys != self.keys.public() || own.division != self.new.division {
            return Err(RegistryError::Directory(
                "the charter is for other keys or another division; ask the parent for a fresh invitation".into(),
            ));
        }
        // A node that is chartered again goes on asking its witnesses.
        let witnesses = NodeConfig::read(&self.dir).map_or(Vec::new(), |old| old.witnesses);
        NodeConfig {
            format: CONFIG_FORMAT,
            realm: self.new.realm,
            division: own.division.clone(),
            name: own.name.clone(),
            level: own.level,
            root: data_encoding::HEXLOWER.encode(root),
            chain: chain
                .iter()
                .map(|c| data_encoding::HEXLOWER.encode(&c.encode()))
                .collect(),
            parent,
            http: self.new.http,
            listen: self.new.listen,
            custody: self.new.custody,
            quorum: self.new.quorum,
            receipt_days: crate::config::week(),
            witnesses,
        }
        .write(&self.dir)
    }
}

/// Makes a directory that nobody else on the machine looks into, whatever its files are made with.
pub(crate) fn private_directory(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| RegistryError::file(dir, e))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(|e| RegistryError::file(dir, e))
}

pub(crate) fn refuse_existing(dir: &Path) -> Result<()> {
    if Files::new(dir).config().exists() {
        return Err(RegistryError::Directory(format!(
            "`{0}` 中已有节点 / there is a node in `{0}` already; choose an empty directory",
            dir.display()
        )));
    }
    Ok(())
}

/// Makes the root node of a realm: its charter is signed by itself.
///
/// # Errors
/// [`RegistryError::Directory`] when the directory holds a node already.
pub fn init(dir: &Path, new: NewNode, opener: &Opener, now: UnixMillis) -> Result<()> {
    let applicant = Applicant::create(dir, new, opener)?;
    let charter = Charter {
        suite: SUITE,
        realm: applicant.new.realm.clone(),
        division: applicant.new.division.clone(),
        name: applicant.new.name.clone(),
        level: applicant.new.level,
        parent: applicant.new.division.clone(),
        codes: applicant.new.codes.clone(),
        keys: applicant.public(),
        serial: 1,
        not_before: UnixMillis(now.0.saturating_sub(3_600_000)),
        not_after: UnixMillis(now.0 + CHARTER_MILLIS),
        signature: [0; 64],
    }
    .sign(&applicant.keys.sign);
    let root = charter.keys.sign;
    applicant.chartered(&[charter], &root, None, now)
}

impl Registry {
    /// Opens the node of a directory.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when there is none, another process has it, or the key does not fit.
    pub fn open(dir: &Path, opener: &Opener, now: UnixMillis) -> Result<Self> {
        let config = NodeConfig::read(dir)?;
        config.agrees_with_charter()?;
        let files = Files::new(dir);
        let keys = Custody::of(dir, &config, opener)?;
        let moves = Arc::new(Moves::default());
        let store: Arc<dyn Store> = Arc::new(Watched::new(
            Embedded::open(dir, Options::default())
                .map_err(|e| RegistryError::Directory(e.to_string()))?,
            moves.clone(),
        ));
        let mut behind_chains = BTreeSet::new();
        let pages = Pages::open(dir).map_err(|e| RegistryError::Directory(e.to_string()))?;
        for shard in store.shards()? {
            if let Ok(origin) = Origin::parse(&shard) {
                crate::chain::complete(store.as_ref(), &origin)?;
                if crate::chain::is_behind(store.as_ref(), &origin)? {
                    behind_chains.insert(origin);
                }
            }
        }
        let moved = {
            let there = pages
                .numbers()
                .map_err(|e| RegistryError::Store(e.to_string()))?;
            crate::destroy::moved_pages(store.as_ref(), &there)?
        };
        let destructions = crate::destroy::ledgers_with_orders(store.as_ref())?;
        let reaches = crate::reach::load(store.as_ref())?;
        let authority = match keys.index_key() {
            Ok(key) => Authority::open(
                store.as_ref(),
                &kept::Place {
                    path: &files.authority(),
                    key: &key,
                    config: &config,
                },
            )?,
            // What was kept is sealed under a key that a locked node does not have.
            Err(_) => Authority::load(store.as_ref(), &config)?,
        };
        let published = crate::published::InUse::open(store.as_ref(), &authority, &config)?;
        let registry = Self {
            standing: RwLock::new(crate::standing::Standing::of(&config)?),
            renewal_refused: Mutex::default(),
            config,
            files,
            store,
            moves,
            behind_chains: Mutex::new(behind_chains),
            pages: Mutex::new(pages),
            damaged_pages: crate::secrets::DamagedPages::default(),
            growth: crate::disk::History::open(dir),
            keys,
            guard: Guard::open(dir)?,
            recovered: Mutex::default(),
            found_secrets: Mutex::default(),
            next_opener: Mutex::default(),
            ceremony: Mutex::default(),
            giving: Mutex::default(),
            published,
            authority: RwLock::new(authority),
            books: Mutex::new(HashMap::new()),
            holdings: RwLock::new(BTreeMap::new()),
            awaited: Mutex::default(),
            peers: Mutex::new(Peers::with(reaches)),
            moved: RwLock::new(moved),
            destructions: Mutex::new(destructions),
            destroying: Mutex::new(()),
            indexing: Mutex::new(()),
            witnessing: Places::default(),
            ferrying: Mutex::new(()),
            answering: Mutex::new(()),
            letters_swept: AtomicU64::new(0),
            planning: Mutex::new(()),
            latest: AtomicU64::new(0),
            clocks: Mutex::default(),
            transfers: crate::transfer::Desk::default(),
            judged: crate::grant::judged::Verdicts::default(),
            counters: crate::status::Counters::default(),
            lines: RwLock::default(),
            listener: RwLock::new(None),
        };
        registry.check_own_ledgers()?;
        registry.note_room(now);
        if !registry.keys.is_locked() {
            registry.begin(now)?;
        }
        Ok(registry)
    }

    /// What a node does once its keys are open.
    pub(crate) fn begin(&self, now: UnixMillis) -> Result<()> {
        self.found(now)?;
        self.adopt_published(now)?;
        self.state_versions(now)?;
        self.check_keystore()?;
        self.seal_recovery();
        self.settle_secrets()?;
        self.open_holdings(now)?;
        // What a crash cut off; a ledger that is not signed at present waits, the node does not.
        self.go_on_destroying(now);
        self.tend_letters(now);
        self.go_on_transferring(now);
        Ok(())
    }

    /// Opens the end of every own ledger, so that one that may not be signed is known from the start.
    fn check_own_ledgers(&self) -> Result<()> {
        let shards = self.store.shards()?;
        let there = shards.iter().filter_map(|shard| Origin::parse(shard).ok());
        let mut own: BTreeSet<Origin> = there
            .filter(|origin| origin.division() == self.config.division)
            .collect();
        // An old copy may lack a ledger altogether that was signed since.
        own.extend(
            self.catalogue()
                .kinds()
                .into_iter()
                .map(|schema| self.shard(&schema.kind)),
        );
        own.extend([
            self.own("authority"),
            self.own("access"),
            self.own("recovery"),
        ]);
        for origin in own {
            self.book(&origin)?;
            self.remember_time(&origin)?;
        }
        Ok(())
    }

    /// Writes the first entries of the authority ledger, once.
    fn found(&self, now: UnixMillis) -> Result<()> {
        let origin = self.own("authority");
        let book = self.book(&origin)?;
        // A node that was recovered gets its ledger, the first entries too, from its parent.
        if lock(&book).size() > 0 || self.guard.is_halted(&origin) {
            return Ok(());
        }
        let charter = self.chain()?.into_iter().next().ok_or_else(|| {
            RegistryError::Directory("`node.json` has no charter; restore the file".into())
        })?;
        let in_force = |what: &'static str, hash: Hash| {
            Statement::InForce(InForce {
                what: word(what),
                version: self.published.version(what),
                hash,
            })
        };
        self.state(
            vec![
                Statement::Charter(charter),
                in_force("schemas", self.catalogue().hash()),
                in_force("policies", self.policies().hash()),
                Statement::InForce(crate::versions::program()),
            ],
            &self.service(purpose("administration")),
            now,
        )?;
        Ok(())
    }

    /// The origin of one of this node's own ledgers.
    pub fn own(&self, ledger: &'static str) -> Origin {
        Origin::new(&self.config.realm, &self.config.division, &word(ledger))
    }

    /// The origin of this node's shard of a kind.
    pub fn shard(&self, kind: &Kind) -> Origin {
        Origin::new(&self.config.realm, &self.config.division, kind)
    }

    /// Who this node is; [`Registry::chain`], [`Registry::root_key`] and [`Registry::parent`] for what
    /// changes of it while it runs.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The schemas and code lists in force.
    pub fn catalogue(&self) -> &'static Catalogue {
        self.published.catalogue()
    }

    /// The rules in force.
    pub(crate) fn policies(&self) -> &'static policy::PolicySet {
        self.published.policies()
    }

    /// The transport key's seed, for the network.
    pub fn transport_seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        self.keys.transport_seed()
    }

    /// Tells `listener` whenever a head moved.
    pub fn on_change(&self, listener: Listener) {
        *self
            .listener
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    pub(crate) fn changed(&self) {
        self.tell_listener(Concerns::All);
    }

    /// The head of a replica moved, and nothing else: with hundreds of children most of what moves
    /// goes to none of them, and none is to look.
    pub(crate) fn replica_changed(&self, origin: &Origin) {
        self.tell_listener(match crate::moves::may_go_down(origin) {
            true => Concerns::All,
            false => Concerns::Above,
        });
    }

    fn tell_listener(&self, concerns: Concerns) {
        let listener = self.listener.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = listener.as_ref() {
            listener(concerns);
        }
    }

    /// The end of an own ledger.
    pub(crate) fn book(&self, origin: &Origin) -> Result<Arc<Mutex<Book>>> {
        let mut books = lock(&self.books);
        if let Some(book) = books.get(origin) {
            return Ok(book.clone());
        }
        let book = Book::open(self.store.as_ref(), origin)?;
        self.guard.check(origin, book.size(), |size| {
            book.root_at(self.store.as_ref(), size)
        })?;
        let book = Arc::new(Mutex::new(book));
        books.insert(origin.clone(), book.clone());
        Ok(book)
    }

    /// Forgets the end of a ledger that somebody else's delivery moved.
    pub(crate) fn forget_book(&self, origin: &Origin) {
        lock(&self.books).remove(origin);
    }

    /// The signer of what a node does alone.
    pub(crate) fn service(&self, purpose: Purpose) -> Signer<'_> {
        Signer {
            capacity: Capacity::Service,
            key: None,
            organization: self.config.division.clone(),
            purpose,
            source: None,
        }
    }

    /// Size and root of the own authority ledger.
    pub(crate) fn authority_head(&self) -> Result<(u64, Hash)> {
        let book = self.book(&self.own("authority"))?;
        let book = lock(&book);
        Ok((book.size(), book.root()))
    }

    /// Appends to an own ledger that is not the authority ledger.
    pub(crate) fn append(
        &self,
        book: &mut Book,
        signer: &Signer<'_>,
        leaves: Vec<Leaf>,
        now: UnixMillis,
        extend: impl FnOnce(&mut store::Batch, u64, &[Hash]),
    ) -> Result<Appended> {
        self.guard.allow(&book.origin)?;
        self.refuse_after_closing(&book.origin, &leaves)?;
        self.watch_clock(now);
        let old = (book.size(), book.root());
        let keys = self.keys.unlocked()?;
        let stamp = Stamp {
            log_key: &keys.sign,
            authority: self.authority_head()?,
            now,
        };
        let orders = leaves.iter().any(|leaf| leaf.entry.orders_destruction());
        let appended = book.append(self.store.as_ref(), &stamp, signer, leaves, extend)?;
        if orders {
            self.has_orders(&book.origin);
        }
        self.moved(book, old);
        Ok(appended)
    }

    /// Tells the guard that a head moved. The commit stands whatever the guard says; another copy of
    /// this node that signs, too, halts the ledger from here on.
    fn moved(&self, book: &Book, old: (u64, Hash)) {
        if let Err(error) = self
            .guard
            .swap(&book.origin, old, (book.size(), book.root()))
        {
            tracing::error!(origin = %book.origin, %error, "signing stops");
        }
    }

    /// Appends statements to the own authority ledger.
    pub(crate) fn state(
        &self,
        statements: Vec<Statement>,
        signer: &Signer<'_>,
        now: UnixMillis,
    ) -> Result<Appended> {
        let bare = |statement| (statement, None);
        self.state_with(statements.into_iter().map(bare).collect(), signer, now)
    }

    /// The same with the bodies that lie beside the statements which name one.
    pub(crate) fn state_with(
        &self,
        stated: Vec<(Statement, Option<Vec<u8>>)>,
        signer: &Signer<'_>,
        now: UnixMillis,
    ) -> Result<Appended> {
        let (statements, bodies): (Vec<Statement>, Vec<_>) = stated.into_iter().unzip();
        let leaves = statements
            .iter()
            .zip(bodies)
            .map(|(statement, body)| Leaf {
                entry: Entry::Authority(AuthorityEntry {
                    suite: SUITE,
                    statement: statement.clone(),
                    recorded_at: now,
                }),
                body,
            })
            .collect();
        let book = self.book(&self.own("authority"))?;
        let mut book = lock(&book);
        self.guard.allow(&book.origin)?;
        self.watch_clock(now);
        let old = (book.size(), book.root());
        let keys = self.keys.unlocked()?;
        let stamp = Stamp {
            log_key: &keys.sign,
            authority: old,
            now,
        };
        let appended = book.append(self.store.as_ref(), &stamp, signer, leaves, |_, _, _| {})?;
        self.moved(&book, old);
        let mut authority = self
            .authority
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let stated: Vec<(u64, Statement)> = (appended.first + 1..).zip(statements).collect();
        let head = (book.size(), book.root());
        authority.follow(&book.origin, old.0, head, &stated);
        drop(authority);
        drop(book);
        // Keys and operators change with what is stated of them.
        self.seal_recovery();
        self.changed();
        Ok(appended)
    }
}
