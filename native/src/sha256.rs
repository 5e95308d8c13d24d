//! HMAC-SHA-256 (FIPS 180-4, RFC 2104), for ids of leaves and pseudonyms.

use std::collections::HashMap;
use std::sync::Mutex;

const FIRST: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

const ROUNDS: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

const BLOCK: usize = 64;

/// So many messages are remembered; then all are forgotten. The same people send again and again.
const REMEMBERED_MAX: usize = 100_000;
/// Longer ones are not.
const REMEMBERED_BYTES_MAX: usize = 128;

/// The hash under one key, of which the key's own blocks are hashed once.
pub struct Hmac {
    inner: [u32; 8],
    outer: [u32; 8],
    remembered: Mutex<HashMap<Box<[u8]>, [u8; 16]>>,
}

impl Hmac {
    pub fn new(key: &[u8]) -> Hmac {
        let mut block = [0; BLOCK];
        if key.len() > BLOCK {
            block[..32].copy_from_slice(&finished(FIRST, 0, key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let opened = |pad: u8| {
            let mut state = FIRST;
            compress(&mut state, &block.map(|byte| byte ^ pad));
            state
        };
        Hmac { inner: opened(0x36), outer: opened(0x5c), remembered: Mutex::default() }
    }

    fn digest(&self, message: &[u8]) -> [u8; 32] {
        finished(self.outer, BLOCK, &finished(self.inner, BLOCK, message))
    }

    /// The first 16 bytes of the digest.
    pub fn short(&self, message: &[u8]) -> [u8; 16] {
        let short = || *self.digest(message).first_chunk().expect("32 bytes begin with 16");
        if message.len() > REMEMBERED_BYTES_MAX {
            return short();
        }
        let mut remembered = self.remembered.lock().expect("nothing panics that holds it");
        if let Some(found) = remembered.get(message) {
            return *found;
        }
        if remembered.len() == REMEMBERED_MAX {
            remembered.clear();
        }
        let made = short();
        remembered.insert(message.into(), made);
        made
    }
}

/// Hash the rest of a message of which some bytes are in the state.
fn finished(mut state: [u32; 8], before: usize, rest: &[u8]) -> [u8; 32] {
    let bits = ((before + rest.len()) as u64).wrapping_mul(8);
    let mut tail = rest;
    while let Some((block, after)) = tail.split_first_chunk::<BLOCK>() {
        compress(&mut state, block);
        tail = after;
    }
    let mut last = [0; BLOCK];
    last[..tail.len()].copy_from_slice(tail);
    last[tail.len()] = 0x80;
    if tail.len() >= BLOCK - 8 {
        compress(&mut state, &last);
        last = [0; BLOCK];
    }
    last[BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
    compress(&mut state, &last);
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn compress(state: &mut [u32; 8], block: &[u8; BLOCK]) {
    let mut words = [0; 64];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    }
    for at in 16..64 {
        let (late, early): (u32, u32) = (words[at - 2], words[at - 15]);
        let mixed = late.rotate_right(17) ^ late.rotate_right(19) ^ late >> 10;
        let other = early.rotate_right(7) ^ early.rotate_right(18) ^ early >> 3;
        words[at] = mixed.wrapping_add(words[at - 7]).wrapping_add(other).wrapping_add(words[at - 16]);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (round, word) in ROUNDS.iter().zip(words) {
        let mixed = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let first =
            h.wrapping_add(mixed).wrapping_add((e & f) ^ (!e & g)).wrapping_add(*round).wrapping_add(word);
        let other = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let second = other.wrapping_add((a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(second));
    }
    for (held, word) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *held = held.wrapping_add(word);
    }
}
