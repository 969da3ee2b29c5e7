//! The one line by which each file of a bundle begins: which part it is, how long the manifest that
//! follows is, and the sender's signature over that manifest.
//!
//! Owns the line, of a fixed length and in one spelling. Refuses everything else.

use data_encoding::HEXLOWER;

use crate::limits::{MANIFEST_BYTES_MAX, PARTS_MAX};

/// Bytes of the line, its newline included.
pub const HEAD_BYTES: usize = 184;

/// What the first line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which part this file has, from 1.
    pub part: u32,
    /// Bytes of the manifest that follows.
    pub manifest_bytes: u32,
    /// Ed25519 by the sender's `sign` key; see [`crate::Manifest::message`].
    pub signature: [u8; 64],
}

/// The file does not begin as a bundle's does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is something else.
    #[error(
        "不是摆渡文件，或开头已损坏 / this is no ferry file, or its first line was altered; copy it again"
    )]
    NotFerry,
    /// It was written by another version.
    #[error(
        "摆渡文件版本不同，请升级较旧的一方 / the ferry file is of another version; update the older of the two nodes"
    )]
    Version,
    /// A number is over its bound.
    #[error(
        "摆渡文件首行的长度超限 / the first line of the ferry file declares more than there may be; it was altered"
    )]
    Bounds,
}

const MAGIC: &str = "fangzhi-ferry ";

impl Head {
    /// The line.
    pub fn encode(&self) -> String {
        format!(
            "{MAGIC}1 part {:05} manifest {:08} signature {}\n",
            self.part,
            self.manifest_bytes,
            HEXLOWER.encode(&self.signature)
        )
    }

    /// Reads the line from exactly [`HEAD_BYTES`] bytes.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        let line = str::from_utf8(bytes).map_err(|_| HeadError::NotFerry)?;
        let rest = line.strip_prefix(MAGIC).ok_or(HeadError::NotFerry)?;
        let words: Vec<&str> = rest.trim_end_matches('\n').split(' ').collect();
        let [
            version,
            "part",
            part,
            "manifest",
            length,
            "signature",
            signature,
        ] = words[..]
        else {
            return Err(HeadError::NotFerry);
        };
        if version != "1" {
            return Err(HeadError::Version);
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| HeadError::NotFerry);
        let signature = HEXLOWER.decode(signature.as_bytes()).ok();
        let signature = signature.and_then(|bytes| bytes.try_into().ok());
        let head = Self {
            part: number(part)?,
            manifest_bytes: number(length)?,
            signature: signature.ok_or(HeadError::NotFerry)?,
        };
        // One spelling, so that a file has one hash.
        if head.encode() != line {
            return Err(HeadError::NotFerry);
        }
        let bounds = 1..=PARTS_MAX as u32;
        if !bounds.contains(&head.part) || head.manifest_bytes as usize > MANIFEST_BYTES_MAX {
            return Err(HeadError::Bounds);
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            part: 2,
            manifest_bytes: 4_000,
            signature: [0xab; 64],
        }
    }

    #[test]
    fn the_line_has_its_length_and_is_read_in_one_spelling_only() {
        let line = head().encode();
        assert_eq!(line.len(), HEAD_BYTES);
        assert_eq!(Head::decode(line.as_bytes()), Ok(head()));
        let change = |from: &str, to: &str| Head::decode(line.replacen(from, to, 1).as_bytes());
        assert_eq!(change("ferry 1", "ferry 2"), Err(HeadError::Version));
        assert_eq!(change("00002", "2"), Err(HeadError::NotFerry));
        assert_eq!(change("00002", "00000"), Err(HeadError::Bounds));
        assert_eq!(change("00002", "01025"), Err(HeadError::Bounds));
        assert_eq!(change("00004000", "99999999"), Err(HeadError::Bounds));
        assert_eq!(change("ab", "AB"), Err(HeadError::NotFerry));
        assert_eq!(change("\n", ""), Err(HeadError::NotFerry));
        assert_eq!(change("\n", "\n\n"), Err(HeadError::NotFerry));
        for end in 0..line.len() {
            assert!(Head::decode(&line.as_bytes()[..end]).is_err());
        }
    }
}
