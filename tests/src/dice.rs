//! Chance that can be repeated.

/// Pseudo-random numbers (SplitMix64) from a seed that is printed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From `FANGZHI_SEED`, or from the clock; prints the seed, so that a failure can be repeated.
    pub fn new(what: &str) -> Self {
        let clock = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let seed = crate::from_env("FANGZHI_SEED", clock.as_nanos() as u64);
        eprintln!("{what}: FANGZHI_SEED={seed}");
        Self(seed)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
