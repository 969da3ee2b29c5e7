//! The payload (载荷): frames one after another, cut into chunks, each chunk sealed.
//!
//! A frame is a length, a kind and a message of `sync`, or a proof that stands in for an answer which
//! a file cannot wait for. Owns writing and reading them with at most one frame and one chunk in
//! memory. Refuses chunks that do not open, frames over their bound, and bytes that are no frame.

use minicbor::{Decode, Encode};
use record::cbor;
use record::id::{Hash, Origin};
use seal::ferry::{
    CHUNK_BYTES, CHUNK_SEALED_BYTES, CHUNK_TAG_BYTES, FerryError, open_chunk, seal_chunk,
};
use seal::secret::FerryKey;
use sync::Message;
use zeroize::Zeroizing;

use crate::limits::FRAME_BYTES_MAX;

/// The proof that an offered head extends one that the receiver may have been shown before, in a
/// bundle that was not opened to its end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Extends {
    /// Which ledger.
    #[n(0)]
    pub origin: Origin,
    /// Size of the earlier head.
    #[n(1)]
    pub known_size: u64,
    /// Consistency proof from there to the head offered, 32 bytes each.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub proof: Vec<u8>,
}

/// The longest consistency proof, in hashes.
const PROOF_HASHES_MAX: usize = ledger::proof::PROOF_HASHES_MAX;

impl Extends {
    /// The proof's hashes.
    pub fn hashes(&self) -> Vec<Hash> {
        self.proof.as_chunks::<32>().0.to_vec()
    }
}

/// One piece of a payload.
#[derive(Debug)]
pub enum Frame {
    /// A message, as a session would send it.
    Message(Box<Message>),
    /// A proof for the ledger offered last.
    Extends(Extends),
}

/// Why a payload is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A chunk does not open.
    #[error("载荷被改动、移位或截断 / {0}")]
    Chunk(#[from] FerryError),
    /// A frame declares more than there may be.
    #[error(
        "第 {at} 帧声明的长度超限 / frame {at} declares a length over its bound; the sender's node must be repaired"
    )]
    Bounds {
        /// Which.
        at: u64,
    },
    /// A frame is no message.
    #[error("第 {at} 帧无法读取 / frame {at} cannot be read: {what}; ask the sender to pack again")]
    Malformed {
        /// Which.
        at: u64,
        /// In words.
        what: String,
    },
    /// The payload ends within a frame, or goes on behind its last.
    #[error(
        "载荷中途结束 / the payload ends in the middle of a frame; ask the sender to pack again"
    )]
    Cut,
}

impl Frame {
    /// Kind and content, without the length.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Frame::Message(message) => [&[1][..], &Message::encode(message)].concat(),
            Frame::Extends(extends) => [&[2][..], &cbor::to_vec(extends)].concat(),
        }
    }

    /// Reads a frame from exactly these bytes.
    ///
    /// # Errors
    /// In words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((1, rest)) => Message::decode(rest)
                .map(|message| Frame::Message(Box::new(message)))
                .map_err(|error| error.to_string()),
            Some((2, rest)) => {
                let extends: Extends =
                    cbor::from_slice("proof", rest, 4096).map_err(|error| error.to_string())?;
                let length = extends.proof.len();
                if !length.is_multiple_of(32) || length / 32 > PROOF_HASHES_MAX {
                    return Err("not the hashes of a proof".into());
                }
                Ok(Frame::Extends(extends))
            }
            _ => Err("a frame of an unknown kind".into()),
        }
    }
}

/// Writes a payload.
pub struct Sealer {
    key: FerryKey,
    index: u64,
    frames: u64,
    plain: Zeroizing<Vec<u8>>,
}

impl Sealer {
    /// An empty payload under this key, which must seal no other.
    pub fn new(key: FerryKey) -> Self {
        Self {
            key,
            index: 0,
            frames: 0,
            plain: Zeroizing::new(Vec::with_capacity(2 * CHUNK_BYTES)),
        }
    }

    /// Adds a frame; whole chunks go to `out`, sealed.
    pub fn frame(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        let bytes = frame.encode();
        let length = u32::try_from(bytes.len()).expect("messages are at most a mebibyte");
        self.plain.extend(length.to_be_bytes());
        self.plain.extend(bytes);
        self.frames += 1;
        // One chunk stays back: only the last may be marked so, and it is known at the end.
        let mut at = 0;
        while self.plain.len() - at > CHUNK_BYTES {
            let mut chunk = self.plain[at..at + CHUNK_BYTES].to_vec();
            seal_chunk(&self.key, self.index, false, &mut chunk);
            out.append(&mut chunk);
            self.index += 1;
            at += CHUNK_BYTES;
        }
        self.plain.drain(..at);
    }

    /// Seals the last chunk; gives the number of frames.
    pub fn finish(self, out: &mut Vec<u8>) -> u64 {
        let mut chunk = self.plain.to_vec();
        seal_chunk(&self.key, self.index, true, &mut chunk);
        out.append(&mut chunk);
        self.frames
    }
}

/// Reads a payload, chunk by chunk.
pub struct Opener {
    key: FerryKey,
    index: u64,
    left: u64,
    frames: u64,
    plain: Zeroizing<Vec<u8>>,
}

impl Opener {
    /// A payload of so many sealed bytes, as the manifest declares.
    pub fn new(key: FerryKey, sealed_bytes: u64) -> Self {
        Self {
            key,
            index: 0,
            left: sealed_bytes,
            frames: 0,
            plain: Zeroizing::new(Vec::new()),
        }
    }

    /// How many bytes the next chunk has; 0 at the end.
    pub fn wants(&self) -> usize {
        usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(CHUNK_SEALED_BYTES)
    }

    /// Takes the next chunk, of [`Opener::wants`] bytes.
    ///
    /// # Errors
    /// [`PayloadError::Chunk`], [`PayloadError::Cut`].
    pub fn chunk(&mut self, sealed: &[u8]) -> Result<(), PayloadError> {
        if sealed.len() != self.wants() || sealed.len() < CHUNK_TAG_BYTES {
            return Err(PayloadError::Cut);
        }
        let rest = self.left - sealed.len() as u64;
        let opened = open_chunk(&self.key, self.index, rest == 0, sealed)?;
        self.left = rest;
        self.index += 1;
        self.plain.extend_from_slice(&opened);
        Ok(())
    }

    /// The next frame, if it is whole; `None` asks for another chunk, or is the end.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn frame(&mut self) -> Result<Option<Frame>, PayloadError> {
        let at = self.frames;
        let Some((length, rest)) = self.plain.split_first_chunk::<4>() else {
            return self.end(self.plain.is_empty());
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(PayloadError::Bounds { at });
        }
        let Some(bytes) = rest.get(..length) else {
            return self.end(false);
        };
        let frame = Frame::decode(bytes).map_err(|what| PayloadError::Malformed { at, what })?;
        self.plain.drain(..4 + length);
        self.frames += 1;
        Ok(Some(frame))
    }

    fn end(&self, clean: bool) -> Result<Option<Frame>, PayloadError> {
        if self.left == 0 && !clean {
            return Err(PayloadError::Cut);
        }
        Ok(None)
    }

    /// Frames read so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(bytes: usize) -> Frame {
        let origin = Origin::parse("a.example/b/person").unwrap();
        Frame::Message(Box::new(Message::Entries(sync::message::Entries {
            origin,
            head_size: 1,
            first: 0,
            items: vec![sync::Item {
                entry: vec![7; 10],
                body: Some(vec![9; bytes]),
                gone: None,
            }],
            proof: vec![],
            extends: vec![],
        })))
    }

    fn sealed(sizes: &[usize]) -> Vec<u8> {
        let mut sealer = Sealer::new(FerryKey::from_bytes([3; 32]));
        let mut out = Vec::new();
        for size in sizes {
            sealer.frame(&frame(*size), &mut out);
        }
        assert_eq!(sealer.finish(&mut out), sizes.len() as u64);
        out
    }

    fn open(bytes: &[u8], declared: u64) -> Result<Vec<Vec<u8>>, PayloadError> {
        let mut opener = Opener::new(FerryKey::from_bytes([3; 32]), declared);
        let (mut at, mut found) = (0, Vec::new());
        loop {
            while let Some(frame) = opener.frame()? {
                found.push(frame.encode());
            }
            let wants = opener.wants();
            if wants == 0 {
                return Ok(found);
            }
            let chunk = bytes.get(at..at + wants).ok_or(PayloadError::Cut)?;
            opener.chunk(chunk)?;
            at += wants;
        }
    }

    #[test]
    fn frames_come_back_whatever_their_sizes() {
        for sizes in [
            &[][..],
            &[0],
            &[10, 65_536, 1, 800_000, 65_483],
            &[300_000; 4],
        ] {
            let bytes = sealed(sizes);
            let found = open(&bytes, bytes.len() as u64).unwrap();
            let given: Vec<_> = sizes.iter().map(|size| frame(*size).encode()).collect();
            assert_eq!(found, given);
        }
    }

    #[test]
    fn a_frame_that_lies_about_its_length_costs_nothing() {
        for length in [FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
            let key = FerryKey::from_bytes([3; 32]);
            let mut chunk = length.to_be_bytes().to_vec();
            seal_chunk(&key, 0, true, &mut chunk);
            let refused = open(&chunk, chunk.len() as u64).unwrap_err();
            assert_eq!(refused, PayloadError::Bounds { at: 0 });
        }
        let mut chunk = 9u32.to_be_bytes().to_vec();
        seal_chunk(&FerryKey::from_bytes([3; 32]), 0, true, &mut chunk);
        assert_eq!(open(&chunk, chunk.len() as u64), Err(PayloadError::Cut));
    }

    #[test]
    fn chunks_left_out_doubled_or_exchanged_are_refused() {
        let bytes = sealed(&[200_000]);
        let mut chunks: Vec<&[u8]> = bytes.chunks(CHUNK_SEALED_BYTES).collect();
        assert_eq!(chunks.len(), 4);
        let refused = |chunks: &[&[u8]]| {
            let bytes = chunks.concat();
            open(&bytes, bytes.len() as u64).is_err()
        };
        assert!(refused(&chunks[..3]) && refused(&chunks[1..]));
        assert!(refused(&[
            chunks[0], chunks[1], chunks[1], chunks[2], chunks[3]
        ]));
        chunks.swap(0, 1);
        assert!(refused(&chunks));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_byte_changed_and_any_cut_is_refused(at in 0usize..100_000, bit in 0u8..8) {
            let bytes = sealed(&[100_000]);
            let at = at.min(bytes.len() - 1);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            prop_assert!(open(&flipped, bytes.len() as u64).is_err());
            prop_assert!(open(&bytes[..at], bytes.len() as u64).is_err());
            prop_assert!(open(&bytes[..at], at as u64).is_err());
        }
    }
}
