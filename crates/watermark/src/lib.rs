//! Marks that lead an answer back to its access entry.
//!
//! Nothing that was opened for a reader can leave in an answer but inside a
//! [`Marked`], and a `Marked` is made only from a [`Receipt`]: the word that the access
//! entry is committed. The crate owns these types and the code that people copy from
//! paper; it refuses to serialize what is not marked. It commits nothing itself: that
//! a receipt is true rests on the one place that calls [`Receipt::committed`].
//!
//! Read in this order: `receipt`, `mark` (the code), `marked` (the types), `banner`
//! (the line for people).
//!
//! ```
//! use record::id::{Origin, UnixMillis};
//! use watermark::{Mark, MarkKey, Opened, Receipt, mark};
//!
//! let key = MarkKey::from_bytes([7; 32]);
//! let origin = Origin::parse("jiangjin.example/jinfu/access")?;
//! let receipt = Receipt::committed(origin.clone(), 41, [9; 32], UnixMillis(1_790_000_000_000));
//!
//! let answer = mark(&key, &receipt, Opened::new("the value"));
//! let json = serde_json::to_string(&answer)?;
//!
//! // Years later, from the paper:
//! let code: Mark = answer.mark().to_string().to_lowercase().parse()?;
//! assert_eq!(code.index(), 41);
//! assert!(code.verify(&key, &origin, 41, &[9; 32]));
//! # assert!(json.contains("the value"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What was opened cannot be serialized:
//!
//! ```compile_fail,E0277
//! serde_json::to_string(&watermark::Opened::new("the value"));
//! ```
//!
//! nor looked at, other than by marking it:
//!
//! ```compile_fail,E0616
//! let value = watermark::Opened::new("the value").0;
//! ```
//!
//! An answer cannot be built by hand:
//!
//! ```compile_fail,E0451
//! fn forge(honest: watermark::Marked<&str>) -> watermark::Marked<&str> {
//!     watermark::Marked { value: "another value", ..honest }
//! }
//! ```
//!
//! nor a receipt:
//!
//! ```compile_fail,E0451
//! fn forge(honest: &watermark::Receipt) -> watermark::Receipt {
//!     watermark::Receipt { line: honest.line().clone() }
//! }
//! ```
//!
//! and what is inside one answer cannot be taken out and put under another mark:
//!
//! ```compile_fail,E0616
//! fn take(answer: watermark::Marked<String>) -> String { answer.value }
//! ```

mod banner;
mod mark;
mod marked;
mod receipt;

pub use banner::banner;
pub use mark::{Mark, MarkError, MarkKey};
pub use marked::{Marked, Opened, mark};
pub use receipt::{Receipt, ReceiptLine};
