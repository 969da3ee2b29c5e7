//! How a command knows that whatever answers at an address is the node of its directory.
//!
//! A node that was killed leaves `run.json` behind, and another process may have its port, and
//! wait there for passphrases. The secret in that file, readable by the node's user only, answers
//! a challenge; it is made anew at every start and is never sent.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The most characters of a challenge.
pub const CHALLENGE_MAX: usize = 128;

/// What a node answers to a challenge, in hexadecimal: HMAC-SHA256 under the secret of its
/// `run.json`, over `fangzhi/run/v1`, a zero byte and the challenge.
pub fn answer(secret: &str, challenge: &str) -> String {
    let mut text = String::with_capacity(64);
    // A key of any length is fit for HMAC.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) {
        mac.update(b"fangzhi/run/v1\0");
        mac.update(challenge.as_bytes());
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

/// Whether an answer is that of the node with this secret.
pub fn is_answer(secret: &str, challenge: &str, answered: &str) -> bool {
    let expected = answer(secret, challenge);
    !expected.is_empty() && bool::from(expected.as_bytes().ct_eq(answered.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_and_challenge_give_the_same_answer() {
        let given = answer("one secret", "a challenge");
        assert!(is_answer("one secret", "a challenge", &given));
        for (secret, challenge, said) in [
            ("another secret", "a challenge", given.as_str()),
            ("one secret", "another challenge", given.as_str()),
            ("one secret", "a challenge", ""),
        ] {
            assert!(!is_answer(secret, challenge, said));
        }
    }
}
