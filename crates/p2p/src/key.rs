//! The key that names a node on the wire.
//!
//! It owns the secret half of this node and the translation between raw Ed25519 keys and libp2p's
//! peer ids, which nobody outside this crate sees. It refuses keys that are not Ed25519.

use std::fmt;

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use zeroize::{Zeroize, Zeroizing};

/// A peer's Ed25519 transport public key, as TLS proved it.
pub type PeerKey = [u8; 32];

/// This node's transport key: an Ed25519 seed, wiped from memory when dropped.
pub struct TransportKey {
    seed: Zeroizing<[u8; 32]>,
    public: PeerKey,
}

impl TransportKey {
    /// Takes the seed of RFC 8032; every 32 bytes are one.
    #[must_use]
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let kept = Zeroizing::new(seed);
        seed.zeroize();
        let public = ed25519::Keypair::from(secret(&kept)).public().to_bytes();
        Self { seed: kept, public }
    }

    /// The public half, which a charter names and a dialer expects.
    #[must_use]
    pub fn public(&self) -> PeerKey {
        self.public
    }

    /// The pair as libp2p wants it.
    pub(crate) fn keypair(&self) -> Keypair {
        ed25519::Keypair::from(secret(&self.seed)).into()
    }
}

impl fmt::Debug for TransportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportKey(hidden)")
    }
}

fn secret(seed: &[u8; 32]) -> ed25519::SecretKey {
    // libp2p wipes the copy that it is handed.
    let mut copy = Zeroizing::new(*seed);
    ed25519::SecretKey::try_from_bytes(&mut copy[..]).expect("any 32 bytes are an Ed25519 seed")
}

/// The peer id of a raw key; `None` if the bytes are no point on the curve.
pub(crate) fn peer_id(key: &PeerKey) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(key).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The raw key of a peer id; `None` if the peer's key is not Ed25519.
pub(crate) fn peer_key(peer: &PeerId) -> Option<PeerKey> {
    // An Ed25519 peer id holds the key itself under the identity "hash", code 0.
    let hash: &libp2p::multihash::Multihash<64> = peer.as_ref();
    if hash.code() != 0 {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(key.try_into_ed25519().ok()?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_that_of_rfc_8032() {
        // RFC 8032 section 7.1, test 1.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = [
            0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64,
            0x07, 0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68,
            0xf7, 0x07, 0x51, 0x1a,
        ];
        assert_eq!(TransportKey::from_seed(seed).public(), public);
    }

    #[test]
    fn a_key_survives_the_way_through_a_peer_id() {
        let key = TransportKey::from_seed([7; 32]);
        let peer = key.keypair().public().to_peer_id();
        assert_eq!(peer_id(&key.public()), Some(peer));
        assert_eq!(peer_key(&peer), Some(key.public()));
    }

    #[test]
    fn a_random_peer_id_names_no_key() {
        assert_eq!(peer_key(&PeerId::random()), None);
    }

    #[test]
    fn bytes_off_the_curve_are_no_key() {
        let mut off = [0; 32];
        off[0] = 2;
        assert_eq!(peer_id(&off), None);
    }

    #[test]
    fn debug_shows_neither_seed_nor_key() {
        let text = format!("{:?}", TransportKey::from_seed([7; 32]));
        assert_eq!(text, "TransportKey(hidden)");
    }
}
