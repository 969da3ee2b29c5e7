//! The code that a person can copy from a screen or a sheet of paper.
//!
//! Owns its form: `FZ-XXXX-XXXX-XXXX-XXXX-X`, sixteen Crockford base32 characters and
//! a check character. The sixteen are 80 bits, big-endian:
//!
//! ```text
//! 40 bits  index of the access entry, its low 40 bits
//! 40 bits  HMAC-SHA256(mark key, "fangzhi/mark/1" 0x00 || length of origin (2 bytes)
//!          || origin || index (8 bytes) || leaf hash), its first 40 bits
//! ```
//!
//! The check character makes the sum of `c[i] * a^i` over GF(32) zero. It notices any
//! one wrong character and any two exchanged. Crockford's own check (mod 37) is not
//! used: its symbols `*~$=` are hard to read aloud and to type on a Chinese keyboard.
//!
//! The check is against slips; the MAC is against inventing a mark that accuses
//! somebody. Whoever holds the mark key can invent one.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use record::id::{Hash, Origin};
use serde::{Serialize, Serializer};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::receipt::Receipt;

const TAG: &[u8] = b"fangzhi/mark/1\0";
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const DATA_CHARACTERS: usize = 16;
const CHARACTERS: usize = DATA_CHARACTERS + 1;
const INPUT_BYTES_MAX: usize = 128;

/// The key of a node's marks. Wiped when dropped, never serialized.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MarkKey([u8; 32]);

impl MarkKey {
    /// A key from 32 random bytes, which the caller wipes.
    pub fn from_bytes(bytes: [u8; 32]) -> MarkKey {
        MarkKey(bytes)
    }

    fn mac(&self, origin: &Origin, index: u64, leaf: &Hash) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        let origin = origin.as_str().as_bytes();
        mac.update(TAG);
        mac.update(&(origin.len() as u16).to_be_bytes()); // An origin has at most 255 bytes.
        mac.update(origin);
        mac.update(&index.to_be_bytes());
        mac.update(leaf);
        mac
    }
}

impl fmt::Debug for MarkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MarkKey(..)")
    }
}

/// A mark: which access entry an answer belongs to, and a MAC over that.
///
/// Well formed, not therefore true: [`Mark::verify`] tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    index: [u8; 5],
    tag: [u8; 5],
}

/// Why a text is not a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// Characters are missing or too many.
    #[error(
        "the mark has {found} characters after `FZ` and should have {CHARACTERS}; look for a missing or doubled one"
    )]
    Length {
        /// Characters found, without spaces and hyphens.
        found: usize,
    },
    /// A character that marks do not have.
    #[error(
        "character {place} of the mark is none that marks have; use digits and letters without `U`"
    )]
    Character {
        /// Its place after `FZ`, from 1.
        place: usize,
    },
    /// The check character does not fit.
    #[error("the mark has a wrong or exchanged character; compare it with the original again")]
    Check,
}

impl Mark {
    /// The mark of answers under this receipt.
    pub fn of(key: &MarkKey, receipt: &Receipt) -> Mark {
        let line = receipt.line();
        let mac = key.mac(line.origin(), line.index(), line.leaf());
        let mut tag = [0; 5];
        tag.copy_from_slice(&mac.finalize().into_bytes()[..5]);
        Mark {
            index: low_40_bits(line.index()),
            tag,
        }
    }

    /// The index of the access entry, its low 40 bits: where to look, before verifying.
    pub fn index(&self) -> u64 {
        let [a, b, c, d, e] = self.index;
        u64::from_be_bytes([0, 0, 0, a, b, c, d, e])
    }

    /// Whether this key made this mark for the entry with this leaf hash.
    ///
    /// A guess holds once in 2^40 times. The comparison takes constant time.
    #[must_use]
    pub fn verify(&self, key: &MarkKey, origin: &Origin, index: u64, leaf: &Hash) -> bool {
        let mac = key.mac(origin, index, leaf);
        let tag = mac.verify_truncated_left(&self.tag);
        self.index == low_40_bits(index) && tag.is_ok()
    }

    /// The code as people read it.
    pub fn code(&self) -> String {
        self.to_string()
    }

    fn symbols(&self) -> [u8; DATA_CHARACTERS] {
        let mut bits = [0; 16];
        bits[6..11].copy_from_slice(&self.index);
        bits[11..].copy_from_slice(&self.tag);
        let bits = u128::from_be_bytes(bits);
        std::array::from_fn(|at| (bits >> (5 * (DATA_CHARACTERS - 1 - at))) as u8 & 31)
    }
}

fn low_40_bits(index: u64) -> [u8; 5] {
    let [_, _, _, a, b, c, d, e] = index.to_be_bytes();
    [a, b, c, d, e]
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbols = self.symbols();
        f.write_str("FZ")?;
        for group in symbols.chunks(4) {
            f.write_str("-")?;
            for symbol in group {
                write!(f, "{}", char::from(ALPHABET[*symbol as usize]))?;
            }
        }
        let check = ALPHABET[check_symbol(&symbols) as usize];
        write!(f, "-{}", char::from(check))
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Mark {
    type Err = MarkError;

    /// Reads a mark as people write it: any case, `O` for 0, `I` and `L` for 1, spaces
    /// and hyphens anywhere, full-width letters, with or without `FZ`.
    fn from_str(text: &str) -> Result<Self, MarkError> {
        if text.len() > INPUT_BYTES_MAX {
            return Err(MarkError::Length { found: text.len() });
        }
        let typed: Vec<char> = text.chars().filter_map(plain).collect();
        let body = match typed.strip_prefix(&['F', 'Z']) {
            // Without `FZ`, a code may begin with these two letters.
            Some(rest) if typed.len() != CHARACTERS => rest,
            _ => &typed,
        };
        if body.len() != CHARACTERS {
            return Err(MarkError::Length { found: body.len() });
        }
        let mut symbols = [0; CHARACTERS];
        for (at, character) in body.iter().enumerate() {
            let place = at + 1;
            symbols[at] = symbol(*character).ok_or(MarkError::Character { place })?;
        }
        let (data, check) = symbols.split_at(DATA_CHARACTERS);
        if check_symbol(data) != check[0] {
            return Err(MarkError::Check);
        }
        let bits = data
            .iter()
            .fold(0_u128, |bits, symbol| bits << 5 | u128::from(*symbol));
        let bytes = bits.to_be_bytes();
        let mut mark = Mark {
            index: [0; 5],
            tag: [0; 5],
        };
        mark.index.copy_from_slice(&bytes[6..11]);
        mark.tag.copy_from_slice(&bytes[11..]);
        Ok(mark)
    }
}

/// The upper-case half-width form of a character; none for spaces and hyphens.
fn plain(character: char) -> Option<char> {
    let half = match character {
        '\u{ff01}'..='\u{ff5e}' => {
            char::from_u32(u32::from(character) - 0xfee0).unwrap_or(character)
        }
        other => other,
    };
    let skipped = half.is_whitespace() || matches!(half, '-' | '_' | '\u{2010}'..='\u{2015}');
    (!skipped).then(|| half.to_ascii_uppercase())
}

fn symbol(character: char) -> Option<u8> {
    let meant = match character {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let at = ALPHABET.iter().position(|c| char::from(*c) == meant)?;
    u8::try_from(at).ok()
}

/// The symbol `c` for which the sum over the data of `c[i] * a^(n-i)`, plus `c`, is zero.
fn check_symbol(data: &[u8]) -> u8 {
    data.iter().fold(0, |sum, symbol| times_a(sum ^ symbol))
}

/// Multiplies by `a` in GF(32), modulo `a^5 + a^2 + 1`, where `a` generates all 31 units.
fn times_a(value: u8) -> u8 {
    let shifted = value << 1;
    if shifted & 32 == 0 {
        shifted
    } else {
        shifted ^ 0b10_0101
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use record::id::UnixMillis;

    fn origin(division: &str) -> Origin {
        Origin::parse(&format!("jiangjin.example/{division}/access")).unwrap()
    }

    fn mark_of(index: u64, leaf: Hash) -> Mark {
        let receipt = Receipt::committed(origin("jinfu"), index, leaf, UnixMillis(0));
        Mark::of(&MarkKey::from_bytes([1; 32]), &receipt)
    }

    /// Computed with Python's `hmac`, independently of this file.
    #[test]
    fn a_mark_is_the_one_that_another_implementation_computes() {
        assert_eq!(mark_of(41, [9; 32]).code(), "FZ-0000-0019-VB5R-4SAH-N");
        assert_eq!(
            mark_of(u64::MAX, [0; 32]).code(),
            "FZ-ZZZZ-ZZZZ-ZJTH-WXAA-B"
        );
    }

    #[test]
    fn two_readings_have_different_marks() {
        let marks = [
            mark_of(1, [0; 32]),
            mark_of(2, [0; 32]),
            mark_of(1, [1; 32]),
            mark_of(1 + (1 << 40), [0; 32]),
        ];
        let distinct: std::collections::BTreeSet<Mark> = marks.into();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn a_mark_verifies_for_its_own_key_ledger_index_and_leaf_only() {
        let (key, other) = (MarkKey::from_bytes([1; 32]), MarkKey::from_bytes([2; 32]));
        let mark = mark_of(7, [3; 32]);
        assert!(mark.verify(&key, &origin("jinfu"), 7, &[3; 32]));
        assert!(!mark.verify(&other, &origin("jinfu"), 7, &[3; 32]));
        assert!(!mark.verify(&key, &origin("deyou"), 7, &[3; 32]));
        assert!(!mark.verify(&key, &origin("jinfu"), 8, &[3; 32]));
        assert!(!mark.verify(&key, &origin("jinfu"), 7 + (1 << 40), &[3; 32]));
        assert!(!mark.verify(&key, &origin("jinfu"), 7, &[4; 32]));
    }

    #[test]
    fn a_forged_code_with_a_right_check_character_does_not_verify() {
        let (key, honest) = (MarkKey::from_bytes([1; 32]), mark_of(7, [3; 32]));
        let elsewhere = Mark {
            index: low_40_bits(8),
            ..honest
        };
        let guessed = Mark {
            tag: [0; 5],
            ..honest
        };
        for (forged, index) in [(elsewhere, 8), (guessed, 7)] {
            let read: Mark = forged.code().parse().unwrap();
            assert!(!read.verify(&key, &origin("jinfu"), index, &[3; 32]));
        }
    }

    #[test]
    fn a_mark_is_read_as_people_write_it() {
        let mark = Mark {
            index: [0, 0, 0, 0, 1],
            tag: [0; 5],
        };
        let code = mark.code();
        assert!(code.starts_with("FZ-0000-0001-0000-0000-"), "{code}");
        let wide: String = code
            .chars()
            .map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap())
            .collect();
        for text in [
            code.to_lowercase(),
            code.replace('-', ""),
            code.replace('-', " "),
            code.replace('-', " – "),
            code.replace('0', "o").replace('1', "l"),
            code.replace('1', "I"),
            code.trim_start_matches("FZ-").to_owned(),
            format!("\t{code}\r\n"),
            wide,
        ] {
            assert_eq!(text.parse(), Ok(mark), "{text}");
        }
    }

    #[test]
    fn a_code_that_begins_with_fz_is_read_with_and_without_the_prefix() {
        let index = [0b0111_1111, 0b1100_0000, 0, 0, 0];
        let mark = Mark { index, tag: [5; 5] };
        let code = mark.code();
        assert!(code.starts_with("FZ-FZ"), "{code}");
        assert_eq!(code.parse(), Ok(mark));
        assert_eq!(code[3..].parse(), Ok(mark));
    }

    #[test]
    fn what_is_no_mark_is_refused_with_a_reason() {
        let code = mark_of(41, [9; 32]).code();
        let refused = |text: &str| text.parse::<Mark>().unwrap_err();
        assert_eq!(refused(""), MarkError::Length { found: 0 });
        assert_eq!(refused("FZ"), MarkError::Length { found: 0 });
        assert_eq!(refused(&code[..22]), MarkError::Length { found: 16 });
        assert_eq!(
            refused(&format!("{code}0")),
            MarkError::Length { found: 18 }
        );
        assert_eq!(refused(&"x".repeat(129)), MarkError::Length { found: 129 });
        for wrong in ["U", "*", "方"] {
            let text = format!("FZ-{wrong}{}", &code[4..]);
            assert_eq!(refused(&text), MarkError::Character { place: 1 });
        }
    }

    proptest! {
        #[test]
        fn one_changed_character_is_noticed(index: u64, leaf: [u8; 32], place in 0..CHARACTERS, by in 1..32_usize) {
            let code = mark_of(index, leaf).code().replace('-', "");
            let mut bytes = code.as_bytes()[2..].to_vec();
            let old = ALPHABET.iter().position(|c| *c == bytes[place]).unwrap();
            bytes[place] = ALPHABET[(old + by) % 32];
            let text = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(text.parse::<Mark>(), Err(MarkError::Check));
        }

        #[test]
        fn two_exchanged_characters_are_noticed(index: u64, leaf: [u8; 32], a in 0..CHARACTERS, b in 0..CHARACTERS) {
            let code = mark_of(index, leaf).code().replace('-', "");
            let mut bytes = code.as_bytes()[2..].to_vec();
            prop_assume!(bytes[a] != bytes[b]);
            bytes.swap(a, b);
            let text = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(text.parse::<Mark>(), Err(MarkError::Check));
        }

        #[test]
        fn a_mark_read_back_is_the_same_and_tells_its_index(index: u64, leaf: [u8; 32]) {
            let mark = mark_of(index, leaf);
            prop_assert_eq!(mark.code().parse(), Ok(mark));
            prop_assert_eq!(mark.index(), index & ((1 << 40) - 1));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _ = text.parse::<Mark>();
        }
    }
}
