//! Makes a peer connection of the crate as [`Settings`] ask for, with what is known to be wrong with it made good.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use webrtc::data_channel::DataChannel;
use webrtc::error::Error;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfiguration,
    RTCConfigurationBuilder, RTCIceServer, RTCIceTransportPolicy, RTCPeerConnectionIceEvent,
    RTCPeerConnectionState, SettingEngine, SettingEngineBuilder,
};

use super::pace::{Pace, PacedRuntime};
use super::{MAX_MESSAGE, Mdns, Policy, Settings, checks};
use crate::adapter::ice::{IceServer, Usable};

/// What the crate tells that we have not come to yet. A connection with more to tell is ended.
const HAPPENINGS: usize = 256;

/// Bytes that the channel's own buffer takes before sending waits. More, and bursts overflow the other side's socket.
const CHANNEL_BUFFER: usize = 128 * 1024;

/// How often a pair of candidates is checked, and how many times: for a second and a half, as by default, but without
/// 200 ms between one try and the next.
const CHECK_EVERY: Duration = Duration::from_millis(50);
const CHECKS: u16 = 28;

/// How long a relay waits for a more direct way to be found.
const RELAY_WAITS: Duration = Duration::from_millis(400);

/// How long closing may take before it is left to itself.
const CLOSING: Duration = Duration::from_secs(2);

/// What the crate tells. It calls from within its own loop, so nothing is done there but to pass it on.
pub(super) enum Happening {
    Candidate(String),
    State(RTCPeerConnectionState),
    Channel(Arc<dyn DataChannel>),
}

/// A peer connection that is closed in any case: one that is merely dropped lives on, and goes on answering.
pub(super) struct Owned {
    connection: Option<Arc<dyn PeerConnection>>,
    runtime: Handle,
}

/// A peer connection and all that tells of it.
pub(super) struct Assembled {
    pub(super) connection: Owned,
    pub(super) happenings: mpsc::Receiver<Happening>,
    /// Cancelled when the crate told more than is kept.
    pub(super) overrun: CancellationToken,
    /// Cancelled when the crate's task has ended.
    pub(super) driver_gone: CancellationToken,
}

impl Owned {
    pub(super) fn get(&self) -> &Arc<dyn PeerConnection> {
        self.connection.as_ref().expect("it is there until it is closed, which takes it")
    }

    /// Closes it, and waits until its sockets are.
    pub(super) async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            shut(connection).await;
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.runtime.spawn(shut(connection));
        }
    }
}

async fn shut(connection: Arc<dyn PeerConnection>) {
    match tokio::time::timeout(CLOSING, connection.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "closing a peer connection"),
        Err(_) => tracing::debug!("closing a peer connection took too long"),
    }
}

/// Makes a peer connection with `usable` servers.
pub(super) async fn assemble(
    settings: &Settings,
    usable: &Usable,
    pace: &Arc<Pace>,
) -> Result<Assembled, Error> {
    match build(settings, usable, pace, settings.mdns).await {
        // It fails where no interface takes multicast.
        Err(error) if settings.mdns == Mdns::Resolve => {
            tracing::debug!(%error, "without multicast DNS");
            build(settings, usable, pace, Mdns::Off).await
        }
        built => built,
    }
}

async fn build(
    settings: &Settings,
    usable: &Usable,
    pace: &Arc<Pace>,
    mdns: Mdns,
) -> Result<Assembled, Error> {
    let (tell, happenings) = mpsc::channel(HAPPENINGS);
    let (overrun, driver_gone) = (CancellationToken::new(), CancellationToken::new());
    let runtime = PacedRuntime::new(Arc::clone(pace), driver_gone.clone());
    let connection = PeerConnectionBuilder::<SocketAddr>::new()
        .with_configuration(configuration(settings.policy, usable))
        .with_setting_engine(engine(settings, mdns))
        .with_handler(Arc::new(Teller { tell, overrun: overrun.clone() }))
        .with_runtime(Arc::new(runtime))
        .with_udp_addrs(addresses(settings))
        .with_data_channel_send_buffer_limit(CHANNEL_BUFFER)
        .build()
        .await?;
    let connection = Owned { connection: Some(Arc::new(connection)), runtime: Handle::current() };
    Ok(Assembled { connection, happenings, overrun, driver_gone })
}

/// The crate's configuration with these servers.
pub(super) fn configuration(policy: Policy, usable: &Usable) -> RTCConfiguration {
    let policy = match policy {
        Policy::All => RTCIceTransportPolicy::All,
        Policy::RelayOnly => RTCIceTransportPolicy::Relay,
    };
    RTCConfigurationBuilder::new()
        .with_ice_servers(usable.servers.iter().map(server).collect())
        .with_ice_transport_policy(policy)
        .build()
}

fn server(server: &IceServer) -> RTCIceServer {
    RTCIceServer {
        urls: server.urls.clone(),
        username: server.username.clone().unwrap_or_default(),
        credential: server.credential.clone().unwrap_or_default(),
    }
}

fn engine(settings: &Settings, mdns: Mdns) -> SettingEngine {
    let mdns = match mdns {
        Mdns::Resolve => MulticastDnsMode::QueryOnly,
        Mdns::Off => MulticastDnsMode::Disabled,
    };
    let largest = u32::try_from(MAX_MESSAGE).expect("a constant that fits");
    SettingEngineBuilder::new()
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(largest))
        .with_multicast_dns_mode(mdns)
        .with_ice_timeouts(
            Some(settings.interrupted_after),
            Some(settings.lost_after),
            Some(checks::probe(settings)),
        )
        .with_ice_connection_attempts(Some(CHECK_EVERY), Some(CHECKS))
        // By default the first way that works waits a second for a better one.
        .with_host_acceptance_min_wait(Some(Duration::ZERO))
        .with_srflx_acceptance_min_wait(Some(Duration::ZERO))
        .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
        .with_relay_acceptance_min_wait(Some(match settings.policy {
            Policy::All => RELAY_WAITS,
            Policy::RelayOnly => Duration::ZERO,
        }))
        // A machine that has changed its network has other addresses than before.
        .with_discard_local_candidates_during_ice_restart(true)
        .build()
}

/// What to bind: a wildcard means every interface of its family at that time, and at the time of an ICE restart. It is
/// only given where there is one, for else it would be offered to the other side as it stands.
fn addresses(settings: &Settings) -> Vec<SocketAddr> {
    if !settings.udp.is_empty() {
        return settings.udp.clone();
    }
    let interfaces = rtc::shared::ifaces::ifaces().unwrap_or_default();
    let ips = || interfaces.iter().filter_map(|interface| interface.addr).map(|address| address.ip());
    let mut addresses = Vec::new();
    if ips().any(|ip| ip.is_ipv4() && is_usable(&ip)) {
        addresses.push(SocketAddr::from(([0, 0, 0, 0], 0)));
    }
    if ips().any(|ip| ip.is_ipv6() && is_usable(&ip)) {
        addresses.push(SocketAddr::from(([0_u16; 8], 0)));
    }
    if addresses.is_empty() {
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    }
    addresses
}

fn is_usable(ip: &IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || is_link_local)
}

/// Passes on what the crate tells.
struct Teller {
    tell: mpsc::Sender<Happening>,
    overrun: CancellationToken,
}

impl Teller {
    fn pass_on(&self, happening: Happening) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.tell.try_send(happening) {
            self.overrun.cancel();
        }
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Teller {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        match event.candidate.to_json() {
            Ok(candidate) => self.pass_on(Happening::Candidate(candidate.candidate)),
            Err(error) => tracing::debug!(%error, "a candidate of our own"),
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.pass_on(Happening::State(state));
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        self.pass_on(Happening::Channel(channel));
    }
}
