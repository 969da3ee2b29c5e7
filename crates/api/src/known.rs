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
    hexadecimal(secret, &[b"fangzhi/run/v1\0", challenge.as_bytes()])
}

fn hexadecimal(secret: &str, parts: &[&[u8]]) -> String {
    let mut text = String::with_capacity(64);
    // A key of any length is fit for HMAC.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) {
        parts.iter().for_each(|part| mac.update(part));
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

/// What shows that whoever asks reads the secret, in hexadecimal: HMAC-SHA256 under it, over
/// `fangzhi/local/v1` and a zero byte. It is no answer to any challenge, and lets nobody in: it
/// is a place in the queue.
pub fn local(secret: &str) -> String {
    hexadecimal(secret, &[b"fangzhi/local/v1\0"])
}

/// Whether that was shown.
pub fn is_local(secret: &str, shown: &str) -> bool {
    let expected = local(secret);
    !expected.is_empty() && bool::from(expected.as_bytes().ct_eq(shown.as_bytes()))
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
        // What the node answers to everybody never passes for having read the file.
        assert!(is_local("one secret", &local("one secret")));
        for shown in [&answer("one secret", ""), &local("another secret"), ""] {
            assert!(!is_local("one secret", shown));
        }
        for (secret, challenge, said) in [
            ("another secret", "a challenge", given.as_str()),
            ("one secret", "another challenge", given.as_str()),
            ("one secret", "a challenge", ""),
        ] {
            assert!(!is_answer(secret, challenge, said));
        }
    }
}
