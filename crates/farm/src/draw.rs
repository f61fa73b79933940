//! Seeded draws: a stream of numbers that is a pure function of (seed, device, topic).
//!
//! Every decision has a topic of its own, so that one more decision somewhere moves no other. The generator is SplitMix64
//! (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014); it decides faults, never keys.

/// A stream of draws.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The stream of one device and topic.
    pub fn new(seed: u64, index: u32, topic: &str) -> Self {
        // FNV-1a over the topic; the mixing below spreads it.
        let topic = topic.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut draw = Self { state: seed };
        draw.state = draw.number() ^ topic;
        draw.state = draw.number() ^ u64::from(index);
        draw
    }

    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in 0..1.
    pub fn fraction(&mut self) -> f64 {
        // The upper 53 bits are what a double holds exactly.
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..`count`; 0 where there is nothing to choose from.
    pub fn below(&mut self, count: usize) -> usize {
        let wide = u128::from(self.number()) * count as u128;
        (wide >> 64) as usize
    }

    /// One of the items; the list must not be empty.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_seed_device_and_topic_alone() {
        let first = |seed, index, topic| Draw::new(seed, index, topic).number();
        assert_eq!(first(1, 2, "model"), first(1, 2, "model"));
        let others = [
            first(1, 2, "model"),
            first(2, 2, "model"),
            first(1, 3, "model"),
            first(1, 2, "serial"),
        ];
        for (place, one) in others.iter().enumerate() {
            assert!(others[place + 1..].iter().all(|other| other != one));
        }
    }

    #[test]
    fn fractions_are_spread_evenly() {
        let mut buckets = [0_u32; 10];
        for index in 0..10_000 {
            let fraction = Draw::new(7, index, "spread").fraction();
            assert!((0.0..1.0).contains(&fraction));
            buckets[(fraction * 10.0) as usize] += 1;
        }
        assert!(
            buckets.iter().all(|count| (900..1100).contains(count)),
            "{buckets:?}"
        );
        assert_eq!(Draw::new(1, 1, "x").below(0), 0);
    }
}
