//! Streams of keys.

/// The numbers below `count`, each as likely, in an order that no prefetcher foresees (xorshift).
#[derive(Debug, Clone)]
pub struct Uniform {
    state: u64,
    count: u64,
}

impl Uniform {
    /// A stream of its own for each seed.
    #[must_use]
    pub const fn new(count: u64, seed: u64) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15 ^ (seed << 17), count }
    }

    /// The next key.
    #[inline]
    pub fn key(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((u128::from(self.state) * u128::from(self.count)) >> 64) as u64
    }
}

/// The numbers below `count`, the k-th with a likelihood of 1/k: a few keys make most of the calls.
/// Drawn beforehand, so that drawing is not timed.
#[derive(Debug, Clone)]
pub struct Zipf {
    drawn: Vec<u32>,
    next: usize,
}

impl Zipf {
    /// A million draws.
    #[must_use]
    pub fn new(count: u64) -> Self {
        let mut uniform = Uniform::new(1 << 52, 1);
        let harmonic = (count as f64).ln();
        // The inverse of the continuous distribution with density 1/x; which key is the k-th is
        // scattered, so that neighbours in rank are not neighbours in memory.
        let draw = |_| {
            let share = uniform.key() as f64 / (1_u64 << 52) as f64;
            let rank = (share * harmonic).exp() as u64 - 1;
            (rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count) as u32
        };
        Self { drawn: (0..1 << 20).map(draw).collect(), next: 0 }
    }

    /// The next key.
    #[inline]
    pub fn key(&mut self) -> u64 {
        self.next = (self.next + 1) % self.drawn.len();
        u64::from(self.drawn[self.next])
    }
}
