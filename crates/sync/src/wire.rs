//! Fields of messages whose size is checked before they are built.
//!
//! Owns the bounded lists of the wire. Refuses a list whose declared length is over its bound
//! before reading the first element, and lists of unknown length.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

pub(crate) fn list<'b, T: Decode<'b, Ctx>, Ctx>(
    d: &mut Decoder<'b>,
    ctx: &mut Ctx,
    max: usize,
) -> Result<Vec<T>, DecodeError> {
    let count = d
        .array()?
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| *count <= max)
        .ok_or_else(|| DecodeError::message("list over its bound"))?;
    // Not `with_capacity`: the count is a claim until the elements are there.
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(d.decode_with(ctx)?);
    }
    Ok(values)
}

macro_rules! bounded_list {
    ($(#[$doc:meta])* $module:ident, $element:ty, $max:expr) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use super::*;

            pub(crate) fn encode<Ctx, W: Write>(
                values: &Vec<$element>,
                e: &mut Encoder<W>,
                ctx: &mut Ctx,
            ) -> Result<(), EncodeError<W::Error>> {
                Encode::encode(values, e, ctx)
            }

            pub(crate) fn decode<'b, Ctx>(
                d: &mut Decoder<'b>,
                ctx: &mut Ctx,
            ) -> Result<Vec<$element>, DecodeError> {
                list(d, ctx, $max)
            }
        }
    };
}

bounded_list!(
    /// Charters, the node's first.
    chain,
    record::authority::Charter,
    crate::limits::CHAIN_MAX
);
bounded_list!(
    /// Entries with their bodies.
    items,
    crate::message::Item,
    crate::limits::ITEMS_MAX
);
bounded_list!(
    /// Cosignature lines.
    lines,
    String,
    crate::limits::LINES_MAX
);

/// Hashes of a proof as one byte string, 32 bytes each.
pub(crate) mod hashes {
    use super::*;
    use ledger::hash::Hash;
    use ledger::proof::PROOF_HASHES_MAX;

    pub(crate) fn encode<Ctx, W: Write>(
        values: &[Hash],
        e: &mut Encoder<W>,
        _: &mut Ctx,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(values.as_flattened())?.ok()
    }

    pub(crate) fn decode<'b, Ctx>(
        d: &mut Decoder<'b>,
        _: &mut Ctx,
    ) -> Result<Vec<Hash>, DecodeError> {
        match d.bytes()?.as_chunks::<32>() {
            (hashes, []) if hashes.len() <= PROOF_HASHES_MAX => Ok(hashes.to_vec()),
            _ => Err(DecodeError::message("not the hashes of a proof")),
        }
    }
}
