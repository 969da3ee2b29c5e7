//! Secrets as types: one newtype per key, so that no key is used in another's place.
//!
//! Each is 32 random or derived bytes that are wiped on drop, compared in constant time
//! and never printed or serialized. A copy is made only by `duplicate`, so that copies
//! can be grepped for. The encoding of secrets inside sealed payloads is private to this crate.

use minicbor::{Decode, Decoder, Encode, Encoder};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// A fresh random secret.
            pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut secret = Self([0; 32]);
                rng.fill_bytes(&mut secret.0);
                secret
            }

            /// The secret of these bytes.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes. Whoever calls this answers for where they go.
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }

            /// A second copy, wiped by itself.
            #[must_use]
            pub fn duplicate(&self) -> Self {
                Self(self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(hidden)"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        // Secrets enter CBOR only inside payloads that this crate seals.
        impl From<&$name> for Raw {
            fn from(secret: &$name) -> Raw {
                Raw(secret.0)
            }
        }

        impl From<&Raw> for $name {
            fn from(raw: &Raw) -> $name {
                $name(raw.0)
            }
        }
    };
}

secret!(
    /// One shard's secret of one epoch (密钥期). Field keys derive from it.
    EpochSecret
);
secret!(
    /// The key of one ferry bundle's payload (摆渡).
    FerryKey
);
secret!(
    /// One record's secret. Row keys derive from it; destroying it erases the record.
    RecordSecret
);
secret!(
    /// What opens one field of a shard in one epoch, together with a row key.
    FieldKey
);
secret!(
    /// What opens one field group of a record, together with a field key.
    RowKey
);
secret!(
    /// What opens the row keys inside one grant's parcels.
    GrantSecret
);
secret!(
    /// What opens one page of record secrets.
    PageKey
);
secret!(
    /// What opens blobs: access bodies, index pages.
    BlobKey
);
secret!(
    /// A node's or operator's key-encryption key.
    Kek
);
secret!(
    /// The key under which marks are computed.
    MarkKey
);
secret!(
    /// An Ed25519 signing seed (RFC 8032).
    Seed
);

impl Seed {
    /// The signing key of this seed.
    pub fn signing_key(&self) -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&self.0)
    }
}

/// A secret's bytes on their way into or out of a sealed payload.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Raw(pub(crate) [u8; 32]);

impl<C> Encode<C> for Raw {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Raw {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut raw = Raw([0; 32]);
        let bytes = d.bytes()?;
        if bytes.len() != raw.0.len() {
            return Err(minicbor::decode::Error::message("a secret has 32 bytes"));
        }
        raw.0.copy_from_slice(bytes);
        Ok(raw)
    }
}

/// The canonical encoding of a payload that holds secrets, in a buffer that is wiped.
///
/// `capacity` must be an upper bound, or growing leaves unwiped copies on the heap.
pub(crate) fn encode_wiped<T: Encode<()>>(value: &T, capacity: usize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    minicbor::encode(value, &mut *bytes).expect("writing to a Vec cannot fail");
    debug_assert!(bytes.len() <= capacity, "capacity must be an upper bound");
    bytes
}

/// Reads a payload that holds secrets; `None` when it is not the canonical encoding of one.
pub(crate) fn decode_wiped<T>(bytes: &[u8]) -> Option<T>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    let value: T = minicbor::decode(bytes).ok()?;
    // Another encoding of the same value is longer, never shorter, than the canonical one.
    (*encode_wiped(&value, bytes.len()) == bytes).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let shown = format!("{:?}", EpochSecret::from_bytes([0xab; 32]));
        assert_eq!(shown, "EpochSecret(hidden)");
    }

    #[test]
    fn secrets_are_equal_when_their_bytes_are() {
        let secret = RowKey::from_bytes([1; 32]);
        assert_eq!(secret, secret.duplicate());
        assert_ne!(secret, RowKey::from_bytes([2; 32]));
    }

    #[test]
    fn a_secret_of_another_length_or_long_form_is_not_read() {
        let right = encode_wiped(&Raw([7; 32]), 34);
        assert!(decode_wiped::<Raw>(&right).is_some());
        assert!(decode_wiped::<Raw>(&right[..33]).is_none());
        let mut long_form = vec![0x59, 0x00, 0x20];
        long_form.extend([7; 32]);
        assert!(decode_wiped::<Raw>(&long_form).is_none());
        let mut trailing = right.to_vec();
        trailing.push(0);
        assert!(decode_wiped::<Raw>(&trailing).is_none());
    }
}
