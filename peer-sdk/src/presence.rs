//! Who is there, and what they show: typed, over the bytes that an `EphemeralStore` has.
//!
//! Each session, that is each run of a peer, shows one value under the name of its user. What others show is a
//! stranger's: who shows something that is not a `P` is there, without a value.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use loro::LoroValue;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::adapter::Path;
use crate::driver::Shared;
use crate::engine::MAX_PRESENCE;
use crate::error::PresenceError;

/// Somebody who is there, not yet understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Other {
    pub(crate) session: String,
    pub(crate) value: LoroValue,
    pub(crate) since: Duration,
    pub(crate) path: Path,
    pub(crate) round_trip: Option<Duration>,
}

pub(crate) type Others = Vec<Other>;

/// A user who is there, but for ourselves.
#[derive(Clone, Debug, PartialEq)]
pub struct User<P> {
    /// Its name: what it was built with, or its session's if nothing was said.
    pub name: String,
    /// The runs of peers that it has open, one at least, those that we have seen longest first.
    pub sessions: Vec<Session<P>>,
}

/// One run of a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Session<P> {
    /// Drawn at random at each start.
    pub id: String,
    /// What it shows; `None` if that is no `P`.
    pub shows: Option<P>,
    /// How long we have seen it.
    pub since: Duration,
    /// How we reach it.
    pub path: Path,
    /// How long a message takes there and back, where we reach it straight and have measured.
    pub round_trip: Option<Duration>,
}

/// Shows, and sees. A clone does the same.
pub struct Presence<P> {
    user: Arc<str>,
    shows: watch::Sender<Option<LoroValue>>,
    shared: Arc<Shared>,
    kind: PhantomData<fn() -> P>,
}

impl<P> Clone for Presence<P> {
    fn clone(&self) -> Self {
        let (user, shows, shared) = (Arc::clone(&self.user), self.shows.clone(), Arc::clone(&self.shared));
        Self { user, shows, shared, kind: PhantomData }
    }
}

impl<P> std::fmt::Debug for Presence<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}

impl<P: Serialize + DeserializeOwned> Presence<P> {
    pub(crate) fn new(user: Arc<str>, shows: watch::Sender<Option<LoroValue>>, shared: Arc<Shared>) -> Self {
        Self { user, shows, shared, kind: PhantomData }
    }

    /// Shows this to everybody in the room, at once or at most 50 ms after the last. Of several within that time the
    /// last is shown. At most [`MAX_PRESENCE`] bytes.
    #[expect(clippy::needless_pass_by_value, reason = "what is shown is given away")]
    pub fn set(&self, value: P) -> Result<(), PresenceError> {
        let value = encode(&self.user, &value)?;
        self.shows.send(Some(value)).map_err(|_| PresenceError::Closed)
    }

    /// Shows nothing more: to others we are gone, and still see them.
    pub fn clear(&self) {
        self.shows.send_replace(None);
    }

    /// Who is there, but for ourselves, sorted by name.
    #[must_use]
    pub fn online(&self) -> Vec<User<P>> {
        grouped(&self.shared.others.borrow())
    }
}

fn grouped<P: DeserializeOwned>(others: &[Other]) -> Vec<User<P>> {
    let mut users: BTreeMap<String, Vec<Session<P>>> = BTreeMap::new();
    for other in others {
        let (name, session) = decode(other);
        users.entry(name).or_default().push(session);
    }
    let mut users: Vec<_> = users.into_iter().map(|(name, sessions)| User { name, sessions }).collect();
    users.iter_mut().for_each(|user| user.sessions.sort_by_key(|session| std::cmp::Reverse(session.since)));
    users
}

/// What goes out: a map of the user's name and what it shows.
pub(crate) fn encode<P: Serialize>(user: &str, value: &P) -> Result<LoroValue, PresenceError> {
    let json = serde_json::json!({"user": user, "state": serde_json::to_value(value)?});
    let len = json.to_string().len();
    // What stands around it, and numbers that are longer in bytes than in text, have room in the difference.
    let limit = MAX_PRESENCE / 2;
    if len > limit {
        return Err(PresenceError::TooLarge { len, limit });
    }
    Ok(serde_json::from_value(json)?)
}

fn decode<P: DeserializeOwned>(other: &Other) -> (String, Session<P>) {
    let json = serde_json::to_value(&other.value).unwrap_or_default();
    let name = json.get("user").and_then(|user| user.as_str()).unwrap_or(&other.session).to_owned();
    let shows = json.get("state").and_then(|state| P::deserialize(state).ok());
    let Other { session, since, path, round_trip, .. } = other.clone();
    (name, Session { id: session, shows, since, path, round_trip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Reviewer {
        name: String,
        line: Option<u32>,
    }

    fn other(value: LoroValue) -> Other {
        Other { session: "s".into(), value, since: Duration::ZERO, path: Path::Hub, round_trip: None }
    }

    #[test]
    fn what_is_shown_is_seen() {
        let ana = Reviewer { name: "Ana".into(), line: Some(3) };
        let (name, session) = decode::<Reviewer>(&other(encode("ana", &ana).unwrap()));
        assert_eq!((name.as_str(), session.shows), ("ana", Some(ana)));
    }

    #[test]
    fn a_stranger_who_shows_something_else_is_there_all_the_same() {
        for value in [LoroValue::Null, LoroValue::I64(3), encode("eve", &42).unwrap()] {
            let (_, session) = decode::<Reviewer>(&other(value));
            assert_eq!((session.id.as_str(), session.shows), ("s", None));
        }
    }

    #[test]
    fn sessions_of_one_user_stand_together_and_the_oldest_first() {
        let session = |user: &str, id: &str, seconds: u64| {
            let since = Duration::from_secs(seconds);
            Other { session: id.into(), since, ..other(encode(user, &0).unwrap()) }
        };
        let others = [session("ben", "1", 9), session("ana", "2", 3), session("ben", "3", 20)];
        let users = grouped::<u32>(&others);
        let shown: Vec<_> = users
            .iter()
            .map(|user| {
                (user.name.as_str(), user.sessions.iter().map(|session| session.id.as_str()).collect())
            })
            .collect();
        assert_eq!(shown, [("ana", vec!["2"]), ("ben", vec!["3", "1"])]);
    }

    #[test]
    fn what_is_too_large_is_refused_with_the_limit() {
        let long = Reviewer { name: "x".repeat(MAX_PRESENCE), line: None };
        let error = encode("ana", &long).unwrap_err();
        assert!(matches!(error, PresenceError::TooLarge { limit, .. } if limit == MAX_PRESENCE / 2));
    }
}
