//! History and proofs over opaque leaves: RFC 6962 trees, C2SP notes, checkpoints, tiles and cosignatures.
