//! Offers, answers and candidates: what is said to the other side, and in which order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::peer_connection::transport::RTCIceCandidateInit;
use serde_json::Value;
use webrtc::data_channel::DataChannel;
use webrtc::error::Error;
use webrtc::peer_connection::{PeerConnection, RTCSdpType, RTCSessionDescription};

use super::Role;
use super::signal::{self, Signal};

/// Candidates that are kept until there is a description to apply them to. Further ones are left out.
const EARLY: usize = 64;

/// Candidates that are looked at between one description of the other side and the next, the early ones included. A
/// machine with many interfaces has dozens; each costs a check with each of ours.
const CANDIDATES: usize = 128;

/// How long after the other side looked for another way it may begin anew.
const DOUBT: Duration = Duration::from_secs(5);

/// The state of a negotiation that goes on as long as the connection.
pub(super) struct Negotiation {
    connection: Arc<dyn PeerConnection>,
    role: Role,
    /// We have offered and wait for the answer.
    offered: bool,
    /// What to offer after that.
    next: Option<Offer>,
    /// There is a description of the other side.
    described: bool,
    /// When the other side last offered, which it does when it looks for another way.
    doubted_at: Option<Instant>,
    early: Vec<RTCIceCandidateInit>,
    looked_at: usize,
    /// The fingerprint of the other side's certificate, which stays the same as long as the connection.
    certificate: String,
    /// Which side of the encryption is ours, since the first answer. It stays so too.
    side: Option<Side>,
    /// What our media section is called.
    mid: String,
    /// Signals to be brought to the other side, in order.
    pub(super) said: Vec<Value>,
    /// The largest message that the other side takes, once it has said so.
    pub(super) largest: Option<usize>,
}

/// What an offer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Offer {
    /// To agree on what there is.
    Plain,
    /// To look for a way anew.
    Restart,
}

/// A side of the encryption, as an answer says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Active,
    Passive,
}

impl Side {
    /// What the author of an answer takes.
    fn of(answer: &str) -> Self {
        if signal::setup(answer) == "passive" { Self::Passive } else { Self::Active }
    }

    fn other(self) -> Self {
        match self {
            Self::Active => Self::Passive,
            Self::Passive => Self::Active,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// What is kept of a description of the other side.
struct Heard {
    largest: usize,
    certificate: String,
}

impl From<&str> for Heard {
    fn from(sdp: &str) -> Self {
        Self { largest: signal::max_message_size(sdp), certificate: signal::fingerprint(sdp).to_owned() }
    }
}

impl Negotiation {
    pub(super) fn new(connection: Arc<dyn PeerConnection>, role: Role) -> Self {
        Self {
            connection,
            role,
            offered: false,
            next: None,
            described: false,
            doubted_at: None,
            early: Vec::new(),
            looked_at: 0,
            certificate: String::new(),
            side: None,
            mid: "0".to_owned(),
            said: Vec::new(),
            largest: None,
        }
    }

    /// Whether a description of the other side was ever applied.
    pub(super) fn has_begun(&self) -> bool {
        self.described
    }

    /// Whether no offer of ours waits for an answer.
    pub(super) fn is_answered(&self) -> bool {
        !self.offered
    }

    /// Opens a channel, to be offered.
    pub(super) async fn open_channel(&self, label: &str) -> Result<Arc<dyn DataChannel>, Error> {
        self.connection.create_data_channel(label, None).await
    }

    /// Offers now, or once the answer to the last offer is there.
    pub(super) async fn offer(&mut self, offer: Offer) -> Result<(), Error> {
        if self.offered {
            self.next = self.next.max(Some(offer));
            return Ok(());
        }
        let options = RTCOfferOptions { ice_restart: offer == Offer::Restart };
        let description = self.connection.create_offer(Some(options)).await?;
        let sdp = description.sdp.clone();
        self.connection.set_local_description(description).await?;
        self.offered = true;
        signal::mid(&sdp).clone_into(&mut self.mid);
        self.said.push(signal::offer(&sdp));
        Ok(())
    }

    /// Offers to look for a way anew, in place of an offer that nobody has answered.
    pub(super) async fn restart(&mut self) -> Result<(), Error> {
        if self.offered {
            self.take_back().await?;
        }
        self.offer(Offer::Restart).await
    }

    /// Offers again if it is ours to do, and asks for an offer otherwise.
    pub(super) async fn renegotiate(&mut self) -> Result<(), Error> {
        match self.role {
            Role::Initiator => self.offer(Offer::Plain).await,
            Role::Answerer => {
                self.said.push(signal::renegotiate());
                Ok(())
            }
        }
    }

    /// A candidate of ours.
    pub(super) fn candidate(&mut self, line: &str) {
        // The end of our candidates has no name in this protocol.
        if line.strip_prefix("candidate:").is_some_and(|rest| !rest.is_empty()) {
            self.said.push(signal::candidate(line, &self.mid));
        }
    }

    /// A signal of the other side. An error means that it could not be applied, and that nothing has changed.
    pub(super) async fn hear(&mut self, signal: Signal) -> Result<(), Error> {
        // Somebody who speaks in the name of the other side.
        if self.is_elsewhere(&signal) {
            return Ok(());
        }
        match signal {
            Signal::Offer(sdp) => self.hear_offer(sdp).await,
            Signal::Answer(sdp) => self.hear_answer(sdp).await,
            Signal::Candidate(candidate) => self.hear_candidate(candidate).await,
            Signal::Unusable => Ok(()),
            // Only the initiator answers it.
            Signal::Renegotiate if self.role == Role::Initiator => self.offer(Offer::Plain).await,
            Signal::Renegotiate => Ok(()),
        }
    }

    fn is_strange(&self, sdp: &str) -> bool {
        self.described && signal::fingerprint(sdp) != self.certificate
    }

    /// Whether the other side goes on with a connection of its own that is none of this one.
    pub(super) fn is_elsewhere(&self, signal: &Signal) -> bool {
        matches!(signal, Signal::Offer(sdp) | Signal::Answer(sdp) if self.is_strange(sdp))
    }

    /// Whether the other side has looked for another way of late.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted_at.is_some_and(|at| at.elapsed() < DOUBT)
    }

    async fn hear_offer(&mut self, sdp: String) -> Result<(), Error> {
        self.doubted_at = self.described.then(Instant::now);
        if self.offered {
            // Both have offered: the initiator's offer stands, and the other one is taken back. It is said again, with
            // the candidates, for it may have been lost.
            if self.role == Role::Initiator {
                let ours = self.connection.local_description().await;
                self.said.extend(ours.map(|ours| signal::offer(&ours.sdp)));
                return Ok(());
            }
            self.take_back().await?;
        }
        let heard = Heard::from(sdp.as_str());
        let offer = RTCSessionDescription::offer(sdp)?;
        self.connection.set_remote_description(offer).await?;
        match self.answer().await {
            Ok(()) => {
                self.has_heard(heard).await;
                Ok(())
            }
            Err(error) => {
                let undone = rollback();
                // What could not be answered must not stand in the way of the next offer.
                if let Err(error) = self.connection.set_remote_description(undone).await {
                    tracing::debug!(%error, "an offer that was not answered could not be undone");
                }
                Err(error)
            }
        }
    }

    async fn answer(&mut self) -> Result<(), Error> {
        let description = self.connection.create_answer(None).await?;
        let sdp = description.sdp.clone();
        self.connection.set_local_description(description).await?;
        signal::mid(&sdp).clone_into(&mut self.mid);
        // The crate answers as if for the first time, and browsers refuse to change sides.
        let side = *self.side.get_or_insert(Side::of(&sdp));
        self.said.push(signal::answer(&signal::with_setup(&sdp, side.name())));
        Ok(())
    }

    async fn hear_answer(&mut self, sdp: String) -> Result<(), Error> {
        if !self.offered {
            return Ok(());
        }
        let heard = Heard::from(sdp.as_str());
        self.side.get_or_insert(Side::of(&sdp).other());
        let answer = RTCSessionDescription::answer(sdp)?;
        self.connection.set_remote_description(answer).await?;
        self.offered = false;
        self.has_heard(heard).await;
        match self.next.take() {
            Some(offer) => self.offer(offer).await,
            None => Ok(()),
        }
    }

    async fn hear_candidate(&mut self, candidate: RTCIceCandidateInit) -> Result<(), Error> {
        if self.looked_at >= CANDIDATES {
            return Ok(());
        }
        self.looked_at += 1;
        if self.described {
            return self.connection.add_ice_candidate(candidate).await;
        }
        if self.early.len() < EARLY {
            self.early.push(candidate);
        }
        Ok(())
    }

    /// There is a description of the other side: what came before it can be applied.
    async fn has_heard(&mut self, heard: Heard) {
        self.largest = Some(heard.largest);
        self.certificate = heard.certificate;
        self.described = true;
        self.looked_at = self.early.len();
        for candidate in std::mem::take(&mut self.early) {
            if let Err(error) = self.connection.add_ice_candidate(candidate).await {
                tracing::debug!(%error, "a candidate that can not be used");
            }
        }
    }

    async fn take_back(&mut self) -> Result<(), Error> {
        self.connection.set_local_description(rollback()).await?;
        self.offered = false;
        Ok(())
    }
}

fn rollback() -> RTCSessionDescription {
    let mut nothing = RTCSessionDescription::default();
    nothing.sdp_type = RTCSdpType::Rollback;
    nothing
}
