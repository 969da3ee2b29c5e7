//! What fuzzing and `tests/tests/decoders.rs` share: every decoder of bytes from outside, and valid bytes to begin with.
//!
//! Owns the property that each decoder is held to. The targets in `fuzz_targets/` only call it.

pub mod checks;
pub mod seeds;
