//! The small text encodings that the C2SP formats share: decimal numbers and base64 hashes.
//!
//! Owns canonical form: one value has exactly one spelling.
//! Refuses leading zeros, signs, missing padding and stray bits.

use crate::hash::{Hash, SIZE_MAX};
use data_encoding::BASE64;

/// A decimal number up to [`SIZE_MAX`], without sign and without leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|value| *value <= SIZE_MAX)
}

/// A hash in standard base64 with padding, as one line of text.
pub(crate) fn hash_text(hash: &Hash) -> String {
    BASE64.encode(hash)
}

/// The hash that [`hash_text`] wrote.
pub(crate) fn hash_from_text(text: &str) -> Option<Hash> {
    // 44 characters are 32 bytes; the check keeps a hostile line from being decoded whole.
    if text.len() != 44 {
        return None;
    }
    base64(text)?.try_into().ok()
}

/// The bytes behind standard base64 with padding, in its one spelling.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    // The decoder also takes several padded texts in a row (`AA==AA==`), a second spelling.
    (BASE64.encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("20852163"), Some(20_852_163));
        assert_eq!(decimal("9223372036854775807"), Some(SIZE_MAX));
        for refused in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1_0",
            "9223372036854775808",
            "99999999999999999999999",
            "١",
        ] {
            assert_eq!(decimal(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn a_hash_has_one_spelling() {
        let text = hash_text(&[7; 32]);
        assert_eq!(hash_from_text(&text), Some([7; 32]));
        assert_eq!(hash_from_text(text.trim_end_matches('=')), None);
        assert_eq!(hash_from_text(&text.replace("c=", "d=")), None);
        assert_eq!(hash_from_text(&format!("{text}\n")), None);
    }
    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(base64(""), Some(vec![]));
        assert_eq!(base64("AAA="), Some(vec![0; 2]));
        for refused in ["AAA", "AAA=\n", "AAB=", "AA==AA==", "AAA=AAAA", "AA-_", "="] {
            assert_eq!(base64(refused), None, "{refused:?}");
        }
        // 44 characters and 32 bytes, padded in the middle.
        let middle = format!("{}AAA={}", "A".repeat(20), "A".repeat(20));
        assert_eq!(hash_from_text(&middle), None);
    }
}
