//! Shares (恢复份额): a secret of 32 bytes in `count` parts, any `threshold` of which give it back.
//!
//! Owns what a share and a ceremony's public header are, and how they are checked; where
//! they are kept and who holds them is `registry`'s. The sharing is Shamir's over GF(256)
//! from `vsss-rs`, which is audited and takes no branch and no table look-up on a secret.
//! Fewer shares than the threshold say nothing of the secret. Every share is bound to its
//! ceremony: one of another, one altered and one given twice are refused by name.
//!
//! ```
//! use record::id::{DivisionId, Realm};
//! use seal::share::{Share, ShareContext, combine, split};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let mut rng = ChaCha20Rng::seed_from_u64(1);
//!
//! let context = ShareContext {
//!     realm: Realm::new("jiangjin.example")?,
//!     division: DivisionId::new("jinfu")?,
//! };
//! let (header, shares) = split(&[7; 32], 5, 3, &context, &mut rng)?;
//! let typed = Share::from_text(&shares[4].to_text())?;
//! typed.verify(&header)?;
//! let together = [shares[1].duplicate(), typed, shares[0].duplicate()];
//! assert_eq!(*combine(&header, &together)?, [7; 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bytes;
mod text;

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use record::cbor::{self, CborError};
use record::entry::SUITE;
use record::id::{DivisionId, Realm};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use vsss_rs::{DefaultShare, Gf256, IdentifierGf256, Polynomial};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use bytes::SHARE_MAX;
pub use text::TEXT_MAX;

/// The version of the formats of header and share.
pub const FORMAT: u8 = 1;
/// The most shares of one ceremony.
pub const SHARES_MAX: u8 = 32;
/// The longest encoding of a header: 32 commitments of 34 bytes, and 300 for the rest.
pub const HEADER_MAX: usize = 2_048;

/// Whose secret is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareContext {
    /// The realm.
    pub realm: Realm,
    /// The division whose node it is.
    pub division: DivisionId,
}

/// What everybody may know of a ceremony: who, how many, and commitments to secret and shares.
///
/// It is needed to combine, so it lies where a lost node's parent has it: in the authority
/// ledger. It says nothing of the secret to who cannot guess 32 random bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Header {
    #[n(0)]
    format: u8,
    #[n(1)]
    suite: u8,
    #[cbor(n(2), with = "minicbor::bytes")]
    ceremony: [u8; 16],
    #[n(3)]
    realm: Realm,
    #[n(4)]
    division: DivisionId,
    #[n(5)]
    threshold: u8,
    #[cbor(n(6), with = "minicbor::bytes")]
    salt: [u8; 16],
    #[cbor(n(7), with = "minicbor::bytes")]
    secret: [u8; 32],
    #[n(8)]
    shares: Vec<Commitment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
struct Commitment(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

/// One holder's part of a shared secret. Wiped on drop, never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Share {
    #[zeroize(skip)]
    ceremony: [u8; 16],
    #[zeroize(skip)]
    header: [u8; 16],
    #[zeroize(skip)]
    realm: Realm,
    #[zeroize(skip)]
    division: DivisionId,
    #[zeroize(skip)]
    number: u8,
    #[zeroize(skip)]
    threshold: u8,
    #[zeroize(skip)]
    count: u8,
    value: [u8; 32],
}

/// Why a secret is not shared, or shares do not give it back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// No such sharing is made.
    #[error(
        "{threshold} of {shares} shares cannot be made; give each of 2 to {SHARES_MAX} holders one, and ask for at least 2 and at most all of them"
    )]
    Parameters {
        /// Shares asked for.
        shares: u8,
        /// Threshold asked for.
        threshold: u8,
    },
    /// The bytes are no header.
    #[error("the ceremony's header cannot be read; fetch it again from the authority ledger")]
    Header(#[from] CborError),
    /// The bytes are no share.
    #[error("this is no share of this version; check that the whole share was given")]
    Malformed,
    /// A line of a share was typed wrong.
    #[error("line {line} of the share is not as it was printed; compare it letter by letter")]
    Line {
        /// The line's number, as printed in front of it.
        line: usize,
    },
    /// A line of a share is missing, or given twice, or out of order.
    #[error("line {line} of the share is missing or out of its place; type the lines in order")]
    Missing {
        /// The line's number.
        line: usize,
    },
    /// The share was dealt in another ceremony, or under a header that was exchanged since.
    #[error(
        "share {number} belongs to another ceremony of `{division}`; use the shares that were dealt together"
    )]
    OtherCeremony {
        /// The share's number.
        number: u8,
        /// The division that the share names.
        division: DivisionId,
    },
    /// The share is not what was dealt to its holder.
    #[error("share {number} is not the one that was dealt; read it again from its first copy")]
    Altered {
        /// The share's number.
        number: u8,
    },
    /// A share was given twice.
    #[error("share {number} was given twice; each share counts once")]
    Duplicate {
        /// The share's number.
        number: u8,
    },
    /// Fewer shares than the threshold.
    #[error("{have} of the {need} shares needed are here; ask further holders for theirs")]
    TooFew {
        /// Shares given.
        have: usize,
        /// Shares needed.
        need: u8,
    },
    /// The shares fit the header, but not the secret that it commits to.
    #[error(
        "the shares give another secret than the one that was shared; the ceremony went wrong when it was made, use the shares of another"
    )]
    OtherSecret,
}

impl Header {
    /// The ceremony's nonce: random, so that no share of another ceremony fits.
    pub fn ceremony(&self) -> &[u8; 16] {
        &self.ceremony
    }

    /// Whose secret is shared.
    pub fn context(&self) -> ShareContext {
        ShareContext {
            realm: self.realm.clone(),
            division: self.division.clone(),
        }
    }

    /// How many shares are needed.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// How many shares were dealt.
    pub fn count(&self) -> u8 {
        u8::try_from(self.shares.len()).expect("a header of more than SHARES_MAX is not made")
    }

    /// The encoding; see `docs/formats/share.md`.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`ShareError::Header`]: too long, malformed, not canonical, or of impossible numbers.
    pub fn decode(bytes: &[u8]) -> Result<Self, ShareError> {
        let header: Self = cbor::from_slice("header of shares", bytes, HEADER_MAX)?;
        let known = header.format == FORMAT && header.suite == SUITE;
        let count = u8::try_from(header.shares.len()).unwrap_or(u8::MAX);
        if known && possible(count, header.threshold) {
            Ok(header)
        } else {
            Err(ShareError::Header(CborError::Malformed {
                what: "header of shares",
            }))
        }
    }

    /// What shares carry of the header, so that it cannot be exchanged after they were dealt.
    fn digest(&self) -> [u8; 16] {
        let hash = hash(b"fangzhi/share-header/v1", &[&self.encode()]);
        *hash
            .first_chunk()
            .expect("a SHA-256 hash is longer than 16 bytes")
    }
}

impl Share {
    /// The share's number, 1 to the count.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// How many shares are needed.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// How many shares were dealt.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// The nonce of the ceremony in which the share was dealt.
    pub fn ceremony(&self) -> &[u8; 16] {
        &self.ceremony
    }

    /// Whose secret it is a share of.
    pub fn context(&self) -> ShareContext {
        ShareContext {
            realm: self.realm.clone(),
            division: self.division.clone(),
        }
    }

    /// A second copy, wiped by itself.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            ceremony: self.ceremony,
            header: self.header,
            realm: self.realm.clone(),
            division: self.division.clone(),
            number: self.number,
            threshold: self.threshold,
            count: self.count,
            value: self.value,
        }
    }

    /// Whether the share is the one that this ceremony dealt under its number.
    ///
    /// # Errors
    /// [`ShareError::OtherCeremony`], [`ShareError::Altered`].
    pub fn verify(&self, header: &Header) -> Result<(), ShareError> {
        let number = self.number;
        let same = self.ceremony == header.ceremony && self.header == header.digest();
        if !same {
            return Err(ShareError::OtherCeremony {
                number,
                division: self.division.clone(),
            });
        }
        let facts = (&self.realm, &self.division, self.threshold, self.count);
        let dealt = (
            &header.realm,
            &header.division,
            header.threshold,
            header.count(),
        );
        let named = usize::from(number)
            .checked_sub(1)
            .and_then(|at| header.shares.get(at))
            .ok_or(ShareError::Altered { number })?;
        let committed = commit_share(&self.ceremony, number, &self.value);
        if facts == dealt && bool::from(committed.ct_eq(&named.0)) {
            Ok(())
        } else {
            Err(ShareError::Altered { number })
        }
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share")
            .field("division", &self.division)
            .field("number", &self.number)
            .field("value", &"hidden")
            .finish()
    }
}

/// Shares a secret among `shares` holders, any `threshold` of whom can give it back.
///
/// Before it returns, the secret was combined again from every share, so that a memory
/// fault while dealing does not show years later.
///
/// # Errors
/// [`ShareError::Parameters`]; [`ShareError::OtherSecret`] when that last check fails.
pub fn split(
    secret: &[u8; 32],
    shares: u8,
    threshold: u8,
    context: &ShareContext,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(Header, Vec<Share>), ShareError> {
    if !possible(shares, threshold) {
        return Err(ShareError::Parameters { shares, threshold });
    }
    let (mut ceremony, mut salt) = ([0; 16], [0; 16]);
    rng.fill_bytes(&mut ceremony);
    rng.fill_bytes(&mut salt);
    let mut dealt: Vec<Share> = (1..=shares)
        .map(|number| Share {
            ceremony,
            header: [0; 16],
            realm: context.realm.clone(),
            division: context.division.clone(),
            number,
            threshold,
            count: shares,
            value: [0; 32],
        })
        .collect();
    deal(secret, threshold, &mut dealt, rng);
    let header = Header {
        format: FORMAT,
        suite: SUITE,
        ceremony,
        realm: context.realm.clone(),
        division: context.division.clone(),
        threshold,
        salt,
        secret: commit_secret(&ceremony, &salt, secret),
        shares: dealt
            .iter()
            .map(|share| Commitment(commit_share(&ceremony, share.number, &share.value)))
            .collect(),
    };
    let digest = header.digest();
    for share in &mut dealt {
        share.header = digest;
    }
    for together in dealt.windows(threshold.into()) {
        combine(&header, together)?;
    }
    Ok((header, dealt))
}

/// Gives the secret back from shares in any order. More than the threshold may be given;
/// every one is verified, and one that does not fit is an error rather than left out.
///
/// # Errors
/// [`ShareError`]: a share of another ceremony, altered, given twice; too few; another secret.
pub fn combine(header: &Header, shares: &[Share]) -> Result<Zeroizing<[u8; 32]>, ShareError> {
    let mut seen = BTreeSet::new();
    for share in shares {
        share.verify(header)?;
        if !seen.insert(share.number) {
            let number = share.number;
            return Err(ShareError::Duplicate { number });
        }
    }
    if shares.len() < header.threshold.into() {
        return Err(ShareError::TooFew {
            have: shares.len(),
            need: header.threshold,
        });
    }
    let points: Zeroizing<Vec<Vec<u8>>> = Zeroizing::new(
        shares[..header.threshold.into()]
            .iter()
            .map(|share| {
                let mut point = Vec::with_capacity(33);
                point.push(share.number);
                point.extend(share.value);
                point
            })
            .collect(),
    );
    let combined = Gf256::combine_bytes(&*points).map_err(|_| ShareError::OtherSecret)?;
    let combined = Zeroizing::new(combined);
    let mut secret = Zeroizing::new([0; 32]);
    if combined.len() != secret.len() {
        return Err(ShareError::OtherSecret);
    }
    secret.copy_from_slice(&combined);
    let committed = commit_secret(&header.ceremony, &header.salt, &secret);
    if bool::from(committed.ct_eq(&header.secret)) {
        Ok(secret)
    } else {
        Err(ShareError::OtherSecret)
    }
}

/// One polynomial for each byte of the secret; each share gets its value at the share's number.
/// `Gf256::split_bytes` does the same, but leaves the last polynomial on the heap.
fn deal(
    secret: &[u8; 32],
    threshold: u8,
    shares: &mut [Share],
    rng: &mut (impl CryptoRng + ?Sized),
) {
    let length = usize::from(threshold);
    let mut polynomial: Zeroizing<Vec<DefaultShare<IdentifierGf256, IdentifierGf256>>> =
        Zeroizing::new(Polynomial::create(length));
    for (at, byte) in secret.iter().enumerate() {
        polynomial
            .fill(&IdentifierGf256(Gf256(*byte)), &mut *rng, length)
            .expect("a polynomial made with this length has room for it");
        for share in &mut *shares {
            let x = IdentifierGf256(Gf256(share.number));
            share.value[at] = polynomial.evaluate(&x, length).0.0;
        }
    }
}

fn possible(shares: u8, threshold: u8) -> bool {
    shares <= SHARES_MAX && (2..=shares).contains(&threshold)
}

fn hash(tag: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(tag);
    hash.update([0, SUITE]);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn commit_share(ceremony: &[u8; 16], number: u8, value: &[u8; 32]) -> [u8; 32] {
    hash(b"fangzhi/share/v1", &[ceremony, &[number], value])
}

fn commit_secret(ceremony: &[u8; 16], salt: &[u8; 16], secret: &[u8; 32]) -> [u8; 32] {
    hash(b"fangzhi/shared-secret/v1", &[ceremony, salt, secret])
}

#[cfg(test)]
mod tests;
