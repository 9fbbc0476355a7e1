//! The key of a sealed room.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use thiserror::Error;
use wire::sealed::{IV, MAX_KEY_ID};

/// A key that the readers of a room share and its relay does not have. A room should have one of its own: under a key
/// that two rooms share, a relay could show the one's changes in the other.
#[derive(Clone)]
pub struct Key {
    id: Arc<str>,
    cipher: Arc<LessSafeKey>,
}

/// Why something is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadKey {
    /// Of another length than AES has.
    #[error("key is {len} bytes, not 16 or 32")]
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// Its name is too long.
    #[error("key id is {len} bytes, limit is {MAX_KEY_ID}")]
    IdTooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Key {
    /// A key of 16 or 32 bytes, drawn at random by whoever opened the room, under the name that its readers know it by.
    /// The name is at most 64 bytes and is seen by the relay.
    pub fn new(id: &str, bytes: &[u8]) -> Result<Self, BadKey> {
        let algorithm = match bytes.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            len => return Err(BadKey::Length { len }),
        };
        if id.len() > MAX_KEY_ID {
            return Err(BadKey::IdTooLong { len: id.len() });
        }
        let cipher = UnboundKey::new(algorithm, bytes).map_err(|_| BadKey::Length { len: bytes.len() })?;
        Ok(Self { id: id.into(), cipher: Arc::new(LessSafeKey::new(cipher)) })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The ciphertext and its tag; `None` if there is more than the cipher takes.
    pub(super) fn encrypt(&self, iv: [u8; IV], header: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(iv);
        self.cipher.seal_in_place_append_tag(nonce, Aad::from(header), &mut bytes).ok()?;
        Some(bytes)
    }

    /// What was encrypted, with this header, or `None`.
    pub(super) fn decrypt(&self, iv: [u8; IV], header: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(iv);
        let len = self.cipher.open_in_place(nonce, Aad::from(header), &mut bytes).ok()?.len();
        bytes.truncate(len);
        Some(bytes)
    }
}

/// 96 random bits: a key may be used for some billions of updates before two are likely to be the same.
pub(super) fn fresh_iv() -> [u8; IV] {
    let mut iv = [0; IV];
    rand::fill(&mut iv).expect("the system has randomness");
    iv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aes_keys_are_keys() {
        assert!(Key::new("a", &[1; 16]).is_ok() && Key::new("a", &[1; 32]).is_ok());
        assert_eq!(Key::new("a", &[1; 24]).unwrap_err(), BadKey::Length { len: 24 });
        assert_eq!(Key::new(&"a".repeat(65), &[1; 32]).unwrap_err(), BadKey::IdTooLong { len: 65 });
        assert!(!format!("{:?}", Key::new("a", &[0x5a; 32]).unwrap()).contains("90"));
    }
}
