//! The name of a value: shard, table and rest, in one string of bytes.
//!
//! Owns the order of keys: by shard, then table, then rest, byte by byte, so that a shard is one
//! unbroken range and can be placed elsewhere whole.
//! Refuses names that would make two keys alike or that no engine can hold.

use std::fmt;

/// The longest key, separators included, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// The longest shard name, in bytes; a segment's group header holds its length in one byte.
pub const SHARD_BYTES_MAX: usize = 255;

/// `shard NUL table NUL rest`. Shard and table are non-empty and hold no NUL; the rest may be
/// any bytes, also none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

/// Why some names make no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Shard or table is empty.
    #[error("the {part} of a key is empty; give it a name")]
    Empty {
        /// `shard` or `table`.
        part: &'static str,
    },
    /// Shard or table holds the separator.
    #[error("the {part} of a key holds a NUL byte; name it without")]
    Nul {
        /// `shard` or `table`.
        part: &'static str,
    },
    /// The shard is longer than [`SHARD_BYTES_MAX`].
    #[error("a shard's name of {bytes} bytes is too long; at most {SHARD_BYTES_MAX} fit")]
    ShardTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The whole is longer than [`KEY_BYTES_MAX`].
    #[error("a key of {bytes} bytes is too long; at most {KEY_BYTES_MAX} fit")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Bytes that no key is made of.
    #[error("these bytes are not a key; it is `shard NUL table NUL rest`")]
    NotAKey,
}

impl Key {
    /// The key of `rest` in a table of a shard.
    ///
    /// # Errors
    /// [`KeyError`] when a name is empty, holds a NUL or is too long.
    pub fn new(shard: &str, table: &str, rest: &[u8]) -> Result<Key, KeyError> {
        check_shard(shard)?;
        check_name("table", table)?;
        let bytes = shard.len() + table.len() + rest.len() + 2;
        if bytes > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { bytes });
        }
        let mut key = Vec::with_capacity(bytes);
        key.extend_from_slice(shard.as_bytes());
        key.push(0);
        key.extend_from_slice(table.as_bytes());
        key.push(0);
        key.extend_from_slice(rest);
        Ok(Key(key))
    }

    /// A key from the bytes that [`Key::as_bytes`] gave.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] or [`KeyError::TooLong`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Key, KeyError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { bytes: bytes.len() });
        }
        let (shard, table, _) = split(bytes).ok_or(KeyError::NotAKey)?;
        if shard.is_empty() || table.is_empty() || shard.len() > SHARD_BYTES_MAX {
            return Err(KeyError::NotAKey);
        }
        Ok(Key(bytes.to_vec()))
    }

    /// The unit of placement that this key belongs to.
    pub fn shard(&self) -> &str {
        self.parts().0
    }

    /// The table within the shard.
    pub fn table(&self) -> &str {
        self.parts().1
    }

    /// What distinguishes the key within its table.
    pub fn rest(&self) -> &[u8] {
        self.parts().2
    }

    /// The bytes that engines compare and keep.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn parts(&self) -> (&str, &str, &[u8]) {
        split(&self.0).expect("both constructors check that the bytes split")
    }
}

/// `shard/table/rest`, the rest in hexadecimal.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shard, table, rest) = self.parts();
        write!(f, "{shard}/{table}/")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// The first key of a table at or after `from`, and the first key after the whole table.
pub(crate) fn table_range(
    shard: &str,
    table: &str,
    from: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), KeyError> {
    let mut end = Key::new(shard, table, &[])?.0;
    let mut start = end.clone();
    // `from` may be longer than any key's rest; it still orders.
    start.extend_from_slice(from);
    // The table's name ends in NUL, so 1 in its place comes after every key of the table and
    // before every other table.
    if let Some(separator) = end.last_mut() {
        *separator = 1;
    }
    Ok((start, end))
}

/// Whether `key` begins with the shard and its separator.
pub(crate) fn is_of_shard(key: &[u8], shard: &str) -> bool {
    key.get(shard.len()) == Some(&0) && key.starts_with(shard.as_bytes())
}

/// Table and rest of a key of this shard; `None` when these bytes are not one. The table is UTF-8.
pub(crate) fn in_shard<'a>(key: &'a [u8], shard: &str) -> Option<(&'a [u8], &'a [u8])> {
    let after = key.strip_prefix(shard.as_bytes())?.strip_prefix(&[0])?;
    let end = after.iter().position(|&byte| byte == 0)?;
    let (table, rest) = (&after[..end], &after[end + 1..]);
    let is_text = table.is_ascii() || std::str::from_utf8(table).is_ok();
    let fits = key.len() <= KEY_BYTES_MAX && !table.is_empty();
    (is_text && fits).then_some((table, rest))
}

/// Whether a shard may have this name.
pub(crate) fn check_shard(shard: &str) -> Result<(), KeyError> {
    check_name("shard", shard)?;
    match shard.len() {
        bytes if bytes > SHARD_BYTES_MAX => Err(KeyError::ShardTooLong { bytes }),
        _ => Ok(()),
    }
}

fn check_name(part: &'static str, name: &str) -> Result<(), KeyError> {
    if name.is_empty() {
        return Err(KeyError::Empty { part });
    }
    if name.as_bytes().contains(&0) {
        return Err(KeyError::Nul { part });
    }
    Ok(())
}

pub(crate) fn split(bytes: &[u8]) -> Option<(&str, &str, &[u8])> {
    let mut parts = bytes.splitn(3, |&byte| byte == 0);
    let shard = std::str::from_utf8(parts.next()?).ok()?;
    let table = std::str::from_utf8(parts.next()?).ok()?;
    Some((shard, table, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_back_its_parts_even_when_the_rest_holds_separators() {
        let key = Key::new("a/b", "t", b"\0x\0").unwrap();
        assert_eq!(
            (key.shard(), key.table(), key.rest()),
            ("a/b", "t", &b"\0x\0"[..])
        );
        assert_eq!(Key::from_bytes(key.as_bytes()).unwrap(), key);
        assert_eq!(key.to_string(), "a/b/t/007800");
    }

    #[test]
    fn keys_order_by_shard_then_table_then_rest() {
        let key = |s, t, r: &[u8]| Key::new(s, t, r).unwrap();
        let ordered = [
            key("a", "t", b""),
            key("a", "t", b"\0"),
            key("a", "t", b"\xff"),
            key("a", "t!", b""),
            key("a!", "a", b""),
            key("ab", "a", b""),
        ];
        assert!(ordered.is_sorted());
        let (start, end) = table_range("a", "t", b"").unwrap();
        let inside = ordered
            .iter()
            .filter(|k| k.as_bytes() >= &start && k.as_bytes() < &end);
        assert_eq!(inside.count(), 3);
    }

    #[test]
    fn names_that_would_collide_or_not_fit_are_refused() {
        assert_eq!(
            Key::new("", "t", b""),
            Err(KeyError::Empty { part: "shard" })
        );
        assert_eq!(
            Key::new("a\0", "t", b""),
            Err(KeyError::Nul { part: "shard" })
        );
        assert_eq!(
            Key::new("a", "", b""),
            Err(KeyError::Empty { part: "table" })
        );
        assert!(Key::new("a", "t", &[0; 508]).is_ok());
        assert_eq!(
            Key::new("a", "t", &[0; 509]),
            Err(KeyError::TooLong { bytes: 513 })
        );
        let long = "s".repeat(256);
        assert_eq!(
            Key::new(&long, "t", b""),
            Err(KeyError::ShardTooLong { bytes: 256 })
        );
        for bad in [&b""[..], b"a", b"a\0t", b"\0t\0", b"a\0\0", b"\xff\0t\0"] {
            assert_eq!(Key::from_bytes(bad), Err(KeyError::NotAKey));
        }
    }

    #[test]
    fn a_shard_owns_no_key_of_a_shard_whose_name_begins_alike() {
        assert!(is_of_shard(b"a\0t\0", "a"));
        assert!(!is_of_shard(b"ab\0t\0", "a"));
        assert!(!is_of_shard(b"a", "a"));
    }
}
