//! Storage that lasts as long as the process, for tests and for peers that keep nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Storage, StorageError};

/// Updates by room. A clone shares them, so that a peer that is started again finds what it had.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    rooms: Arc<Mutex<HashMap<String, Vec<Bytes>>>>,
}

impl Memory {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, room: &str, act: impl FnOnce(&mut Vec<Bytes>) -> T) -> T {
        // Nothing that is done under this lock leaves it half done.
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        act(rooms.entry(room.to_owned()).or_default())
    }
}

impl Storage for Memory {
    fn load(&mut self, room: &str) -> Result<Vec<Bytes>, StorageError> {
        Ok(self.with(room, |updates| updates.clone()))
    }

    fn append(&mut self, room: &str, update: &[u8]) -> Result<(), StorageError> {
        self.with(room, |updates| updates.push(Bytes::copy_from_slice(update)));
        Ok(())
    }

    fn compact(&mut self, room: &str, snapshot: &[u8]) -> Result<(), StorageError> {
        self.with(room, |updates| *updates = vec![Bytes::copy_from_slice(snapshot)]);
        Ok(())
    }
}
