//! A share as text that a person can type: numbered lines, each with its own checksum.
//!
//! Owns the alphabet (Crockford's base32, which has no I, L, O and U) and the lines. What
//! looks alike is read alike; groups, case, spaces and hyphens do not matter. A mistake is
//! reported with its line, so that one line is typed again and not the whole share.

use zeroize::Zeroizing;

use super::bytes::SHARE_MAX;
use super::{Share, ShareError, hash};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Bytes of a line, which are 24 letters.
const LINE: usize = 15;
const GROUP: usize = 4;
/// Letters of a line's checksum: 20 bits.
const CHECK: usize = 4;
const LINES_MAX: usize = SHARE_MAX.div_ceil(LINE);
/// The longest text that is looked at, with room for comments and spaces.
pub const TEXT_MAX: usize = 4_096;

impl Share {
    /// The share as numbered lines of at most 33 characters, the last group of each a checksum.
    /// Whoever calls this answers for where they go.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = self.encode();
        let lines = bytes.len().div_ceil(LINE);
        // A number, six groups and a checksum with a space before each, a line break.
        let mut text = Zeroizing::new(String::with_capacity(lines * 40));
        for (at, line) in bytes.chunks(LINE).enumerate() {
            let number = at + 1;
            text.push(char::from(b'0' + (number / 10) as u8));
            text.push(char::from(b'0' + (number % 10) as u8));
            for (letter, symbol) in symbols(line).enumerate() {
                if letter % GROUP == 0 {
                    text.push(' ');
                }
                text.push(symbol);
            }
            text.push(' ');
            symbols(&check(number, line))
                .take(CHECK)
                .for_each(|symbol| text.push(symbol));
            text.push('\n');
        }
        text
    }

    /// Reads what a person typed. Empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// [`ShareError::Line`] and [`ShareError::Missing`] name the line to type again;
    /// [`ShareError::Malformed`] when the lines are right and no share.
    pub fn from_text(text: &str) -> Result<Self, ShareError> {
        if text.len() > TEXT_MAX {
            return Err(ShareError::Malformed);
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(LINES_MAX * LINE));
        let mut number = 0;
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            number += 1;
            let (named, rest) = line
                .split_once(char::is_whitespace)
                .ok_or(ShareError::Line { line: number })?;
            if named.parse() != Ok(number) {
                return Err(ShareError::Missing { line: number });
            }
            // Only the last line may be shorter.
            if number > LINES_MAX || bytes.len() != (number - 1) * LINE {
                return Err(ShareError::Malformed);
            }
            let read = read_line(number, rest).ok_or(ShareError::Line { line: number })?;
            bytes.extend_from_slice(&read);
        }
        match Share::decode(&bytes) {
            // Whole lines that are no share: the rest of them was left out.
            Err(_) if number < LINES_MAX && bytes.len() == number * LINE => {
                Err(ShareError::Missing { line: number + 1 })
            }
            read => read,
        }
    }
}

/// The bytes of one line without its number; `None` when its checksum does not fit.
fn read_line(number: usize, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut letters = Zeroizing::new(Vec::with_capacity(text.len()));
    for letter in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        letters.push(value(letter)?);
    }
    let (data, named) = letters.split_last_chunk::<CHECK>()?;
    let length = data.len() * 5 / 8;
    // As many letters as the bytes need, and at least one byte.
    if length == 0 || length > LINE || data.len() != (length * 8).div_ceil(5) {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LINE));
    let (mut bits, mut held) = (0u16, 0);
    for letter in data {
        bits = bits << 5 | u16::from(*letter);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    let wanted = check(number, &bytes);
    let fits = symbols(&wanted)
        .zip(named)
        .all(|(symbol, letter)| symbol == char::from(ALPHABET[usize::from(*letter)]));
    (bits == 0 && fits).then_some(bytes)
}

/// The letters of bytes; the last is filled up with zero bits.
fn symbols(bytes: &[u8]) -> impl Iterator<Item = char> {
    (0..(bytes.len() * 8).div_ceil(5)).map(|letter| {
        let bit = letter * 5;
        let high = u16::from(bytes[bit / 8]) << 8;
        let low = bytes.get(bit / 8 + 1).copied().unwrap_or(0);
        let symbol = (high | u16::from(low)) >> (11 - bit % 8) & 31;
        char::from(ALPHABET[usize::from(symbol)])
    })
}

fn value(letter: char) -> Option<u8> {
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let at = ALPHABET
        .iter()
        .position(|symbol| char::from(*symbol) == letter)?;
    u8::try_from(at).ok()
}

/// Three bytes, of which a line shows the first 20 bits.
fn check(number: usize, line: &[u8]) -> [u8; 3] {
    let number = u8::try_from(number).unwrap_or(u8::MAX);
    let hash = hash(b"fangzhi/share-line/v1", &[&[number], line]);
    [hash[0], hash[1], hash[2]]
}
