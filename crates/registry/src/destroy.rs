//! What follows when an entry ordered bodies to be destroyed (销毁): secrets, parcels, the working
//! index, and at last the receipt.
//!
//! The commit that kept the entry destroyed the bodies, and left a row that says what remains.
//! Everything here is found from these rows, may be done twice, and is gone on with at every start:
//! an erasure that began is finished, whatever was cut off. The receipt is signed last.
//! Refuses to decide what is destroyed: an entry of the ledger's owner did.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::PoisonError;

use record::authority::{DestructionReceipt, Finality, Statement};
use record::cbor;
use record::entry::{Entry, GrantEntry, GrantOperation, SUITE};
use record::id::{DivisionId, Origin, RecordId, UnixMillis};
use seal::secret::RecordSecret;
use store::pages::PagesError;
use store::{Batch, Store};

use crate::book::{Leaf, commit};
use crate::chain::{self, Order};
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::table::{self, LOCAL};

pub mod receipts;

/// How many receipts or retractions one act signs.
const STEP: usize = 1000;

/// One order that is not done here.
struct Pending {
    origin: Origin,
    at: u64,
    order: Order,
}

/// Where pages are that were written again. A row whose old page is still there is of a rewriting
/// that a crash undid.
pub(crate) fn moved_pages(store: &dyn Store, there: &[u32]) -> Result<BTreeMap<u32, u32>> {
    let mut moved = moved_rows(&store.scan(LOCAL, table::MOVED, b"", usize::MAX)?)?;
    moved.retain(|from, _| there.binary_search(from).is_err());
    Ok(moved)
}

/// What rows say of pages that are, or were to be, written again.
pub(crate) fn moved_rows(rows: &[store::Row]) -> Result<BTreeMap<u32, u32>> {
    let number = |bytes: &[u8]| {
        let bytes = bytes.try_into().map(u32::from_be_bytes);
        bytes.map_err(|_| RegistryError::damaged("a row of `page` is no page's number"))
    };
    rows.iter()
        .map(|(from, to)| Ok((number(from)?, number(to)?)))
        .collect()
}

/// The number that a page has at present.
pub(crate) fn page_now(moved: &BTreeMap<u32, u32>, mut page: u32) -> u32 {
    // Numbers only grow, so this ends.
    while let Some(next) = moved.get(&page).filter(|next| **next > page) {
        page = *next;
    }
    page
}

/// The ledgers that have rows of destructions.
pub(crate) fn ledgers_with_orders(store: &dyn Store) -> Result<BTreeSet<Origin>> {
    let mut found = BTreeSet::new();
    for shard in store.shards()? {
        if !store.scan(&shard, table::DESTROY, b"", 1)?.is_empty() {
            found.extend(Origin::parse(&shard).ok());
        }
    }
    Ok(found)
}

fn failed(error: PagesError) -> RegistryError {
    RegistryError::Store(error.to_string())
}

impl Registry {
    /// The number that a page of record secrets has at present.
    pub(crate) fn page_now(&self, page: u32) -> u32 {
        let moved = self.moved.read().unwrap_or_else(PoisonError::into_inner);
        page_now(&moved, page)
    }

    /// Notes that a ledger has rows of destructions.
    pub(crate) fn has_orders(&self, origin: &Origin) {
        lock(&self.destructions).insert(origin.clone());
    }

    /// `finish_destroying` where a failure is no reason to stop: it is tried again with
    /// the next entries that come, and at the next start.
    pub fn go_on_destroying(&self, now: UnixMillis) {
        if let Err(error) = self.finish_destroying(now) {
            tracing::error!(%error, "a destruction is not finished; it is gone on with later");
        }
    }

    /// Finishes every destruction that was ordered, and signs its receipt.
    ///
    /// # Errors
    /// A failure of the store or of a file; nothing is lost, and the next call goes on.
    pub(crate) fn finish_destroying(&self, now: UnixMillis) -> Result<()> {
        let _one = lock(&self.destroying);
        let pending = self.pending()?;
        if pending.is_empty() {
            return Ok(());
        }
        let pages = self.destroy_secrets(&pending)?;
        self.retract_parcels(&pending, now)?;
        // What others proposed about an erased record, and was kept, goes with it.
        for order in &pending {
            if order.origin.is_shard() && self.is_own(&order.origin) {
                self.forget_letters_about(&order.order.record)?;
            }
        }
        self.renew_working_index(&pending)?;
        if !pages.is_empty() {
            // Whoever keeps copies of pages and of their keys, for recovery, replaces those too.
            self.pages_changed(&pages)?;
        }
        self.destroy_moved_aside()?;
        cut_here(8)?;
        self.sign_receipts(&pending, now)?;
        cut_here(9)?;
        self.close_orders(&pending)?;
        // Retractions have rows of their own by now; nothing of theirs is left to do here.
        let retracted = self.pending()?;
        self.close_orders(&retracted)
    }

    fn pending(&self) -> Result<Vec<Pending>> {
        let ledgers = lock(&self.destructions).clone();
        let mut pending = Vec::new();
        for origin in ledgers {
            for (at, order) in Order::all(self.store.as_ref(), &origin)? {
                if !order.done {
                    let origin = origin.clone();
                    pending.push(Pending { origin, at, order });
                }
            }
        }
        Ok(pending)
    }

    fn is_own(&self, origin: &Origin) -> bool {
        origin.division() == self.config.division
    }

    /// Whether this node could open what the ledger held: its own shard, or what it was granted.
    fn had_keys(&self, origin: &Origin) -> bool {
        (self.is_own(origin) && origin.is_shard())
            || origin.grant_id().is_some_and(|id| {
                self.authority()
                    .grant(&id)
                    .is_some_and(|g| g.holder == self.config.division)
            })
    }

    /// Writes the pages of erased own records again without their secrets, under other keys.
    /// Gives the numbers that they had and have, also when a run before this one did it.
    fn destroy_secrets(&self, pending: &[Pending]) -> Result<Vec<u32>> {
        let own = pending
            .iter()
            .filter(|p| p.origin.is_shard() && p.order.page != 0 && self.is_own(&p.origin));
        let mut by_page: BTreeMap<u32, BTreeSet<RecordId>> = BTreeMap::new();
        for order in own {
            by_page
                .entry(order.order.page)
                .or_default()
                .insert(order.order.record);
        }
        if by_page.is_empty() {
            return Ok(Vec::new());
        }
        for (page, records) in &by_page {
            self.rewrite_page(*page, records)?;
        }
        cut_here(4)?;
        let gone: Vec<u64> = {
            let moved = self.moved.read().unwrap_or_else(PoisonError::into_inner);
            moved.keys().map(|page| u64::from(*page)).collect()
        };
        self.keys.forget_pages(&gone)?;
        cut_here(5)?;
        let changed: BTreeSet<u32> = by_page
            .keys()
            .flat_map(|page| [*page, self.page_now(*page)])
            .collect();
        Ok(changed.into_iter().collect())
    }

    /// Writes one page again. Chunks keep their places: a secret is replaced by a random one of
    /// nobody, so pointers to the others hold, but for the page's number.
    fn rewrite_page(&self, page: u32, records: &BTreeSet<RecordId>) -> Result<()> {
        let pages = lock(&self.pages);
        let from = self.page_now(page);
        let chunks = match pages.chunks(from) {
            // Lost, or never there: then nothing of it opens either.
            Err(PagesError::Missing { .. }) => return Ok(()),
            chunks => chunks.map_err(failed)?,
        };
        let sealed = |e: seal::page::PageError| RegistryError::damaged(e.to_string());
        let key = self.keys.known_page(from.into())?;
        let mut rng = rng()?;
        let mut found = false;
        let mut opened = Vec::with_capacity(chunks.len());
        for (_, chunk) in &chunks {
            let mut rows = seal::page::open_chunk(&key, from.into(), chunk).map_err(sealed)?;
            for row in rows.iter_mut().filter(|row| records.contains(&row.0)) {
                found = true;
                rand_core::Rng::fill_bytes(&mut rng, &mut row.0.0);
                row.1 = RecordSecret::generate(&mut rng);
            }
            opened.push(rows);
        }
        if !found {
            return Ok(());
        }
        let to = 1 + pages
            .numbers()
            .map_err(failed)?
            .last()
            .copied()
            .unwrap_or(0);
        // The new key is durable first, then the row that leads to the new page, then the page.
        let key = self.keys.page(to.into())?;
        cut_here(1)?;
        let written: Vec<Vec<u8>> = opened
            .iter()
            .map(|rows| {
                let rows: Vec<_> = rows.iter().map(|(id, secret)| (*id, secret)).collect();
                seal::page::seal_chunk(&key, to.into(), &rows, &mut rng).map_err(sealed)
            })
            .collect::<Result<_>>()?;
        let mut batch = Batch::new(LOCAL, None);
        batch.put(
            table::local(table::MOVED, &from.to_be_bytes()),
            to.to_be_bytes().to_vec(),
        );
        self.store
            .commit(&batch)
            .map_err(|e| RegistryError::Store(e.to_string()))?;
        cut_here(2)?;
        let slices: Vec<&[u8]> = written.iter().map(Vec::as_slice).collect();
        pages.rewrite(from, to, &slices).map_err(failed)?;
        self.moved
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(from, to);
        cut_here(3)
    }

    /// Retracts erased records from every own grant that ever had them; the entry destroys the parcels.
    fn retract_parcels(&self, pending: &[Pending], now: UnixMillis) -> Result<()> {
        let erased: BTreeMap<&Origin, BTreeSet<RecordId>> = pending
            .iter()
            .filter(|p| p.origin.is_shard() && self.is_own(&p.origin) && !p.order.redacts())
            .fold(BTreeMap::new(), |mut all, p| {
                let records: &mut BTreeSet<RecordId> = all.entry(&p.origin).or_default();
                records.insert(p.order.record);
                all
            });
        for (shard, records) in erased {
            let ledgers: BTreeSet<Origin> = self
                .authority()
                .grants()
                .filter(|grant| grant.origin == *shard)
                .map(|grant| shard.grant(&grant.id))
                .collect();
            for ledger in ledgers {
                self.retract(shard, &ledger, &records, now)?;
                cut_here(6)?;
            }
        }
        Ok(())
    }

    fn retract(
        &self,
        shard: &Origin,
        ledger: &Origin,
        records: &BTreeSet<RecordId>,
        now: UnixMillis,
    ) -> Result<()> {
        let (size, root) = {
            let book = self.book(shard)?;
            let book = lock(&book);
            (book.size(), book.root())
        };
        let book = self.book(ledger)?;
        let mut book = lock(&book);
        let store = self.store.as_ref();
        let mut had = Vec::new();
        let mut listed = Vec::new();
        for record in records {
            let scope = table::key(ledger, table::SCOPE, &record.0);
            if store.get(&scope)?.is_some() {
                listed.push(scope);
            }
            let Some(last) = chain::entries_of(store, ledger, record, 0)?.pop() else {
                continue;
            };
            let bytes = store.get(&table::entry(ledger, last))?;
            let bytes = bytes
                .ok_or_else(|| RegistryError::damaged(format!("`{ledger}` lacks entry {last}")))?;
            if !is_retraction(&chain::decode(ledger, last, &bytes)?) {
                had.push(*record);
            }
        }
        for part in had.chunks(STEP) {
            let leaf = |record: &RecordId| Leaf {
                entry: Entry::Grant(GrantEntry {
                    suite: SUITE,
                    operation: GrantOperation::Retract,
                    record: Some(*record),
                    shard_size: size,
                    shard_root: root,
                    parcel: None,
                    recorded_at: now,
                }),
                body: None,
            };
            let leaves = part.iter().map(leaf).collect();
            let signer = self.service(purpose("sharing"));
            self.append(&mut book, &signer, leaves, now, |_, _, _| {})?;
        }
        if !listed.is_empty() {
            book.extend(store, |batch| {
                for scope in listed {
                    batch.delete(scope);
                }
            })?;
        }
        drop(book);
        self.changed();
        Ok(())
    }

    /// Takes the records out of the working indexes, and writes these under a new key: what lay
    /// sealed of the old generation, or was copied of it, opens with nothing any more.
    fn renew_working_index(&self, pending: &[Pending]) -> Result<()> {
        if !pending.iter().any(|p| self.had_keys(&p.origin)) {
            return Ok(());
        }
        for order in pending.iter().filter(|p| !p.order.redacts()) {
            let holdings = self.holdings.read().unwrap_or_else(PoisonError::into_inner);
            let Some(holding) = holdings.get(&order.origin).cloned() else {
                continue;
            };
            drop(holdings);
            let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
            let record = order.order.record;
            // A row that came into scope again later stays.
            if holding
                .index
                .get(record)
                .is_some_and(|row| row.at < order.at)
            {
                holding.index.remove(record);
            }
        }
        self.renew_generation()
    }

    /// Destroys the working indexes at rest, and writes them under a new key.
    pub(crate) fn renew_generation(&self) -> Result<()> {
        // Two at once, or one while the index is written, would take files from each other.
        let _one = lock(&self.indexing);
        destroy_files(&self.files.index())?;
        cut_here(7)?;
        self.keys.renew_index()?;
        self.write_indexes()
    }

    /// Destroys what a repair moved aside and what was cut off a torn end: copies of bodies may be
    /// among it.
    fn destroy_moved_aside(&self) -> Result<()> {
        let dir = self.files.dir();
        let failed = |e| RegistryError::file(dir, e);
        for item in std::fs::read_dir(dir).map_err(failed)? {
            let path = item.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && (name == "cut" || name.starts_with("damaged")) {
                tracing::warn!(path = %path.display(), "destroyed: it may hold what was erased");
                destroy_files(&path)?;
            }
        }
        Ok(())
    }

    fn sign_receipts(&self, pending: &[Pending], now: UnixMillis) -> Result<()> {
        let mut statements = Vec::new();
        for p in pending {
            // The owner's own retraction says it all.
            if self.is_own(&p.origin) && !p.origin.is_shard() {
                continue;
            }
            let own = &self.config.division;
            if self.authority().receipt(own, &p.origin, p.at).is_some() {
                continue;
            }
            if self.is_ended_grant_of_own(&p.origin) {
                // One receipt for the whole grant says it for every row.
                continue;
            }
            statements.push(Statement::Receipt(DestructionReceipt {
                origin: p.origin.clone(),
                index: p.at,
                record: Some(p.order.record),
                bodies: p.order.bodies,
                finality: match self.had_keys(&p.origin) && !p.order.redacts() {
                    true => Finality::KeysDestroyed,
                    false => Finality::Overwritten,
                },
            }));
        }
        for part in statements.chunks(STEP) {
            self.state(part.to_vec(), &self.service(purpose("security")), now)?;
        }
        Ok(())
    }

    fn is_ended_grant_of_own(&self, ledger: &Origin) -> bool {
        let authority = self.authority();
        let grant = ledger.grant_id().and_then(|id| authority.grant(&id));
        grant.is_some_and(|grant| {
            grant.holder == self.config.division && authority.grant_ended(&grant.id).is_some()
        })
    }

    /// Rows of others' ledgers go; those of own ledgers wait for the receipts of others.
    fn close_orders(&self, pending: &[Pending]) -> Result<()> {
        let mut by_ledger: BTreeMap<&Origin, Vec<&Pending>> = BTreeMap::new();
        for order in pending {
            by_ledger.entry(&order.origin).or_default().push(order);
        }
        for (origin, orders) in by_ledger {
            if self.is_own(origin) {
                let book = self.book(origin)?;
                lock(&book).extend(self.store.as_ref(), |batch| {
                    for p in &orders {
                        let done = Order {
                            done: true,
                            ..p.order.clone()
                        };
                        batch.put(Order::key(origin, p.at), cbor::to_vec(&done));
                    }
                })?;
                continue;
            }
            let mut batch = Batch::new(origin.as_str(), None);
            for p in &orders {
                batch.delete(Order::key(origin, p.at));
            }
            commit(self.store.as_ref(), origin, &batch)?;
            lock(&self.destructions).remove(origin);
        }
        self.settle_receipts()
    }

    /// Whose receipts an own ledger's destructions wait for: everybody to whom it is replicated.
    pub(crate) fn receipts_from(&self, origin: &Origin) -> BTreeSet<DivisionId> {
        let authority = self.authority();
        let own = &self.config.division;
        let mut from: BTreeSet<DivisionId> = authority.ancestors(own).into_iter().collect();
        if let Some(grant) = origin.grant_id().and_then(|id| authority.grant(&id)) {
            from.insert(grant.holder.clone());
            from.extend(authority.ancestors(&grant.holder));
        }
        from.remove(own);
        from
    }
}

fn is_retraction(entry: &Entry) -> bool {
    matches!(entry, Entry::Grant(e) if e.operation == GrantOperation::Retract)
}

/// Overwrites and removes every file under a folder, and the folders in it.
fn destroy_files(dir: &Path) -> Result<()> {
    let failed = |e| RegistryError::file(dir, e);
    if !dir.exists() {
        return Ok(());
    }
    for item in std::fs::read_dir(dir).map_err(failed)? {
        let path = item.map_err(failed)?.path();
        if path.is_dir() {
            destroy_files(&path)?;
            std::fs::remove_dir(&path).map_err(|e| RegistryError::file(&path, e))?;
        } else {
            store::atomic::destroy(&path)?;
        }
    }
    Ok(())
}

thread_local! {
    /// At which step of a destruction this thread ends it, as if the process had been killed there.
    /// The seam for tests of crashes; 0, which no step is, everywhere else.
    #[doc(hidden)]
    pub static CUT_AT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// How many steps there are to be cut at.
#[doc(hidden)]
pub const STEPS: u32 = 9;

fn cut_here(step: u32) -> Result<()> {
    if CUT_AT.get() == step {
        return Err(RegistryError::Store(format!("cut at step {step}")));
    }
    Ok(())
}
