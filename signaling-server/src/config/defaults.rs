//! The defaults: what runs on a laptop, and on the internet without falling over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    AccessConfig, AccessMode, Algorithm, ConnectionCap, Delivery, DrainConfig, Endpoint, IceConfig,
    LimitsConfig, LogConfig, LogFormat, MetricsConfig, Period, ServerConfig, SignalingConfig, Size,
    TlsConfig,
};

impl Default for ServerConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 4444) }
    }
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: Endpoint::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464)) }
    }
}

impl Default for SignalingConfig {
    fn default() -> Self {
        Self {
            delivery: Delivery::Directed,
            echo: true,
            ping_interval: Period::seconds(30),
            dead_after: Period::seconds(60),
            learned_ids: 16,
        }
    }
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            mode: AccessMode::Open,
            tokens: Vec::new(),
            tokens_file: None,
            keys_file: None,
            jwks_file: None,
            reload_interval: Period::seconds(10),
            algorithms: vec![Algorithm::HS256, Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256],
            audience: None,
            issuer: None,
            leeway: Period::seconds(60),
            cookie: "signaling_token".to_owned(),
            origins: Vec::new(),
        }
    }
}

impl Default for IceConfig {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            turn: Vec::new(),
            secrets: Vec::new(),
            secret_files: Vec::new(),
            ttl: Period::seconds(3600),
            reload_interval: Period::seconds(10),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            max_message: Size::kib(256),
            topics_per_connection: 128,
            topic_name: Size::bytes(512),
            subscribers_per_room: 1024,
            connections_per_address: 64,
            connections: ConnectionCap::Auto,
            upgrades_per_second: 20,
            upgrades_burst: 100,
            ice_per_minute: 20,
            messages_per_second: 20,
            messages_burst: 200,
            bytes_per_second: Size::kib(256),
            bytes_burst: Size::kib(1024),
            outbound_queue: Size::kib(1024),
            outbound_frames: 1024,
            write_deadline: Period::seconds(10),
            handshake_deadline: Period::seconds(10),
            json_depth: 64,
        }
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { cert: None, key: None, reload_interval: Period::seconds(10) }
    }
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { ready_wait: Period::seconds(5), window: Period::seconds(30) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".to_owned() }
    }
}
