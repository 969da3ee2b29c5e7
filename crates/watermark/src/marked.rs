//! What was opened for a reader, before and after it carries its mark.
//!
//! Owns the one way from [`Opened`] to [`Marked`]; it refuses every other.

use std::fmt;

use serde::Serialize;

use crate::mark::{Mark, MarkKey};
use crate::receipt::{Receipt, ReceiptLine};

/// Values opened for a permit: they cannot be serialized, printed or looked at.
///
/// It guards against forgetting the mark, not against the code that opened the
/// values, which had them in hand. A type that wipes itself should be put in as it is.
pub struct Opened<T>(T);

impl<T> Opened<T> {
    /// Takes charge of values that were just opened.
    pub fn new(value: T) -> Opened<T> {
        Opened(value)
    }

    /// Reshapes the values, such as to mask or to lay them out in rows.
    pub fn map<U>(self, shape: impl FnOnce(T) -> U) -> Opened<U> {
        Opened(shape(self.0))
    }
}

impl<T> fmt::Debug for Opened<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened(..)")
    }
}

/// An answer that may leave: the value, its mark and what it says of its access entry.
#[derive(Serialize)]
pub struct Marked<T: Serialize> {
    mark: Mark,
    receipt: ReceiptLine,
    value: T,
}

/// Puts the mark of a reading on what was opened for it.
///
/// The receipt must be that of the very reading that opened the values; the types
/// cannot tell one reading's receipt from another's.
pub fn mark<T: Serialize>(key: &MarkKey, receipt: &Receipt, opened: Opened<T>) -> Marked<T> {
    Marked {
        mark: Mark::of(key, receipt),
        receipt: receipt.line().clone(),
        value: opened.0,
    }
}

impl<T: Serialize> Marked<T> {
    /// The mark, to be shown wherever the value is.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The access entry.
    pub fn receipt(&self) -> &ReceiptLine {
        &self.receipt
    }

    /// The value, for a page or a file that shows the mark beside it.
    pub fn value(&self) -> &T {
        &self.value
    }
}

impl<T: Serialize> fmt::Debug for Marked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Marked({})", self.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use record::id::{Origin, UnixMillis};

    fn receipt() -> Receipt {
        let origin = Origin::parse("jiangjin.example/jinfu/access").unwrap();
        Receipt::committed(origin, 41, [9; 32], UnixMillis(1_790_000_000_000))
    }

    #[test]
    fn an_answer_carries_its_mark_and_its_entry() {
        let key = MarkKey::from_bytes([1; 32]);
        let opened = Opened::new("王芳").map(|name| vec![name]);
        let json = serde_json::to_value(mark(&key, &receipt(), opened)).unwrap();
        let code = Mark::of(&key, &receipt()).code();
        assert_eq!(
            json,
            serde_json::json!({
                "mark": code,
                "receipt": {
                    "origin": "jiangjin.example/jinfu/access",
                    "index": 41,
                    "leaf": "09".repeat(32),
                    "at": 1_790_000_000_000_u64,
                },
                "value": ["王芳"],
            })
        );
    }

    #[test]
    fn neither_opened_nor_marked_values_nor_the_key_show_in_debug_output() {
        let key = MarkKey::from_bytes([1; 32]);
        assert_eq!(format!("{:?}", Opened::new("王芳")), "Opened(..)");
        assert_eq!(format!("{key:?}"), "MarkKey(..)");
        let marked = mark(&key, &receipt(), Opened::new("王芳"));
        assert_eq!(format!("{marked:?}"), format!("Marked({})", marked.mark()));
    }
}
