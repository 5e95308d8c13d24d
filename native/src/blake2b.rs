//! BLAKE2b (RFC 7693), as far as the order of caps and the ids of events need it.

const IV: [u64; 8] = [
    0x6a09e667f3bcc908,
    0xbb67ae8584caa73b,
    0x3c6ef372fe94f82b,
    0xa54ff53a5f1d36f1,
    0x510e527fade682d1,
    0x9b05688c2b3e6c1f,
    0x1f83d9abfb41bd6b,
    0x5be0cd19137e2179,
];

const SIGMA: [[usize; 16]; 10] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];

const PERSON: &[u8; 16] = b"penstock-caps-1\0";

const DIGEST_BYTES: u64 = 8;
const BLOCK: usize = 128;

/// The 64-bit place of a key's text in the order of caps.
pub fn rank(text: &[u8]) -> u64 {
    let mut state = IV;
    state[0] ^= 0x0101_0000 ^ DIGEST_BYTES;
    state[6] ^= u64::from_le_bytes(PERSON[..8].try_into().expect("eight bytes"));
    state[7] ^= u64::from_le_bytes(PERSON[8..].try_into().expect("eight bytes"));
    finish(&mut state, 0, text);
    state[0].swap_bytes()
}

/// The 64-bit identity of an event: its message id under its leaf's id.
pub fn event_id(leaf: &[u8; 16], message_id: &[u8]) -> u64 {
    keyed(leaf, DIGEST_BYTES, message_id)[0].swap_bytes()
}

/// The first 16 bytes of a hash of 16 under a key of at most 64 bytes.
pub fn keyed_16(key: &[u8], text: &[u8]) -> [u8; 16] {
    let state = keyed(key, 16, text);
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&state[0].to_le_bytes());
    digest[8..].copy_from_slice(&state[1].to_le_bytes());
    digest
}

fn keyed(key: &[u8], digest_bytes: u64, text: &[u8]) -> [u64; 8] {
    let mut state = IV;
    state[0] ^= 0x0101_0000 ^ (key.len() as u64) << 8 ^ digest_bytes;
    if key.is_empty() {
        finish(&mut state, 0, text);
        return state;
    }
    let mut block = [0; BLOCK];
    block[..key.len()].copy_from_slice(key);
    compress(&mut state, &block, BLOCK as u128, text.is_empty());
    if !text.is_empty() {
        finish(&mut state, BLOCK as u128, text);
    }
    state
}

fn finish(state: &mut [u64; 8], mut counted: u128, text: &[u8]) {
    let mut rest = text;
    while rest.len() > BLOCK {
        counted += BLOCK as u128;
        let (block, after) = rest.split_at(BLOCK);
        compress(state, block.try_into().expect("a block"), counted, false);
        rest = after;
    }
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    compress(state, &block, counted + rest.len() as u128, true);
}

fn compress(state: &mut [u64; 8], block: &[u8; 128], counted: u128, last: bool) {
    let mut words = [0u64; 16];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    let mut v = [0u64; 16];
    v[..8].copy_from_slice(state);
    v[8..].copy_from_slice(&IV);
    v[12] ^= counted as u64;
    v[13] ^= (counted >> 64) as u64;
    if last {
        v[14] = !v[14];
    }
    round::<0>(&mut v, &words);
    round::<1>(&mut v, &words);
    round::<2>(&mut v, &words);
    round::<3>(&mut v, &words);
    round::<4>(&mut v, &words);
    round::<5>(&mut v, &words);
    round::<6>(&mut v, &words);
    round::<7>(&mut v, &words);
    round::<8>(&mut v, &words);
    round::<9>(&mut v, &words);
    round::<0>(&mut v, &words);
    round::<1>(&mut v, &words);
    for (place, word) in state.iter_mut().enumerate() {
        *word ^= v[place] ^ v[place + 8];
    }
}

/// One round, by a row of the schedule that is known when this is compiled.
#[inline(always)]
fn round<const ROW: usize>(v: &mut [u64; 16], words: &[u64; 16]) {
    let s = const { &SIGMA[ROW] };
    mix(v, [0, 4, 8, 12], words[s[0]], words[s[1]]);
    mix(v, [1, 5, 9, 13], words[s[2]], words[s[3]]);
    mix(v, [2, 6, 10, 14], words[s[4]], words[s[5]]);
    mix(v, [3, 7, 11, 15], words[s[6]], words[s[7]]);
    mix(v, [0, 5, 10, 15], words[s[8]], words[s[9]]);
    mix(v, [1, 6, 11, 12], words[s[10]], words[s[11]]);
    mix(v, [2, 7, 8, 13], words[s[12]], words[s[13]]);
    mix(v, [3, 4, 9, 14], words[s[14]], words[s[15]]);
}

#[inline(always)]
fn mix(v: &mut [u64; 16], [a, b, c, d]: [usize; 4], x: u64, y: u64) {
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(x);
    v[d] = (v[d] ^ v[a]).rotate_right(32);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(24);
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(y);
    v[d] = (v[d] ^ v[a]).rotate_right(16);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(63);
}
