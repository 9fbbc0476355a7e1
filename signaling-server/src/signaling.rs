//! The service without its listeners: everything that requests share, made once from the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::access::{Access, AccessError, Grant};
use crate::address::{ClientAddress, Proxies, Source};
use crate::config::{Config, ConnectionCap, Delivery, LimitsConfig, RelayConfig, RelayMode, Size};
use crate::connection::{Connection, Pace};
use crate::hub::Hub;
use crate::ice::{Ice, IceStartError};
use crate::limits::{Caps, Occupancy, Place, Rate};
use crate::metrics::{Disconnect, Metrics, UpgradeRefusal};
use crate::outbox::{Capacity, Outbox, SharedWriter};
use crate::relay::{RelayStartError, Relays};
use crate::room::{self, Rules};
use crate::session::{Bounds, Common, Session};
use crate::socket::Socket;

/// Open files that are not WebSockets: listeners, files, handshakes under way.
const RESERVED_FILES: u64 = 1024 + 64;

/// The service. [`router`](crate::http::router) and [`operator`](crate::operator::router) make it reachable.
#[derive(Debug)]
pub struct Signaling {
    hub: Arc<Hub>,
    relays: Option<Arc<Relays>>,
    access: Arc<Access>,
    ice: Arc<Ice>,
    proxies: Proxies,
    occupancy: Arc<Occupancy>,
    bounds: Bounds,
    pace: Pace,
    max_message: usize,
    capacity: Capacity,
    stage: AtomicU8,
    tasks: TaskTracker,
}

/// Why the service can not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The keys or tokens that `[access]` names can not be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The secrets that `[ice]` names can not be used.
    #[error(transparent)]
    Ice(#[from] IceStartError),
    /// What `[relay]` wants stored can not be.
    #[error(transparent)]
    Relay(#[from] RelayStartError),
}

/// Where the service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum Stage {
    /// In service.
    Ready = 0,
    /// Still accepting, but asking load balancers to look elsewhere.
    Leaving = 1,
    /// Accepting nobody, closing those who are here.
    Closing = 2,
}

impl Signaling {
    /// A service without connections. Reads the keys that `[access]` names, and opens the database of `[relay]`.
    pub fn new(config: &Config) -> Result<Arc<Self>, StartError> {
        let limits = config.limits.in_force();
        let metrics = Arc::new(Metrics::new());
        let rules = Rules {
            delivery: match config.signaling.delivery {
                Delivery::Directed => room::Delivery::Directed,
                Delivery::Broadcast => room::Delivery::Broadcast,
            },
            echo: config.signaling.echo,
            capacity: limits.subscribers_per_room,
            learned_ids: config.signaling.learned_ids,
        };
        let relay = config.relay_in_force();
        Ok(Arc::new(Self {
            relays: Relays::open(&relay, &limits, &metrics)?,
            access: Arc::new(Access::from_config(&config.access)?),
            ice: Arc::new(Ice::from_config(&config.ice, &limits)?),
            proxies: Proxies::from_config(&config.proxy),
            occupancy: Occupancy::new(caps(&limits)),
            bounds: Bounds {
                topics: limits.topics_per_connection,
                topic_name: limits.topic_name.get(),
                json: wire::signal::Limits { depth: limits.json_depth },
                signal: limits.max_message.get(),
                updates: rate(relay.updates_per_second, relay.updates_burst),
            },
            pace: Pace {
                ping_interval: config.signaling.ping_interval.duration(),
                dead_after: config.signaling.dead_after.duration(),
                write_deadline: limits.write_deadline.duration(),
                messages: rate(limits.messages_per_second, limits.messages_burst),
                bytes: byte_rate(&limits, &relay),
                frames: frame_rate(&relay),
            },
            max_message: max_message(&limits, &relay),
            capacity: Capacity { bytes: limits.outbound_queue.get(), frames: limits.outbound_frames },
            hub: Arc::new(Hub::new(rules, metrics)),
            stage: AtomicU8::new(Stage::Ready as u8),
            tasks: TaskTracker::new(),
        }))
    }

    /// The rooms and connections.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The rooms of the Loro Protocol, if documents are relayed.
    #[must_use]
    pub fn relays(&self) -> Option<&Arc<Relays>> {
        self.relays.as_ref()
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.hub.metrics()
    }

    /// Who may come in.
    #[must_use]
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// What peers are told of STUN and TURN servers.
    #[must_use]
    pub fn ice(&self) -> &Arc<Ice> {
        &self.ice
    }

    /// Which proxies are believed.
    #[must_use]
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Where the service is in its life.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Ready,
            1 => Stage::Leaving,
            _ => Stage::Closing,
        }
    }

    /// Moves on to a later stage; there is no way back.
    pub fn enter(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::Relaxed);
        self.metrics().draining.set(i64::from(self.stage() > Stage::Ready));
    }

    /// Closes every connection with 1012, spread evenly over `window`, and waits until they have ended. From now on
    /// upgrades are answered with 503.
    pub async fn close(&self, window: Duration) {
        self.enter(Stage::Closing);
        self.hub.close_all(window).await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A place for one more WebSocket of this client.
    pub(crate) fn admit(&self, client: Option<ClientAddress>) -> Result<Place, UpgradeRefusal> {
        if self.stage() == Stage::Closing {
            return Err(UpgradeRefusal::Draining);
        }
        if client.is_some_and(|client| client.source() == Source::UnreadableHeader) {
            self.metrics().bad_forwarded.inc();
        }
        let limited = client.filter(|client| !client.is_exempt());
        self.occupancy.admit(limited.map(|client| client.key()), Instant::now())
    }

    /// Serves an upgraded TCP stream in a task of its own. `arrived` came right behind the handshake.
    pub(crate) fn serve_tcp(&self, stream: TcpStream, arrived: Bytes, guest: Guest) {
        let (reader, writer) = stream.into_split();
        let outbox = Arc::new(Outbox::new(self.capacity, Some(writer)));
        self.serve(reader, SharedWriter(Arc::clone(&outbox)), outbox, arrived, guest);
    }

    /// Serves any other upgraded stream, to which only its own task can write.
    pub(crate) fn serve_stream<S>(&self, stream: S, arrived: Bytes, guest: Guest)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        self.serve(reader, writer, Arc::new(Outbox::new(self.capacity, None)), arrived, guest);
    }

    fn serve<R, W>(&self, reader: R, writer: W, outbox: Arc<Outbox>, arrived: Bytes, guest: Guest)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let caller = self.hub.connect(guest.client.map(|client| client.ip()), Arc::clone(&outbox));
        if self.stage() == Stage::Closing {
            outbox.close(Disconnect::Drain);
        }
        let socket = Socket::new(reader, writer, arrived, self.max_message);
        let common = Common {
            hub: Arc::clone(&self.hub),
            relays: self.relays.clone(),
            access: Arc::clone(&self.access),
            bounds: self.bounds,
        };
        let session = Session::new(common, caller, guest.grant, Instant::now());
        let metrics = Arc::clone(self.metrics());
        let connection = Connection::new(socket, session, outbox, self.pace, metrics, guest.place);
        self.tasks.spawn(connection.run());
    }

    /// The tasks of all connections.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }
}

/// Somebody who has been let in.
#[derive(Debug)]
pub(crate) struct Guest {
    /// None if no token was shown, and one may be shown later.
    pub(crate) grant: Option<Grant>,
    pub(crate) client: Option<ClientAddress>,
    pub(crate) place: Place,
}

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second: per_second.into(), burst: burst.into() }
}

/// Documents are larger than messages: what is more counts.
fn byte_rate(limits: &LimitsConfig, relay: &RelayConfig) -> Rate {
    let of = |per_second: Size, burst: Size| Rate {
        per_second: per_second.get() as f64,
        burst: burst.get() as f64,
    };
    let (signaling, relayed) =
        (of(limits.bytes_per_second, limits.bytes_burst), of(relay.bytes_per_second, relay.bytes_burst));
    let unlimited = signaling.per_second <= 0.0 || relayed.per_second <= 0.0;
    match relay.mode {
        RelayMode::Off => signaling,
        _ if unlimited => Rate::UNLIMITED,
        _ => Rate {
            per_second: signaling.per_second.max(relayed.per_second),
            burst: signaling.burst.max(relayed.burst),
        },
    }
}

/// Fragments and acknowledgements cost little, but not nothing.
fn frame_rate(relay: &RelayConfig) -> Rate {
    const EACH_UPDATE: f64 = 10.0;
    let updates = rate(relay.updates_per_second, relay.updates_burst);
    Rate { per_second: EACH_UPDATE * updates.per_second, burst: EACH_UPDATE * updates.burst }
}

/// A frame of the Loro Protocol that is too long is refused with a word, up to twice its length.
fn max_message(limits: &LimitsConfig, relay: &RelayConfig) -> usize {
    match relay.mode {
        RelayMode::Off => limits.max_message.get(),
        _ => limits.max_message.get().max(2 * wire::sync::MAX_FRAME),
    }
}

fn caps(limits: &LimitsConfig) -> Caps {
    Caps {
        per_address: limits.connections_per_address,
        total: match limits.connections {
            ConnectionCap::At(total) => total,
            ConnectionCap::Auto => affordable_connections(),
        },
        upgrades: rate(limits.upgrades_per_second, limits.upgrades_burst),
    }
}

/// As many connections as the open-file limit has room for.
fn affordable_connections() -> usize {
    let Ok((files, _)) = rlimit::Resource::NOFILE.get() else { return 1024 };
    usize::try_from(files.saturating_sub(RESERVED_FILES).max(files / 2)).unwrap_or(usize::MAX)
}
