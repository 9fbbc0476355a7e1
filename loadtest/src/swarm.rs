//! Many connections on one thread: a readiness loop that does little for each delivery.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker};

use crate::{
    client::{ClientError, Link, Upgraded},
    frame::{Frame, MAX_HEADER, MAX_PAYLOAD, Opcode},
};

mod alarm;

use alarm::Alarm;

/// What the members of a swarm speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// y-webrtc: text messages, and [`PING`] for a keepalive.
    Signaling,
    /// The Loro Protocol: binary messages, and the text `ping` for a keepalive.
    Relay,
    /// Both on one socket, as a page of the product does; the keepalive is that of y-webrtc.
    Both,
}

impl Dialect {
    /// What its messages are sent as.
    #[must_use]
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Signaling => Opcode::Text,
            Self::Relay | Self::Both => Opcode::Binary,
        }
    }

    fn tells(self, opcode: Opcode) -> bool {
        opcode == self.opcode() || (self == Self::Both && opcode == Opcode::Text)
    }

    const fn ping(self) -> &'static [u8] {
        match self {
            Self::Signaling | Self::Both => PING,
            Self::Relay => b"ping",
        }
    }
}

/// What a y-webrtc client sends to see whether its server lives.
pub const PING: &[u8] = br#"{"type":"ping"}"#;
/// y-webrtc sends a ping 15 s after the last pong.
const PING_EVERY: Duration = Duration::from_secs(15);
/// y-webrtc closes a connection on which nothing came for that long.
const SILENCE: Duration = Duration::from_secs(30);
const CHORES_EVERY: Duration = Duration::from_secs(1);
const READ_AT_ONCE: usize = 256 * 1024;
const ALARM: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// Errors of connections by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(pub BTreeMap<String, u64>);

impl Errors {
    /// Counts one.
    pub fn add(&mut self, error: &ClientError) {
        *self.0.entry(error.kind()).or_default() += 1;
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind.clone()).or_default() += count;
        }
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// A message that reached a member.
#[derive(Debug)]
pub struct Heard<'a> {
    /// The member, as [`Swarm::add`] named it.
    pub who: usize,
    /// When its bytes were read.
    pub at: Instant,
    /// What it was sent as.
    pub opcode: Opcode,
    /// The message.
    pub message: &'a [u8],
    /// To answer on.
    pub link: &'a mut Link,
}

struct Member {
    /// `None` once the connection is lost.
    link: Option<Link>,
    /// The beginning of a frame whose end has not come.
    carry: Vec<u8>,
    heard_at: Instant,
    pinged_at: Instant,
}

/// Connections that are read and written together. Pings of the server and the keepalive are taken care of.
pub struct Swarm {
    dialect: Dialect,
    poll: Poll,
    events: Events,
    alarm: Alarm,
    members: Vec<Member>,
    scratch: Vec<u8>,
    open: usize,
    errors: Errors,
    lost: Vec<usize>,
    chores_at: Instant,
}

impl Swarm {
    /// An empty swarm.
    ///
    /// # Errors
    /// When the system gives no epoll or timer descriptor.
    pub fn new(dialect: Dialect) -> io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Self {
            dialect,
            alarm: Alarm::new(&poll)?,
            poll,
            events: Events::with_capacity(1024),
            members: Vec::new(),
            scratch: vec![0; MAX_PAYLOAD + MAX_HEADER + READ_AT_ONCE],
            open: 0,
            errors: Errors::default(),
            lost: Vec::new(),
            chores_at: Instant::now() + CHORES_EVERY,
        })
    }

    /// Takes a connection in and names it: names count up from 0.
    ///
    /// # Errors
    /// When the socket cannot be registered.
    pub fn add(&mut self, connection: Upgraded) -> io::Result<usize> {
        let who = self.members.len();
        self.seat(who, connection)?;
        Ok(who)
    }

    /// Takes a connection in under a name whose last connection is over. What the server sent right behind its
    /// answer is told when more comes.
    ///
    /// # Errors
    /// When the socket cannot be registered.
    pub fn seat(&mut self, who: usize, connection: Upgraded) -> io::Result<()> {
        let mut stream = connection.stream.into_nonblocking()?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream.socket(), Token(who), interest)?;
        let now = Instant::now();
        let link = Some(Link::new(stream, rand::random()));
        let member = Member { link, carry: connection.leftover, heard_at: now, pinged_at: now };
        while self.members.len() <= who {
            self.members.push(Member { link: None, carry: Vec::new(), heard_at: now, pinged_at: now });
        }
        self.open += usize::from(self.members[who].link.is_none());
        self.members[who] = member;
        Ok(())
    }

    /// Takes a connection out that stays open, is never read again, and of which the server is not told.
    pub fn take_out(&mut self, who: usize) -> Option<Link> {
        let mut link = self.members.get_mut(who)?.link.take()?;
        self.open -= 1;
        // Closing deregisters, too; nobody is told what comes until then.
        let _ = self.poll.registry().deregister(link.stream().socket());
        Some(link)
    }

    /// Something with which another thread ends a [`Swarm::turn`] early.
    ///
    /// # Errors
    /// When the system gives no event descriptor.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKER)
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Whether one connection is open.
    #[must_use]
    pub fn is_open(&self, who: usize) -> bool {
        self.members.get(who).is_some_and(|member| member.link.is_some())
    }

    /// How many were ever added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether none was ever added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What went wrong so far.
    pub fn errors(&mut self) -> &mut Errors {
        &mut self.errors
    }

    /// The members whose connections were lost since the last call.
    pub fn take_lost(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.lost)
    }

    /// Sends a message to the server; false when that member's connection is lost.
    pub fn send(&mut self, who: usize, message: &[u8]) -> bool {
        self.send_as(who, self.dialect.opcode(), message)
    }

    /// The same as text or binary.
    pub fn send_as(&mut self, who: usize, opcode: Opcode, message: &[u8]) -> bool {
        let Some(link) = self.members.get_mut(who).and_then(|member| member.link.as_mut()) else {
            return false;
        };
        link.send_frame(opcode, message);
        self.retire_if_failed(who);
        self.is_open(who)
    }

    /// Gives up one connection and counts why; nothing when it is lost already.
    pub fn fail(&mut self, who: usize, why: ClientError) {
        if let Some(link) = self.members.get_mut(who).and_then(|member| member.link.as_mut()) {
            link.fail(why);
            self.retire_if_failed(who);
        }
    }

    /// Closes one connection without an error.
    pub fn close(&mut self, who: usize) {
        if let Some(mut link) = self.members.get_mut(who).and_then(|member| member.link.take()) {
            link.send_frame(Opcode::Close, &1000_u16.to_be_bytes());
            self.open -= 1;
        }
    }

    /// Waits for traffic, at the latest until `until`, and tells every message of its dialect that came.
    ///
    /// # Errors
    /// When the system's readiness calls fail; a failing connection is counted instead.
    pub fn turn(&mut self, until: Instant, mut heard: impl FnMut(Heard<'_>)) -> io::Result<()> {
        let now = Instant::now();
        if now >= self.chores_at {
            self.chores(now);
        }
        let timeout = (until <= now).then_some(Duration::ZERO);
        if timeout.is_none() {
            self.alarm.set(until.min(self.chores_at), now)?;
        }
        if let Err(error) = self.poll.poll(&mut self.events, timeout) {
            return if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        let mut ready = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in ready.iter().filter(|event| ![ALARM, WAKER].contains(&event.token())) {
            self.serve(event.token().0, event.is_writable(), &mut heard);
        }
        std::mem::swap(&mut self.events, &mut ready);
        Ok(())
    }

    fn serve(&mut self, who: usize, writable: bool, heard: &mut impl FnMut(Heard<'_>)) {
        let Some(member) = self.members.get_mut(who) else { return };
        let Some(link) = member.link.as_mut() else { return };
        if writable {
            link.flush();
        }
        let told = self.dialect;
        if let Err(error) = member.read(who, told, &mut self.scratch, heard)
            && let Some(link) = member.link.as_mut()
        {
            link.fail(error);
        }
        self.retire_if_failed(who);
    }

    fn retire_if_failed(&mut self, who: usize) {
        let Some(member) = self.members.get_mut(who) else { return };
        if let Some(error) = member.link.as_mut().and_then(Link::take_fault) {
            self.errors.add(&error);
            member.link = None;
            member.carry = Vec::new();
            self.open -= 1;
            self.lost.push(who);
        }
    }

    fn chores(&mut self, now: Instant) {
        self.chores_at = now + CHORES_EVERY;
        for who in 0..self.members.len() {
            let member = &mut self.members[who];
            let Some(link) = member.link.as_mut() else { continue };
            if now.duration_since(member.heard_at) > SILENCE {
                link.fail(ClientError::Silent);
            } else if now.duration_since(member.pinged_at) > PING_EVERY {
                member.pinged_at = now;
                link.send_frame(Opcode::Text, self.dialect.ping());
            }
            self.retire_if_failed(who);
        }
    }
}

impl Member {
    /// Reads until the socket is empty. Readiness is edge-triggered; a short read is as good as `WouldBlock`.
    fn read(
        &mut self,
        who: usize,
        told: Dialect,
        scratch: &mut [u8],
        heard: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), ClientError> {
        loop {
            let Some(link) = self.link.as_mut() else { return Ok(()) };
            let carried = self.carry.len();
            scratch[..carried].copy_from_slice(&self.carry);
            let room = &mut scratch[carried..carried + READ_AT_ONCE];
            let (count, ended) = match link.stream().read(room) {
                Ok(0) => return Err(ClientError::Eof),
                Ok(count) => (count, count < READ_AT_ONCE && link.stream().short_read_is_last()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => (0, true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.heard_at = Instant::now();
            let used = walk(who, told, self.heard_at, &scratch[..carried + count], link, heard)?;
            self.carry.clear();
            self.carry.extend_from_slice(&scratch[used..carried + count]);
            if ended {
                return Ok(());
            }
        }
    }
}

/// Tells every whole frame in `bytes` that has the opcode `told`; returns how many bytes they took.
fn walk(
    who: usize,
    told: Dialect,
    at: Instant,
    bytes: &[u8],
    link: &mut Link,
    heard: &mut impl FnMut(Heard<'_>),
) -> Result<usize, ClientError> {
    let mut used = 0;
    while let Some(frame) = Frame::first(&bytes[used..])? {
        used += frame.len;
        match frame.opcode {
            opcode if told.tells(opcode) => heard(Heard { who, at, opcode, message: frame.payload, link }),
            Opcode::Ping => link.send_frame(Opcode::Pong, frame.payload),
            Opcode::Close => return Err(ClientError::closed(frame.payload)),
            Opcode::Text | Opcode::Binary | Opcode::Pong => {}
        }
    }
    Ok(used)
}
