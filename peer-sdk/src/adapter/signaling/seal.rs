//! The encryption of y-webrtc: AES-256-GCM under a key made of password and room.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::any::{self, Reader};

const ALGORITHM: &str = "AES-GCM";
const ITERATIONS: NonZeroU32 = NonZeroU32::new(100_000).expect("it is not zero");

/// What a password and a room's name make. Whoever has both has it.
#[derive(Clone)]
pub struct Key(Arc<LessSafeKey>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Derives the key, on a thread for such work: a password is stretched for some tens of milliseconds. The room is the
    /// topic's name.
    pub async fn derive(password: &str, room: &str) -> Self {
        let (password, room) = (password.to_owned(), room.to_owned());
        let derived = tokio::task::spawn_blocking(move || Self::derive_now(&password, &room)).await;
        derived.expect("deriving a key does not panic")
    }

    /// Derives the key on this thread.
    #[must_use]
    pub fn derive_now(password: &str, room: &str) -> Self {
        let mut key = [0; 32];
        let (salt, secret) = (room.as_bytes(), password.as_bytes());
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, secret, &mut key);
        let key = UnboundKey::new(&AES_256_GCM, &key).expect("AES-256 has keys of 32 bytes");
        Self(Arc::new(LessSafeKey::new(key)))
    }

    /// Encrypts a value, as the text that stands in `data`.
    pub(super) fn seal(&self, value: &Value) -> String {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).expect("the system has randomness");
        let mut cipher = Vec::new();
        any::write(&mut cipher, value);
        let sealed = self.0.seal_in_place_append_tag(Nonce::from(&nonce), Aad::empty(), &mut cipher);
        sealed.expect("a message is far below the cipher's limit");
        let mut out = Vec::new();
        any::write_bytes(&mut out, ALGORITHM.as_bytes());
        any::write_bytes(&mut out, &nonce);
        any::write_bytes(&mut out, &cipher);
        STANDARD.encode(out)
    }

    /// Decrypts what [`Key::seal`] has made. `None` when it was made with another key, or is something else.
    pub(super) fn open(&self, text: &str) -> Option<Value> {
        let bytes = STANDARD.decode(text).ok()?;
        let mut reader = Reader(&bytes);
        if reader.text()? != ALGORITHM {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(reader.bytes()?).ok()?;
        let mut cipher = reader.bytes()?.to_vec();
        let plain = self.0.open_in_place(nonce, Aad::empty(), &mut cipher).ok()?;
        Reader(plain).value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_same_password_and_room_open_it() {
        let key = Key::derive_now("password", "room");
        let value = json!({"type": "announce", "from": "a"});
        let sealed = key.seal(&value);
        assert_ne!(sealed, key.seal(&value), "a nonce is never used again");
        assert_eq!(key.open(&sealed), Some(value));
        assert_eq!(Key::derive_now("password", "room").open(&sealed), key.open(&sealed));
        assert_eq!(Key::derive_now("passwort", "room").open(&sealed), None);
        assert_eq!(Key::derive_now("password", "rooms").open(&sealed), None);
    }

    #[test]
    fn whatever_is_no_message_does_not_open() {
        let key = Key::derive_now("password", "room");
        let sealed = STANDARD.decode(key.seal(&json!({"a": 1}))).unwrap();
        for (at, _) in sealed.iter().enumerate() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 0x55;
            assert_eq!(key.open(&STANDARD.encode(damaged)), None, "byte {at}");
            assert_eq!(key.open(&STANDARD.encode(&sealed[..at])), None, "cut at {at}");
        }
        assert_eq!(key.open("not base64!"), None);
        assert_eq!(key.open(""), None);
    }

    /// Made by y-webrtc 10.3.0's `encryptJson` in Node.
    #[test]
    fn what_y_webrtc_has_encrypted_opens() {
        let sealed = include_str!("../../../tests/golden/y_webrtc_sealed.txt").trim();
        let opened = Key::derive_now("a password", "a room").open(sealed).unwrap();
        assert_eq!(
            opened,
            json!({
                "to": "b", "from": "a", "type": "signal", "token": 1_763_888_400_123.456_8,
                "signal": {"type": "candidate", "candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMLineIndex": 0, "sdpMid": "0"}},
            })
        );
    }
}
