//! The hashes that Python's side makes too: ids of leaves and events, pseudonyms, the order of caps.

use blake2b_simd::Params;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const EVENT_ID_BYTES: usize = 8;
const PERSON: &[u8; 16] = b"penstock-caps-1\0";

/// HMAC-SHA-256 under one key, of which the key's own blocks are hashed once.
pub struct Keyed(Hmac<Sha256>);

impl Keyed {
    pub fn new(key: &[u8]) -> Keyed {
        Keyed(Hmac::new_from_slice(key).expect("a key may be of any length"))
    }

    /// The first 16 bytes of the digest.
    pub fn short(&self, message: &[u8]) -> [u8; 16] {
        let mut hash = self.0.clone();
        hash.update(message);
        *hash.finalize().into_bytes().first_chunk().expect("32 bytes begin with 16")
    }
}

/// The 64-bit place of a key's text in the order of caps.
pub fn rank(text: &[u8]) -> u64 {
    number(Params::new().hash_length(EVENT_ID_BYTES).personal(PERSON), text)
}

/// The 64-bit identity of an event: its message id under its leaf's id.
pub fn event_id(leaf: &[u8; 16], message_id: &[u8]) -> u64 {
    number(Params::new().hash_length(EVENT_ID_BYTES).key(leaf), message_id)
}

/// The first 16 bytes of a BLAKE2b of 16 under a key of at most 64 bytes.
pub fn keyed_16(key: &[u8], text: &[u8]) -> [u8; 16] {
    let hash = Params::new().hash_length(16).key(key).hash(text);
    *hash.as_bytes().first_chunk().expect("asked for 16")
}

fn number(params: &Params, text: &[u8]) -> u64 {
    u64::from_be_bytes(*params.hash(text).as_bytes().first_chunk().expect("asked for eight"))
}
