//! Everything put together: listeners, the service, and the way out.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::address::{self, AddressKey, Peer};
use crate::config::{Config, Endpoint};
use crate::limits::{Caps, Occupancy, Place, Rate};
use crate::metrics::SocketRefusal;
use crate::reload::{self, Reload};
use crate::signaling::{Signaling, Stage, StartError};
use crate::tls::{Tls, TlsError};
use crate::{http, notify, operator};

/// Connections that have not finished their request, in all. The next one is dropped.
const MAX_HANDSHAKES: usize = 1024;
/// How long to wait after the system had no file left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that is bound and not yet running.
#[derive(Debug)]
pub struct Server {
    config: Config,
    signaling: Arc<Signaling>,
    listener: TcpListener,
    tls: Option<Tls>,
    operator: Option<TcpListener>,
}

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum BindError {
    /// An address could not be listened on.
    #[error("{key} = \"{address}\": {error}")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address it has.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The certificate or its key can not be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The service can not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// What all sockets share until they are upgraded.
struct Front {
    signaling: Arc<Signaling>,
    router: Router,
    tls: Option<Tls>,
    handshakes: Arc<Occupancy>,
    deadline: Duration,
}

impl Server {
    /// Reads keys and certificates and binds the listeners. Nobody is served before [`run`](Self::run).
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        Self::bind_on(config, None).await
    }

    /// As [`bind`](Self::bind), but where there is a listener already, clients connect there and not at
    /// `server.listen`. It must be non-blocking.
    pub async fn bind_on(config: Config, clients: Option<std::net::TcpListener>) -> Result<Self, BindError> {
        let signaling = Signaling::new(&config)?;
        let tls = Tls::from_config(&config.tls)?;
        let listener = match clients {
            None => listen("server.listen", config.server.listen)?,
            Some(listener) => taken_over(listener)?,
        };
        let operator = match config.metrics.listen {
            Endpoint::Off => None,
            Endpoint::At(address) => Some(listen("metrics.listen", address)?),
        };
        Ok(Self { config, signaling, listener, tls, operator })
    }

    /// Where clients connect.
    ///
    /// # Panics
    ///
    /// When the system has lost the socket.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound listener has an address")
    }

    /// Where operators look, unless that is off.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.operator.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Whether clients connect by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The service itself.
    #[must_use]
    pub fn signaling(&self) -> &Arc<Signaling> {
        &self.signaling
    }

    /// Reads changed keys and certificates again on request, while the server runs.
    #[must_use]
    pub fn reload(&self) -> Reload {
        Reload::new(Arc::clone(&self.signaling), self.tls.clone())
    }

    /// Serves until `shutdown` is ready, then drains: reports "not ready", stops accepting, closes every connection
    /// with 1012 spread over the window. Ends when the last has ended, or at once when `abort` is ready.
    pub async fn run(self, shutdown: impl Future<Output = ()>, abort: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        self.spawn_watchers(&mut tasks);
        let Self { config, signaling, listener, tls, operator } = self;
        if let Some(listener) = operator {
            let router = operator::router(Arc::clone(&signaling));
            tasks.spawn(async move {
                // Only ends with the task.
                let _ = axum::serve(listener, router).await;
            });
        }
        let front = Arc::new(Front {
            router: http::router(Arc::clone(&signaling)),
            signaling: Arc::clone(&signaling),
            tls,
            handshakes: Occupancy::new(handshake_caps(&config)),
            deadline: config.limits.handshake_deadline.duration(),
        });
        let accepting = tasks.spawn(accept(front, listener));
        tasks.spawn(notify::keep_alive(Arc::clone(&signaling)));
        notify::ready();
        let life = async {
            shutdown.await;
            drain(&config, &signaling, accepting).await;
        };
        tokio::select! {
            () = life => {}
            () = abort => tracing::warn!(connections = signaling.hub().connections(), "stopped at once"),
        }
    }

    fn spawn_watchers(&self, tasks: &mut JoinSet<()>) {
        let report = reload::counted(self.signaling.metrics());
        tasks.spawn(Arc::clone(self.signaling.access()).watch(report.clone()));
        tasks.spawn(Arc::clone(self.signaling.ice()).watch(report.clone()));
        if let Some(tls) = &self.tls {
            tasks.spawn(tls.clone().watch(report));
        }
        if let Some(relays) = self.signaling.relays() {
            tasks.spawn(Arc::clone(relays).tend());
        }
        let signaling = Arc::clone(&self.signaling);
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                signaling.hub().reopen_closed_rooms();
            }
        });
    }
}

async fn drain(config: &Config, signaling: &Signaling, accepting: tokio::task::AbortHandle) {
    let connections = signaling.hub().connections();
    notify::stopping(config.drain.ready_wait.duration() + config.drain.window.duration());
    signaling.enter(Stage::Leaving);
    tracing::info!(connections, "draining: not ready");
    if connections > 0 {
        tokio::time::sleep(config.drain.ready_wait.duration()).await;
    }
    accepting.abort();
    tracing::info!(window = %config.drain.window, "draining: no new connections, closing those there are");
    signaling.close(config.drain.window.duration()).await;
    tracing::info!("drained");
}

/// Handshakes are counted by the socket's own address: a client's true one is not known before they are over.
fn handshake_caps(config: &Config) -> Caps {
    let limits = config.limits.in_force();
    Caps { per_address: limits.connections_per_address, total: MAX_HANDSHAKES, upgrades: Rate::UNLIMITED }
}

fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = address::listen(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|error| BindError::Listen { key, address, error })
}

fn taken_over(listener: std::net::TcpListener) -> Result<TcpListener, BindError> {
    let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    TcpListener::from_std(listener).map_err(|error| BindError::Listen {
        key: "the socket that was handed over",
        address,
        error,
    })
}

async fn accept(front: Arc<Front>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, socket)) => match front.admit(socket) {
                Ok(place) => {
                    tokio::spawn(Arc::clone(&front).greet(stream, socket, place));
                }
                Err(refusal) => front.signaling.metrics().sockets_refused.inc(refusal),
            },
            // A client that gave up before it was accepted is nothing; a lack of files passes.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                front.signaling.metrics().sockets_refused.inc(SocketRefusal::Full);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Front {
    fn admit(&self, socket: SocketAddr) -> Result<Place, SocketRefusal> {
        let exempt = socket.ip().to_canonical().is_loopback() || self.signaling.proxies().trusts(socket.ip());
        let address = (!exempt).then(|| AddressKey::from(socket.ip()));
        self.handshakes.admit(address, Instant::now()).map_err(|_| SocketRefusal::Full)
    }

    /// Takes one connection up to its upgrade or its end, within the deadline.
    async fn greet(self: Arc<Self>, mut stream: TcpStream, socket: SocketAddr, _place: Place) {
        // Small frames are not to wait for each other; where it can not be set, they do.
        let _ = stream.set_nodelay(true);
        let outcome = match self.signaling.proxies().greet(&mut stream, socket, self.deadline).await {
            Err(_) => Err(SocketRefusal::ProxyHeader),
            Ok(peer) => match &self.tls {
                None => self.serve_http(stream, peer).await,
                Some(tls) => match tokio::time::timeout(self.deadline, tls.accept(stream)).await {
                    Ok(Ok(stream)) => self.serve_http(stream, peer).await,
                    Ok(Err(_)) => Err(SocketRefusal::Tls),
                    Err(_) => Err(SocketRefusal::HandshakeDeadline),
                },
            },
        };
        if let Err(refusal) = outcome {
            self.signaling.metrics().sockets_refused.inc(refusal);
        }
    }

    /// The deadline for a request is that of its whole connection.
    async fn serve_http<S>(&self, stream: S, peer: Peer) -> Result<(), SocketRefusal>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let answer = self.router.clone().oneshot(request);
            async { answer.await.map(close_after) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .max_headers(64)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        match tokio::time::timeout(self.deadline, pin!(connection)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.is_parse() => Err(SocketRefusal::Http),
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(SocketRefusal::HandshakeDeadline),
        }
    }
}

/// One request a connection, unless it is upgraded.
fn close_after(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
