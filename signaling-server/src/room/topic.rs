//! The subscribers of a y-webrtc topic: fan-out, and directed delivery to those whose peer id is known.
//!
//! Nobody's claim can take a message from somebody else: a peer id maps to every subscriber that published under it,
//! and a subscriber with more ids than are remembered counts as being anyone.

use std::collections::HashMap;
use std::time::Instant;

use bytes::BytesMut;
use wire::id::PeerId;
use wire::signal::Publish;

use super::{ByConnection, ConnectionId, Delivery, Output, Route, Rules};

/// Longer peer ids are not remembered; y-webrtc's are UUIDs of 36 bytes.
const MAX_LEARNED_ID: usize = 128;

#[derive(Debug)]
pub(super) struct Topic {
    rules: Rules,
    members: ByConnection<Member>,
    /// Every subscriber that has published under the id, oldest first. Never holds an empty list.
    known: HashMap<PeerId, Vec<ConnectionId>>,
    /// How many members count as being anyone.
    elusive: usize,
    published: u64,
    rate: Rate,
}

/// What is known about one subscriber.
#[derive(Debug, Default)]
struct Member {
    ids: Vec<PeerId>,
    /// It published under an id that could not be remembered, so it is sent every directed message.
    elusive: bool,
}

impl Topic {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            members: ByConnection::default(),
            known: HashMap::new(),
            elusive: 0,
            published: 0,
            rate: Rate::default(),
        }
    }

    pub(super) fn subscribe(&mut self, who: ConnectionId) -> Option<Output> {
        if self.members.contains_key(&who) {
            return None;
        }
        if self.rules.capacity != 0 && self.members.len() >= self.rules.capacity {
            return Some(Output::Full { who });
        }
        self.members.insert(who, Member::default());
        None
    }

    pub(super) fn unsubscribe(&mut self, who: ConnectionId) {
        let Some(member) = self.members.remove(&who) else { return };
        self.elusive -= usize::from(member.elusive);
        for id in member.ids {
            let Some(holders) = self.known.get_mut(&id) else { continue };
            holders.retain(|holder| *holder != who);
            if holders.is_empty() {
                self.known.remove(&id);
            }
        }
    }

    pub(super) fn publish(
        &mut self,
        now: Instant,
        from: ConnectionId,
        message: &Publish<'_>,
    ) -> Option<Output> {
        self.published += 1;
        self.rate.count(now);
        if self.rules.delivery == Delivery::Directed
            && let Some(id) = message.sender()
        {
            self.learn(from, id);
        }
        let (to, route) = self.receivers(from, message);
        if to.is_empty() {
            return None;
        }
        let clients = self.members.len();
        let mut bytes = BytesMut::with_capacity(message.encoded_len(clients));
        message.encode(clients, &mut bytes);
        Some(Output::Deliver { message: bytes.freeze(), to, route })
    }

    pub(super) fn subscribers(&self) -> impl ExactSizeIterator<Item = ConnectionId> + '_ {
        self.members.keys().copied()
    }

    pub(super) fn published(&self) -> u64 {
        self.published
    }

    pub(super) fn per_minute(&self, now: Instant) -> f64 {
        self.rate.per_minute(now)
    }

    /// Remembers that a subscriber goes by `id`.
    fn learn(&mut self, who: ConnectionId, id: &PeerId) {
        let Some(member) = self.members.get_mut(&who) else { return };
        if member.ids.contains(id) {
            return;
        }
        if id.len() > MAX_LEARNED_ID || member.ids.len() >= self.rules.learned_ids {
            self.elusive += usize::from(!member.elusive);
            member.elusive = true;
            return;
        }
        member.ids.push(id.clone());
        self.known.entry(id.clone()).or_default().push(who);
    }

    fn receivers(&self, from: ConnectionId, message: &Publish<'_>) -> (Vec<ConnectionId>, Route) {
        if self.rules.delivery == Delivery::Directed
            && let Some(holders) = message.receiver().and_then(|id| self.known.get(id))
        {
            return (self.directed(from, holders), Route::Directed);
        }
        let everybody = self.members.keys().copied();
        let to = if self.rules.echo {
            everybody.collect()
        } else {
            everybody.filter(|member| *member != from).collect()
        };
        (to, Route::Broadcast)
    }

    /// The holders of the id, whoever might be holding it too, and the publisher for its echo.
    fn directed(&self, from: ConnectionId, holders: &[ConnectionId]) -> Vec<ConnectionId> {
        let mut to = holders.to_vec();
        if self.elusive > 0 {
            let others = self.members.iter().filter(|(who, member)| member.elusive && !holders.contains(who));
            to.extend(others.map(|(who, _)| *who));
        }
        to.retain(|who| *who != from);
        if self.rules.echo && self.members.contains_key(&from) {
            to.push(from);
        }
        to
    }
}

/// A count that forgets: what came in over about the last minute.
#[derive(Debug, Default)]
struct Rate {
    weight: f64,
    at: Option<Instant>,
}

impl Rate {
    fn count(&mut self, now: Instant) {
        self.weight = self.per_minute(now) + 1.0;
        self.at = Some(now);
    }

    fn per_minute(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        let minutes = now.saturating_duration_since(at).as_secs_f64() / 60.0;
        self.weight * (-minutes).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::{Input, Room};
    use wire::signal::{Limits, Signal};

    const RULES: Rules = Rules { delivery: Delivery::Directed, echo: true, capacity: 0, learned_ids: 4 };
    const ANA: ConnectionId = ConnectionId(1);
    const BEN: ConnectionId = ConnectionId(2);
    const EVE: ConnectionId = ConnectionId(3);

    struct World(Room);

    impl World {
        fn new(rules: Rules) -> Self {
            let mut world = Self(Room::new(rules));
            for who in [ANA, BEN, EVE] {
                assert_eq!(world.tell(Input::Subscribe { who }), None);
            }
            world
        }

        fn tell(&mut self, input: Input<'_>) -> Option<Output> {
            self.0.handle(Instant::now(), input);
            self.0.poll()
        }

        /// Publishes `data` and says who received it, sorted.
        fn publish(&mut self, from: ConnectionId, data: &str) -> Vec<ConnectionId> {
            let json = format!(r#"{{"type":"publish","topic":"t","data":{data}}}"#);
            self.publish_json(from, &json)
        }

        fn publish_json(&mut self, from: ConnectionId, json: &str) -> Vec<ConnectionId> {
            let Ok(Signal::Publish(message)) = Signal::parse(json.as_bytes(), Limits::default()) else {
                panic!("a publish: {json}");
            };
            match self.tell(Input::Publish { from, message: &message }) {
                Some(Output::Deliver { mut to, .. }) => {
                    to.sort();
                    to
                }
                None => Vec::new(),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_message_for_a_known_peer_reaches_it_and_its_sender_only() {
        let mut world = World::new(RULES);
        assert_eq!(world.publish(ANA, r#"{"type":"announce","from":"a"}"#), [ANA, BEN, EVE]);
        assert_eq!(world.publish(BEN, r#"{"type":"signal","from":"b","to":"a"}"#), [ANA, BEN]);
    }

    #[test]
    fn a_message_for_an_unknown_peer_reaches_everybody() {
        let mut world = World::new(RULES);
        assert_eq!(world.publish(BEN, r#"{"from":"b","to":"nobody"}"#), [ANA, BEN, EVE]);
    }

    #[test]
    fn an_encrypted_message_with_a_routing_hint_is_directed() {
        let mut world = World::new(RULES);
        world.publish_json(ANA, r#"{"type":"publish","topic":"t","from":"a","data":"c2VjcmV0"}"#);
        let json = r#"{"type":"publish","topic":"t","from":"b","to":"a","data":"c2VjcmV0"}"#;
        assert_eq!(world.publish_json(BEN, json), [ANA, BEN]);
        assert_eq!(world.publish(BEN, r#""c2VjcmV0""#), [ANA, BEN, EVE]);
    }

    #[test]
    fn claiming_somebody_elses_id_adds_a_receiver_and_removes_none() {
        let mut world = World::new(RULES);
        world.publish(ANA, r#"{"from":"a"}"#);
        world.publish(EVE, r#"{"from":"a"}"#);
        assert_eq!(world.publish(BEN, r#"{"from":"b","to":"a"}"#), [ANA, BEN, EVE]);
        world.tell(Input::Unsubscribe { who: EVE });
        assert_eq!(world.publish(BEN, r#"{"from":"b","to":"a"}"#), [ANA, BEN]);
    }

    #[test]
    fn a_subscriber_with_too_many_ids_misses_nothing() {
        let mut world = World::new(RULES);
        for id in 0..6 {
            world.publish(ANA, &format!(r#"{{"from":"a{id}"}}"#));
        }
        world.publish(EVE, r#"{"from":"a5"}"#);
        assert_eq!(world.publish(BEN, r#"{"from":"b","to":"a5"}"#), [ANA, BEN, EVE]);
        assert_eq!(world.publish(BEN, r#"{"from":"b","to":"a0"}"#), [ANA, BEN]);
    }

    #[test]
    fn ids_are_forgotten_with_the_subscription() {
        let mut world = World::new(RULES);
        world.publish(ANA, r#"{"from":"a"}"#);
        world.tell(Input::Unsubscribe { who: ANA });
        assert!(world.0.topic.known.is_empty());
        assert_eq!(world.publish(BEN, r#"{"from":"b","to":"a"}"#), [BEN, EVE]);
    }

    #[test]
    fn an_id_published_without_a_subscription_is_not_learned() {
        let mut world = World::new(RULES);
        world.tell(Input::Unsubscribe { who: EVE });
        world.publish(EVE, r#"{"from":"a"}"#);
        assert_eq!(world.publish(BEN, r#"{"to":"a"}"#), [ANA, BEN]);
        world.publish(ANA, r#"{"from":"a"}"#);
        assert_eq!(world.publish(EVE, r#"{"to":"a"}"#), [ANA]);
    }

    #[test]
    fn broadcast_delivery_ignores_what_a_message_names() {
        let mut world = World::new(Rules { delivery: Delivery::Broadcast, ..RULES });
        world.publish(ANA, r#"{"from":"a"}"#);
        assert_eq!(world.publish(BEN, r#"{"from":"b","to":"a"}"#), [ANA, BEN, EVE]);
    }

    #[test]
    fn without_echo_the_publisher_hears_nothing_of_its_own() {
        let mut world = World::new(Rules { echo: false, ..RULES });
        assert_eq!(world.publish(ANA, r#"{"from":"a"}"#), [BEN, EVE]);
        assert_eq!(world.publish(BEN, r#"{"from":"b","to":"a"}"#), [ANA]);
    }

    #[test]
    fn a_full_room_turns_the_next_subscriber_away() {
        let mut world = World::new(Rules { capacity: 3, ..RULES });
        let late = ConnectionId(9);
        assert_eq!(world.tell(Input::Subscribe { who: late }), Some(Output::Full { who: late }));
        assert_eq!(world.tell(Input::Subscribe { who: ANA }), None, "who is in stays in");
        world.tell(Input::Unsubscribe { who: BEN });
        assert_eq!(world.tell(Input::Subscribe { who: late }), None);
    }

    #[test]
    fn clients_counts_the_subscribers() {
        let mut world = World::new(RULES);
        let json = br#"{"type":"publish","topic":"t","clients":99}"#;
        let Ok(Signal::Publish(message)) = Signal::parse(json, Limits::default()) else { panic!() };
        let Some(Output::Deliver { message, .. }) =
            world.tell(Input::Publish { from: ANA, message: &message })
        else {
            panic!()
        };
        assert_eq!(&message[..], br#"{"type":"publish","topic":"t","clients":3}"#);
    }

    #[test]
    fn the_rate_forgets_what_is_long_past() {
        let start = Instant::now();
        let mut rate = Rate::default();
        for _ in 0..10 {
            rate.count(start);
        }
        let minute = std::time::Duration::from_secs(60);
        assert!((rate.per_minute(start) - 10.0).abs() < 0.01);
        assert!(rate.per_minute(start + minute) < 4.0);
        assert!(rate.per_minute(start + 20 * minute) < 0.01);
    }
}
