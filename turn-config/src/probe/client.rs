//! A TURN client that waits: one request at a time, each with its answer (RFC 8489, RFC 8656).

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use turn_types::AddressFamily;
use turn_types::attribute::{
    ChannelNumber, Data, Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress,
    XorRelayedAddress,
};
use turn_types::channel::ChannelData;
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, DATA, REFRESH, SEND};
use turn_types::stun::attribute::{ErrorCode, Nonce, Realm, Username, XorMappedAddress};
use turn_types::stun::message::{
    BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageIntegrityCredentials,
    MessageWriteVec, Method, StunParseError, StunWriteError,
};
use turn_types::stun::prelude::{
    AttributeFromRaw, AttributeStaticType, AttributeWrite, MessageWrite as _, MessageWriteExt as _,
};

use super::link::{Link, ProbeError, Settings};
use crate::credential::Credential;
use crate::url::TurnUrl;

/// The only channel a client here binds; any from 0x4000 to 0x4fff would do.
const CHANNEL: u16 = 0x4000;
/// When a datagram is sent again for the first time; then after twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The most data one message may carry, in bytes: more would not fit into one packet.
pub const MAX_DATA: usize = 1400;
/// How much relayed data may wait while an answer is awaited; what is older is dropped, as a datagram may be.
const WAITING: usize = 32;

/// A user name and its password. `Debug` does not show the password.
#[derive(Clone)]
pub struct Login {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// The kind of address asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4, what a server gives to those who do not ask.
    #[default]
    V4,
    /// IPv6.
    V6,
}

/// What a server set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// Where peers find us.
    pub relayed: SocketAddr,
    /// How long it stands without a refresh.
    pub lifetime: Duration,
}

/// A short name for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel(u16);

/// A connection to one TURN server, with at most one allocation.
pub struct TurnClient {
    link: Link,
    login: Login,
    challenge: Option<Challenge>,
    channel_peer: Option<SocketAddr>,
    relayed: VecDeque<(SocketAddr, Vec<u8>)>,
    patience: Duration,
}

#[derive(Clone)]
struct Challenge {
    realm: String,
    nonce: String,
}

impl TurnClient {
    /// Connects; over UDP that sends nothing yet.
    pub fn connect(url: &TurnUrl, login: &Login, settings: &Settings) -> Result<Self, ProbeError> {
        Ok(Self {
            link: Link::connect(url, settings)?,
            login: login.clone(),
            challenge: None,
            channel_peer: None,
            relayed: VecDeque::new(),
            patience: settings.patience,
        })
    }

    /// The address connected to.
    pub fn server(&self) -> SocketAddr {
        self.link.server
    }

    /// How long one step may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// A STUN binding: the address we are seen at. Needs no login.
    pub fn binding(&mut self) -> Result<SocketAddr, ProbeError> {
        let answer = self.exchange(BINDING, "binding", &[])?;
        let message = parse(&answer, "binding")?;
        attribute::<XorMappedAddress>(&message, "binding").map(|seen| seen.addr(message.transaction_id()))
    }

    /// Asks for a relayed address.
    pub fn allocate(&mut self, family: Family) -> Result<Allocation, ProbeError> {
        let transport = RequestedTransport::new(RequestedTransport::UDP);
        let wanted = RequestedAddressFamily::new(AddressFamily::IPV6);
        let attributes: &[&dyn AttributeWrite] = match family {
            Family::V4 => &[&transport],
            Family::V6 => &[&transport, &wanted],
        };
        let answer = self.request(ALLOCATE, "allocation", attributes)?;
        let message = parse(&answer, "allocation")?;
        let relayed = attribute::<XorRelayedAddress>(&message, "allocation")?.addr(message.transaction_id());
        let lifetime = attribute::<Lifetime>(&message, "allocation")?.seconds();
        Ok(Allocation { relayed, lifetime: Duration::from_secs(lifetime.into()) })
    }

    /// Keeps the allocation for another `lifetime`, or gives it back for zero; returns what the server grants.
    pub fn refresh(&mut self, lifetime: Duration) -> Result<Duration, ProbeError> {
        let seconds = lifetime.as_secs().try_into().unwrap_or(u32::MAX);
        let answer = self.request(REFRESH, "refresh", &[&Lifetime::new(seconds)])?;
        let granted = attribute::<Lifetime>(&parse(&answer, "refresh")?, "refresh")?.seconds();
        Ok(Duration::from_secs(granted.into()))
    }

    /// Gives the allocation back.
    pub fn release(&mut self) -> Result<(), ProbeError> {
        self.refresh(Duration::ZERO).map(|_| ())
    }

    /// Lets data from a peer's address through.
    pub fn permit(&mut self, peer: IpAddr) -> Result<(), ProbeError> {
        self.about_peer(CREATE_PERMISSION, "permission", SocketAddr::new(peer, 0), &[])
    }

    /// Lets data from a peer's address through, and gives the peer a short name.
    pub fn bind_channel(&mut self, peer: SocketAddr) -> Result<Channel, ProbeError> {
        self.about_peer(CHANNEL_BIND, "channel", peer, &[&ChannelNumber::new(CHANNEL)])?;
        self.channel_peer = Some(peer);
        Ok(Channel(CHANNEL))
    }

    /// Sends up to [`MAX_DATA`] bytes to a peer. Nobody says whether they arrived.
    pub fn send(&mut self, peer: SocketAddr, data: &[u8]) -> Result<(), ProbeError> {
        limit(data)?;
        let mut message = Message::builder_indication(SEND, MessageWriteVec::new());
        let peer = XorPeerAddress::new(peer, message.transaction_id());
        let written = message.add_attribute(&peer).and_then(|()| message.add_attribute(&Data::new(data)));
        written.map_err(|error| unwritable("data", &error))?;
        self.link.send(&message.finish())
    }

    /// Sends up to [`MAX_DATA`] bytes to the peer of a channel. Nobody says whether they arrived.
    pub fn send_on(&mut self, channel: Channel, data: &[u8]) -> Result<(), ProbeError> {
        limit(data)?;
        let len = 4 + data.len();
        let mut frame = vec![0; len];
        ChannelData::new(channel.0, data).write_into_unchecked(&mut frame);
        if !self.link.is_datagrams() {
            frame.resize(len.next_multiple_of(4), 0);
        }
        self.link.send(&frame)
    }

    /// The next data a peer has sent, or `None` when none came before the deadline.
    pub fn receive(&mut self, deadline: Instant) -> Result<Option<(SocketAddr, Vec<u8>)>, ProbeError> {
        loop {
            if let Some(data) = self.relayed.pop_front() {
                return Ok(Some(data));
            }
            let Some(message) = self.link.receive(deadline)? else { return Ok(None) };
            self.keep_relayed(&message);
        }
    }

    fn about_peer(
        &mut self,
        method: Method,
        name: &'static str,
        peer: SocketAddr,
        attributes: &[&dyn AttributeWrite],
    ) -> Result<(), ProbeError> {
        self.authenticated(method, name, Some(peer), attributes).map(|_| ())
    }

    fn request(
        &mut self,
        method: Method,
        name: &'static str,
        attributes: &[&dyn AttributeWrite],
    ) -> Result<Vec<u8>, ProbeError> {
        self.authenticated(method, name, None, attributes)
    }

    /// Asks; when the server answers with a challenge (401, or 438 for one grown old), asks once more with its answer.
    fn authenticated(
        &mut self,
        method: Method,
        name: &'static str,
        peer: Option<SocketAddr>,
        attributes: &[&dyn AttributeWrite],
    ) -> Result<Vec<u8>, ProbeError> {
        let mut challenged = self.challenge.is_some();
        loop {
            let request = self.build(method, peer, attributes).map_err(|error| unwritable(name, &error))?;
            let answer = self.round_trip(&request, name)?;
            match self.judge(&answer, name) {
                Err(ProbeError::Refused { code: 401, .. }) if !challenged => {}
                Err(ProbeError::Refused { code: 438, .. }) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(answer),
            }
            let message = parse(&answer, name)?;
            let realm = attribute::<Realm>(&message, name)?.realm().to_owned();
            let nonce = attribute::<Nonce>(&message, name)?.nonce().to_owned();
            if self.challenge.as_ref().is_some_and(|old| old.nonce == nonce) {
                return self.judge(&answer, name).map(|()| answer);
            }
            self.challenge = Some(Challenge { realm, nonce });
            challenged = true;
        }
    }

    /// A request that needs no login.
    fn exchange(
        &mut self,
        method: Method,
        name: &'static str,
        attributes: &[&dyn AttributeWrite],
    ) -> Result<Vec<u8>, ProbeError> {
        let mut message = Message::builder_request(method, MessageWriteVec::new());
        for attribute in attributes {
            message.add_attribute(*attribute).map_err(|error| unwritable(name, &error))?;
        }
        let answer = self.round_trip(&message.finish(), name)?;
        refusal(&parse(&answer, name)?, name)?;
        Ok(answer)
    }

    fn build(
        &self,
        method: Method,
        peer: Option<SocketAddr>,
        attributes: &[&dyn AttributeWrite],
    ) -> Result<Vec<u8>, StunWriteError> {
        let mut message = Message::builder_request(method, MessageWriteVec::new());
        if let Some(peer) = peer {
            message.add_attribute(&XorPeerAddress::new(peer, message.transaction_id()))?;
        }
        for attribute in attributes {
            message.add_attribute(*attribute)?;
        }
        if let Some(challenge) = &self.challenge {
            message.add_attribute(&Username::new(&self.login.username)?)?;
            message.add_attribute(&Realm::new(&challenge.realm)?)?;
            message.add_attribute(&Nonce::new(&challenge.nonce)?)?;
            message.add_message_integrity(&self.key(challenge), IntegrityAlgorithm::Sha1)?;
        }
        message.add_fingerprint()?;
        Ok(message.finish())
    }

    fn key(&self, challenge: &Challenge) -> MessageIntegrityCredentials {
        let Login { username, password } = self.login.clone();
        LongTermKeyCredentials::new(username, password, challenge.realm.clone()).into()
    }

    /// Whether an answer says yes, and was written by somebody who knows the password too.
    fn judge(&self, answer: &[u8], name: &'static str) -> Result<(), ProbeError> {
        let message = parse(answer, name)?;
        refusal(&message, name)?;
        let Some(challenge) = &self.challenge else { return Ok(()) };
        message.validate_integrity(&self.key(challenge)).map(|_| ()).map_err(|error| nonsense(name, &error))
    }

    /// Sends a request and waits for the message with its transaction id.
    fn round_trip(&mut self, request: &[u8], name: &'static str) -> Result<Vec<u8>, ProbeError> {
        let transaction = parse(request, name)?.transaction_id();
        let deadline = Instant::now() + self.patience;
        let mut wait = if self.link.is_datagrams() { FIRST_RETRY } else { self.patience };
        while Instant::now() < deadline {
            self.link.send(request)?;
            let retry = deadline.min(Instant::now() + wait);
            while let Some(received) = self.link.receive(retry)? {
                let answers = Message::from_bytes(&received)
                    .is_ok_and(|message| message.is_response() && message.transaction_id() == transaction);
                if answers {
                    return Ok(received);
                }
                self.keep_relayed(&received);
            }
            wait *= 2;
        }
        Err(ProbeError::Silent { waiting_for: name })
    }

    /// Keeps what a peer has sent; anything else is dropped.
    fn keep_relayed(&mut self, received: &[u8]) {
        let Some(data) = relayed_data(received, self.channel_peer) else { return };
        if self.relayed.len() == WAITING {
            self.relayed.pop_front();
        }
        self.relayed.push_back(data);
    }
}

impl From<Credential> for Login {
    fn from(credential: Credential) -> Self {
        Self { username: credential.username, password: credential.password }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a peer has sent, and which: in a Data indication, or on the channel of `channel_peer`.
fn relayed_data(received: &[u8], channel_peer: Option<SocketAddr>) -> Option<(SocketAddr, Vec<u8>)> {
    if let Ok(frame) = ChannelData::parse(received) {
        return (frame.id() == CHANNEL).then_some((channel_peer?, frame.data().to_vec()));
    }
    let message = Message::from_bytes(received).ok().filter(|message| message.has_method(DATA))?;
    let peer = message.attribute::<XorPeerAddress>().ok()?.addr(message.transaction_id());
    Some((peer, message.attribute::<Data<'_>>().ok()?.data().to_vec()))
}

fn limit(data: &[u8]) -> Result<(), ProbeError> {
    if data.len() > MAX_DATA { Err(ProbeError::TooMuchData { len: data.len() }) } else { Ok(()) }
}

fn parse<'a>(bytes: &'a [u8], name: &'static str) -> Result<Message<'a>, ProbeError> {
    Message::from_bytes(bytes).map_err(|error| nonsense(name, &error))
}

fn refusal(message: &Message<'_>, name: &'static str) -> Result<(), ProbeError> {
    if !message.has_class(MessageClass::Error) {
        return Ok(());
    }
    let error = attribute::<ErrorCode>(message, name)?;
    // A stranger's words: some servers pad them with zeros, and they end up on a terminal.
    let reason = error.reason().chars().filter(|character| !character.is_control()).collect();
    Err(ProbeError::Refused { request: name, code: error.code(), reason })
}

fn attribute<'a, A>(message: &'a Message<'a>, name: &'static str) -> Result<A, ProbeError>
where
    A: AttributeFromRaw<'a> + AttributeStaticType,
{
    message.attribute::<A>().map_err(|error: StunParseError| nonsense(name, &error))
}

fn nonsense(request: &'static str, reason: &dyn fmt::Display) -> ProbeError {
    ProbeError::Nonsense { request, reason: reason.to_string() }
}

fn unwritable(request: &'static str, error: &StunWriteError) -> ProbeError {
    ProbeError::Nonsense { request, reason: format!("it cannot be asked: {error}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message of any kind with attributes that are cut, repeated or nonsense, as only a hostile server sends it.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop_oneof![Just(0x0017_u16), Just(0x0113), Just(0x0103), any::<u16>()];
        let name = prop_oneof![
            Just(0x0012_u16),
            Just(0x0013),
            Just(0x0009),
            Just(0x0016),
            Just(0x000d),
            any::<u16>()
        ];
        let attribute = (name, prop_oneof![Just(4_u16), Just(8), Just(20), any::<u16>()], any::<[u8; 20]>());
        let attributes = prop::collection::vec(attribute, 0..4);
        (kind, attributes, any::<[u8; 12]>(), any::<Option<u16>>()).prop_map(|(kind, attributes, id, len)| {
            let body: Vec<u8> = attributes
                .iter()
                .flat_map(|(name, len, value)| [&name.to_be_bytes()[..], &len.to_be_bytes(), value].concat())
                .collect();
            let len = len.unwrap_or(body.len() as u16);
            [&kind.to_be_bytes()[..], &len.to_be_bytes(), &0x2112_a442_u32.to_be_bytes(), &id, &body].concat()
        })
    }

    proptest! {
        #[test]
        fn no_message_of_a_server_makes_us_panic(message in hostile(), noise in any::<Vec<u8>>()) {
            let peer = "192.0.2.1:9".parse().ok();
            for received in [message.as_slice(), &noise] {
                let _ = relayed_data(received, peer);
                if let Ok(message) = parse(received, "test") {
                    let _ = refusal(&message, "test");
                    let _ = attribute::<XorRelayedAddress>(&message, "test").map(|a| a.addr(message.transaction_id()));
                    let _ = attribute::<XorMappedAddress>(&message, "test").map(|a| a.addr(message.transaction_id()));
                    let _ = (attribute::<Realm>(&message, "test"), attribute::<Nonce>(&message, "test"));
                    let _ = attribute::<Lifetime>(&message, "test").map(|lifetime| lifetime.seconds());
                }
            }
        }
    }
}
