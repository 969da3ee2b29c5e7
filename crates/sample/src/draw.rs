//! Chance, reproducibly: ChaCha8 keyed by the seed and the place.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// The seed is laid out here and not by the library, so that no version of it changes a sample.
    pub(crate) fn new(seed: u64, serial: u16) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..10].copy_from_slice(&serial.to_le_bytes());
        key[16..].copy_from_slice(b"fangzhi/sample/1");
        Draw(ChaCha8Rng::from_seed(key))
    }

    /// A number below `n`; 0 if `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let product = u128::from(self.0.next_u64()) * n as u128;
        (product >> 64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: i32, high: i32) -> i32 {
        let span = (high - low).max(0) as usize + 1;
        low + self.below(span) as i32
    }

    /// True in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the values, each as likely. The slice must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// One of the values, as likely as its weight.
    pub(crate) fn weighted<T: Copy>(&mut self, values: &[(T, usize)]) -> T {
        let total = values.iter().map(|(_, weight)| weight).sum();
        let mut at = self.below(total);
        for (value, weight) in values {
            if at < *weight {
                return *value;
            }
            at -= weight;
        }
        values[0].0
    }
}
