//! The one source of chance of a run, and the hash of what happened in it.

/// splitmix64, as in the other tests, with what a run needs of it.
pub struct Dice(crate::sim::Rng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds begin far apart.
        let mut dice = Self(crate::sim::Rng(seed.wrapping_mul(0xd6e8_feb8_6659_fd93)));
        dice.0.next();
        dice
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiplication instead of a remainder: this is called several times a step.
        ((u128::from(self.0.next()) * u128::from(bound)) >> 64) as u64
    }

    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True in so many of a thousand cases.
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }
}

/// Everything that happened, as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(pub u64);

impl Trace {
    pub fn add(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
}
