//! Hashers for keys that are hashes already, such as ids of leaves and events.

use std::hash::{BuildHasherDefault, Hasher};

/// Takes the last eight bytes that it is given, and spreads them.
#[derive(Default, Clone, Copy)]
pub struct PlainHasher(u64);

impl Hasher for PlainHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk::<8>() {
            self.write_u64(u64::from_ne_bytes(*last));
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }

    #[inline]
    fn write_usize(&mut self, _: usize) {
        // The length of a key, which is the same of all.
    }
}

pub type Plain = BuildHasherDefault<PlainHasher>;
