//! Hashers for keys that are hashes already, such as ids of leaves and events, and for names that are declared.

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

/// For tables of declared names, which no sender can add to: eight bytes at a time.
#[derive(Default, Clone, Copy)]
pub struct NameHasher(u64);

impl NameHasher {
    #[inline]
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for NameHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((word, after)) = rest.split_first_chunk::<8>() {
            self.add(u64::from_le_bytes(*word));
            rest = after;
        }
        self.add(rest.iter().fold(rest.len() as u64, |sum, byte| sum << 8 | u64::from(*byte)));
    }

    #[inline]
    fn write_u8(&mut self, _: u8) {
        // The end of a text: its length is in the rest.
    }

    #[inline]
    fn write_usize(&mut self, _: usize) {
        // The length of a key, likewise.
    }
}

pub type Named = BuildHasherDefault<NameHasher>;

pub type Plain = BuildHasherDefault<PlainHasher>;
