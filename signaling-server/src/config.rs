//! What an operator can set, with defaults that run on a laptop.
//!
//! Every key has a default, so an empty file is a valid configuration; `config.example.toml` holds them all. Unknown
//! keys are refused. A key left out, or (for a path or a name) set to the empty string, means its default.
//!
//! Wherever a rate or a count may be 0, 0 means "no limit". What bounds memory can not be 0.

mod check;
mod defaults;
mod environment;
mod load;
mod relay;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use load::{ConfigError, Flag, Layers, Loaded, Origin};
pub use relay::{RelayConfig, RelayMode};
pub use values::{ConnectionCap, Endpoint, Period, Secret, Size};

/// Everything that can be set, by section.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    pub server: ServerConfig,
    /// Where operators look.
    pub metrics: MetricsConfig,
    /// How y-webrtc messages are passed on.
    pub signaling: SignalingConfig,
    /// Who may come in, and into which rooms.
    pub access: AccessConfig,
    /// How peers that no direct way connects find each other.
    pub ice: IceConfig,
    /// What documents are relayed, and where they are kept.
    pub relay: RelayConfig,
    /// How much one client may use.
    pub limits: LimitsConfig,
    /// Which proxies are believed about a client's address.
    pub proxy: ProxyConfig,
    /// The certificate, when this server speaks TLS itself.
    pub tls: TlsConfig,
    /// How the server goes away.
    pub drain: DrainConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port for clients. Default `[::]:4444`: all interfaces, IPv6 and IPv4 alike, as the reference server
    /// does; on a host without IPv6 the same port of `0.0.0.0` is used instead.
    #[serde(deserialize_with = "values::socket_addr")]
    pub listen: SocketAddr,
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address and port of `/metrics` and `/rooms`, or `off`. Default `127.0.0.1:9464`: this machine only.
    pub listen: Endpoint,
}

/// `[signaling]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignalingConfig {
    /// Whether a message that names its receiver goes to that receiver alone. Default `directed`.
    pub delivery: Delivery,
    /// Whether a publisher receives its own messages, as from the reference server. Default `true`.
    pub echo: bool,
    /// How often a connection is pinged. Default 30 s.
    pub ping_interval: Period,
    /// How long a connection may be silent, pongs included, before it is closed. Longer than `ping_interval`.
    /// Default 60 s.
    pub dead_after: Period,
    /// How many peer ids are remembered for one connection in one room, for directed delivery. A connection that shows
    /// more is sent every directed message of that room, so that it misses none. Bounds memory. Default 16.
    pub learned_ids: usize,
}

/// Who receives a message that names its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// The named receiver, if it has been seen on the topic; otherwise every subscriber.
    #[default]
    Directed,
    /// Every subscriber, exactly as the reference server does.
    Broadcast,
}

/// `[access]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Who may connect. Default `open`: everybody.
    pub mode: AccessMode,
    /// Mode `tokens`: the shared tokens, any of which opens every room. Default none.
    pub tokens: Vec<Secret>,
    /// Mode `tokens`: a file with one shared token a line, re-read when it changes. Default none.
    #[serde(with = "values::empty_is_none")]
    pub tokens_file: Option<PathBuf>,
    /// Mode `signed`: a key to verify tokens with: a PEM file with a public key (Ed25519, P-256 or RSA) or any other
    /// file with an HS256 secret of at least 32 bytes. Re-read when it changes. Default none.
    #[serde(with = "values::empty_is_none")]
    pub keys_file: Option<PathBuf>,
    /// Mode `signed`: a JWKS file to verify tokens with, re-read when it changes. Default none.
    #[serde(with = "values::empty_is_none")]
    pub jwks_file: Option<PathBuf>,
    /// How often the files above are looked at for changes. Default 10 s.
    pub reload_interval: Period,
    /// Mode `signed`: the algorithms accepted; a key is only ever used with its own. Default all four.
    pub algorithms: Vec<Algorithm>,
    /// Mode `signed`: the `aud` a token must carry. Default none: `aud` is not looked at.
    #[serde(with = "values::empty_is_none")]
    pub audience: Option<String>,
    /// Mode `signed`: the `iss` a token must carry. Default none: `iss` is not looked at.
    #[serde(with = "values::empty_is_none")]
    pub issuer: Option<String>,
    /// Mode `signed`: how far clocks may disagree about `exp` and `nbf`. Default 60 s.
    pub leeway: Period,
    /// The cookie that may carry a token. Default `signaling_token`.
    pub cookie: String,
    /// The web origins whose pages may connect, such as `https://app.example.com` or `https://*.example.com`. Default
    /// none: any. A client that sends no `Origin` is no browser page, and is not held to the list.
    pub origins: Vec<String>,
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// Everybody; whoever knows a room's name can join it.
    #[default]
    Open,
    /// Whoever has one of the shared tokens; it opens every room.
    Tokens,
    /// Whoever has a signed token (a JWT) that names the rooms it opens.
    Signed,
}

/// How a token may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::upper_case_acronyms)]
pub enum Algorithm {
    /// HMAC with SHA-256: one secret signs and verifies.
    HS256,
    /// Ed25519.
    EdDSA,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    RS256,
}

/// `[ice]`: what `GET /ice` tells clients, ready for `new RTCPeerConnection`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IceConfig {
    /// STUN servers, such as `stun:stun.example.org:3478`. Default none.
    pub stun: Vec<String>,
    /// TURN servers, such as `turn:turn.example.org:3478?transport=udp` and `turns:turn.example.org:443`. Default none.
    pub turn: Vec<String>,
    /// The secret shared with the TURN servers: one for all, or one for each entry of `turn`. Default none.
    pub secrets: Vec<Secret>,
    /// Files that are such secrets, in place of `secrets`. Re-read when they change. Default none.
    pub secret_files: Vec<PathBuf>,
    /// How long a credential is valid. Default 1 h.
    pub ttl: Period,
    /// How often the files above are looked at for changes. Default 10 s.
    pub reload_interval: Period,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// `false` lifts every rate and count below, for load tests and trusted networks, but never what bounds memory or
    /// time: `max_message`, `topics_per_connection`, `topic_name`, `outbound_queue`, `outbound_frames`, the deadlines
    /// and `json_depth`. Default `true`. See [`LimitsConfig::in_force`].
    pub enabled: bool,
    /// The largest WebSocket message taken from a client. Bounds memory. Default 256 KiB.
    pub max_message: Size,
    /// How many topics one connection may be subscribed to. Bounds memory. Default 128.
    pub topics_per_connection: usize,
    /// The longest topic name, in bytes. Bounds memory. Default 512.
    pub topic_name: Size,
    /// How many connections may be subscribed to one topic. Default 1024; 0: no limit.
    pub subscribers_per_room: usize,
    /// How many connections one address may hold; IPv6 counts by /64. Default 64; 0: no limit.
    pub connections_per_address: usize,
    /// How many connections there may be in all. Default `auto`: what the open-file limit allows.
    pub connections: ConnectionCap,
    /// How many connections one address may open each second in the long run. Default 20; 0: no limit.
    pub upgrades_per_second: u32,
    /// How many connections one address may open at once after a pause. Default 100.
    pub upgrades_burst: u32,
    /// How often one address may ask for ICE servers each minute. Default 20; 0: no limit.
    pub ice_per_minute: u32,
    /// How many messages one connection may send each second in the long run; more are read later. Default 20; 0: no
    /// limit.
    pub messages_per_second: u32,
    /// How many messages one connection may send at once after a pause. Default 200.
    pub messages_burst: u32,
    /// How many bytes one connection may send each second in the long run; more are read later. Default 256 KiB; 0: no
    /// limit.
    pub bytes_per_second: Size,
    /// How many bytes one connection may send at once after a pause; at least `max_message`. Default 1 MiB.
    pub bytes_burst: Size,
    /// How many bytes may wait to be written to one connection; when they are more, it is closed and counted. Bounds
    /// memory; at least `max_message`. Default 1 MiB.
    pub outbound_queue: Size,
    /// How many frames may wait to be written to one connection. Bounds memory. Default 1024.
    pub outbound_frames: usize,
    /// How long one write to a connection may take. Default 10 s.
    pub write_deadline: Period,
    /// How long a new connection may take over TLS and the upgrade, each. Default 10 s.
    pub handshake_deadline: Period,
    /// How deep JSON may be nested. Bounds the stack. Default 64.
    pub json_depth: usize,
}

/// `[proxy]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// The proxies (addresses or networks) believed about the address of a client. Default none.
    #[serde(deserialize_with = "values::networks")]
    pub trusted: Vec<IpNet>,
    /// Whether connections from trusted proxies begin with a PROXY protocol header. Default `none`.
    pub protocol: ProxyProtocol,
    /// The header in which trusted proxies name the client. Default `x-forwarded-for`.
    pub header: ForwardedHeader,
}

/// What a trusted proxy sends ahead of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// Nothing.
    #[default]
    None,
    /// A PROXY protocol version 2 header; a connection without one is closed.
    V2,
}

/// The header in which a trusted proxy names the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// No header is looked at.
    None,
}

/// `[tls]`: both files, or neither for plain WebSockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file with the certificate chain, the server's own first. Default none.
    #[serde(with = "values::empty_is_none")]
    pub cert: Option<PathBuf>,
    /// A PEM file with the unencrypted private key. Default none.
    #[serde(with = "values::empty_is_none")]
    pub key: Option<PathBuf>,
    /// How often the files are looked at for changes. Default 10 s.
    pub reload_interval: Period,
}

/// `[drain]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// How long the server reports "not ready" and still accepts before it stops accepting. Default 5 s.
    pub ready_wait: Period,
    /// Over how long the closing of connections is spread. Default 30 s.
    pub window: Period,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How a line looks. Default `human`.
    pub format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as
    /// `info,signaling_server::access=debug`. Default `info`.
    pub level: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line, for log collectors.
    Json,
}

impl Config {
    /// `[relay]` as it applies: without rates if `limits.enabled` is false.
    pub fn relay_in_force(&self) -> RelayConfig {
        if self.limits.enabled {
            return self.relay.clone();
        }
        RelayConfig { updates_per_second: 0, bytes_per_second: Size::bytes(0), ..self.relay.clone() }
    }
}

impl LimitsConfig {
    /// These limits as they apply: with `enabled = false`, every rate and count is 0, which means "no limit".
    pub fn in_force(&self) -> LimitsConfig {
        if self.enabled {
            return self.clone();
        }
        LimitsConfig {
            subscribers_per_room: 0,
            connections_per_address: 0,
            connections: ConnectionCap::At(0),
            upgrades_per_second: 0,
            ice_per_minute: 0,
            messages_per_second: 0,
            bytes_per_second: Size::bytes(0),
            ..self.clone()
        }
    }
}

impl TlsConfig {
    /// The certificate and key files, if this server speaks TLS.
    pub fn files(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.cert.as_ref().zip(self.key.as_ref())
    }
}
