//! How the outcome of a write comes back.

use std::fmt;

use super::StoreError;

/// Where the outcome of a write is told, exactly once.
///
/// It is called on the thread that writes, or on the caller's own if the outcome is known at once: so it takes no lock
/// that the caller holds, and never waits. A reply that is dropped tells [`StoreError::Closed`].
pub struct Reply<T>(Option<Tell<T>>);

type Tell<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

impl<T> Reply<T> {
    /// A reply that calls `tell`.
    pub fn new(tell: impl FnOnce(Result<T, StoreError>) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    /// Tells the outcome.
    pub fn tell(mut self, outcome: Result<T, StoreError>) {
        if let Some(tell) = self.0.take() {
            tell(outcome);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(StoreError::Closed));
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Told = Arc<Mutex<Vec<Result<u8, StoreError>>>>;

    fn recorded() -> (Told, Reply<u8>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let reply = Reply::new({
            let told = Arc::clone(&told);
            move |outcome| told.lock().unwrap().push(outcome)
        });
        (told, reply)
    }

    #[test]
    fn an_outcome_is_told_once() {
        let (told, reply) = recorded();
        reply.tell(Ok(7));
        assert_eq!(*told.lock().unwrap(), [Ok(7)]);
    }

    #[test]
    fn a_reply_that_is_dropped_says_that_the_store_is_closed() {
        let (told, reply) = recorded();
        drop(reply);
        assert_eq!(*told.lock().unwrap(), [Err(StoreError::Closed)]);
    }
}
