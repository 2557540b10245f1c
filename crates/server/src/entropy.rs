//! The one source of randomness: ids, keys and the jitter of back-off. `app.rs` makes it and hands it on.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

/// Random bytes are drawn in blocks of this size, since a call into the generator costs more than the bytes do and
/// most draws are 4 to 10 bytes.
const BLOCK_BYTES: usize = 512;

/// A cryptographically strong generator, seeded by the operating system. Clones share it.
#[derive(Clone, Debug)]
pub struct Entropy {
    block: Arc<Mutex<Block>>,
}

#[derive(Debug)]
struct Block {
    source: SystemRandom,
    bytes: [u8; BLOCK_BYTES],
    used: usize,
}

impl Entropy {
    /// The operating system's randomness.
    pub fn system() -> Self {
        let block = Block { source: SystemRandom::new(), bytes: [0; BLOCK_BYTES], used: BLOCK_BYTES };
        Self { block: Arc::new(Mutex::new(block)) }
    }

    /// The random part of a UUIDv7.
    pub fn id_bytes(&self) -> [u8; 10] {
        self.draw()
    }

    /// 32 random bits.
    pub fn bits(&self) -> u32 {
        u32::from_ne_bytes(self.draw())
    }

    /// A number in `[0, 1)`, for jitter.
    pub fn fraction(&self) -> f64 {
        f64::from(self.bits()) / (f64::from(u32::MAX) + 1.0)
    }

    /// Random bytes for keys and nonces.
    ///
    /// # Panics
    /// If the generator fails, since nothing secret or unique can be made then.
    pub fn draw<const N: usize>(&self) -> [u8; N] {
        const { assert!(N <= BLOCK_BYTES, "a draw must fit into one block") };
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        if block.used + N > BLOCK_BYTES {
            let Block { source, bytes, used } = &mut *block;
            source.fill(bytes).expect("the operating system's generator does not fail once it is seeded");
            *used = 0;
        }
        let start = block.used;
        block.used += N;
        let mut drawn = [0; N];
        drawn.copy_from_slice(&block.bytes[start..start + N]);
        // What was handed out may become a key, so no copy of it stays behind.
        block.bytes[start..start + N].fill(0);
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_hands_out_the_same_bytes_twice() {
        let entropy = Entropy::system();
        let drawn: std::collections::HashSet<[u8; 10]> = (0..1_000).map(|_| entropy.id_bytes()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(!drawn.contains(&[0; 10]), "the blanked part of a block was handed out");
    }

    #[test]
    fn fractions_stay_below_one() {
        let entropy = Entropy::system();
        for _ in 0..1_000 {
            let fraction = entropy.fraction();
            assert!((0.0..1.0).contains(&fraction), "{fraction}");
        }
    }
}
