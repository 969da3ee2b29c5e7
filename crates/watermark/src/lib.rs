//! Marks that lead an answer back to its access entry.
