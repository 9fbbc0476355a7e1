//! What must hold between and beyond single values. Files are read later, by whoever needs them.

use tracing_subscriber::filter::{LevelFilter, Targets};

use turn_config::credential::{SharedSecret, Ttl};
use turn_config::ice::MAX_SERVERS;
use turn_config::url::{StunUrl, TurnUrl};

use super::{
    AccessConfig, AccessMode, Config, IceConfig, LimitsConfig, Period, ProxyProtocol, RelayConfig, RelayMode,
    Size,
};

/// A key at fault, and what was expected of it.
pub(super) struct Fault {
    pub(super) key: &'static str,
    /// The key it is measured by: if nobody set `key`, whoever set this one made the mistake.
    pub(super) measure: Option<&'static str>,
    pub(super) problem: String,
}

/// Below this not even a WebRTC offer fits.
const LEAST_MESSAGE: Size = Size::kib(4);
const MOST_MESSAGE: Size = Size::kib(64 * 1024);
/// Scanning takes stack or memory for each level.
const MOST_DEPTH: usize = 1024;
/// The longest frame of the Loro Protocol has to fit into a room, and into what waits to be written.
const LEAST_STORED: Size = Size::kib(256);
const MOST_SYNC_INTERVAL: Period = Period::seconds(1);
/// What the database takes as one snapshot.
const MOST_STORED: Size = Size::kib(512 * 1024);

pub(super) fn check(config: &Config) -> Result<(), Fault> {
    nonzero("signaling.ping_interval", config.signaling.ping_interval)?;
    if config.signaling.dead_after <= config.signaling.ping_interval {
        let found = config.signaling.dead_after;
        let problem = format!("expected longer than signaling.ping_interval, found {found}");
        return mismatch("signaling.dead_after", "signaling.ping_interval", problem);
    }
    if config.signaling.learned_ids == 0 {
        return fault("signaling.learned_ids", "expected at least 1, found 0");
    }
    nonzero("access.reload_interval", config.access.reload_interval)?;
    nonzero("tls.reload_interval", config.tls.reload_interval)?;
    if config.proxy.protocol == ProxyProtocol::V2 && config.proxy.trusted.is_empty() {
        return fault("proxy.protocol", "\"v2\" expects proxy.trusted to name the proxies");
    }
    check_access(&config.access)?;
    check_ice(&config.ice)?;
    check_relay(&config.relay)?;
    check_limits(&config.limits)?;
    check_level(&config.log.level)
}

fn check_access(access: &AccessConfig) -> Result<(), Fault> {
    let mode = access.mode;
    // A token or key that is set and not asked for would leave a server open that its owner believes closed.
    let unused = [
        ("access.tokens", !access.tokens.is_empty(), AccessMode::Tokens),
        ("access.tokens_file", access.tokens_file.is_some(), AccessMode::Tokens),
        ("access.keys_file", access.keys_file.is_some(), AccessMode::Signed),
        ("access.jwks_file", access.jwks_file.is_some(), AccessMode::Signed),
    ];
    if let Some((key, _, wanted)) = unused.iter().find(|(_, is_set, wanted)| *is_set && mode != *wanted) {
        let wanted = format!("{wanted:?}").to_ascii_lowercase();
        return fault(key, format!("is set and not used: expected access.mode = \"{wanted}\""));
    }
    if access.cookie.is_empty() || !access.cookie.bytes().all(is_cookie_name_byte) {
        return fault("access.cookie", format!("expected the name of a cookie, found {:?}", access.cookie));
    }
    match access.origins.iter().find(|origin| !is_origin(origin)) {
        Some(origin) => fault(
            "access.origins",
            format!("expected origins such as \"https://app.example.com\", without a path, found {origin:?}"),
        ),
        None => Ok(()),
    }
}

fn is_cookie_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_origin(text: &str) -> bool {
    let host = text.split_once("://").map(|(_, host)| host);
    matches!(text, "null" | "*") || host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
}

fn check_ice(ice: &IceConfig) -> Result<(), Fault> {
    for (key, len) in [("ice.stun", ice.stun.len()), ("ice.turn", ice.turn.len())] {
        if len > MAX_SERVERS {
            return fault(key, format!("expected at most {MAX_SERVERS}, found {len}"));
        }
    }
    if let Some(error) = ice.stun.iter().find_map(|url| url.parse::<StunUrl>().err()) {
        return fault("ice.stun", error.to_string());
    }
    if let Some(error) = ice.turn.iter().find_map(|url| url.parse::<TurnUrl>().err()) {
        return fault("ice.turn", error.to_string());
    }
    if let Some(error) = ice.secrets.iter().find_map(|secret| SharedSecret::new(secret.reveal()).err()) {
        return fault("ice.secrets", error.to_string());
    }
    check_ice_secrets(ice)?;
    if let Err(error) = Ttl::new(ice.ttl.duration()) {
        return fault("ice.ttl", error.to_string());
    }
    nonzero("ice.reload_interval", ice.reload_interval)
}

fn check_ice_secrets(ice: &IceConfig) -> Result<(), Fault> {
    let (inline, files, servers) = (ice.secrets.len(), ice.secret_files.len(), ice.turn.len());
    let key = if inline > 0 { "ice.secrets" } else { "ice.secret_files" };
    if inline > 0 && files > 0 {
        return fault("ice.secrets", "expected either these or ice.secret_files, found both");
    }
    match inline + files {
        0 if servers > 0 => {
            let problem = "ice.turn expects the secret shared with its servers, here or in ice.secrets";
            mismatch(key, "ice.turn", problem.to_owned())
        }
        0 => Ok(()),
        _ if servers == 0 => fault(key, "is set and not used: expected ice.turn to name the servers"),
        secrets if secrets == 1 || secrets == servers => Ok(()),
        secrets => fault(
            key,
            format!(
                "expected one for all or one for each of the {servers} entries of ice.turn, found {secrets}"
            ),
        ),
    }
}

fn check_relay(relay: &RelayConfig) -> Result<(), Fault> {
    match (relay.mode, &relay.data_dir) {
        (RelayMode::Disk, None) => {
            return mismatch(
                "relay.data_dir",
                "relay.mode",
                "relay.mode = \"disk\" expects a directory here".to_owned(),
            );
        }
        (RelayMode::Off | RelayMode::Memory, Some(_)) => {
            return fault("relay.data_dir", "is set and not used: expected relay.mode = \"disk\"");
        }
        _ => {}
    }
    let room = relay.bytes_per_room;
    if room < LEAST_STORED || room > MOST_STORED {
        return fault(
            "relay.bytes_per_room",
            format!("expected {LEAST_STORED} to {MOST_STORED}, found {room}"),
        );
    }
    if relay.bytes.get() > 0 && relay.bytes < room {
        let found = relay.bytes;
        let problem = format!("expected 0 or at least relay.bytes_per_room, which is {room}, found {found}");
        return mismatch("relay.bytes", "relay.bytes_per_room", problem);
    }
    let log = relay.compact_after;
    if log.get() == 0 {
        return fault("relay.compact_after", "expected at least 1, found 0");
    }
    if log >= room {
        let problem = format!("expected less than relay.bytes_per_room, which is {room}, found {log}");
        return mismatch("relay.compact_after", "relay.bytes_per_room", problem);
    }
    if relay.write_queue < LEAST_STORED {
        let found = relay.write_queue;
        return fault("relay.write_queue", format!("expected at least {LEAST_STORED}, found {found}"));
    }
    if relay.updates_burst == 0 {
        return fault("relay.updates_burst", "expected at least 1, found 0");
    }
    if relay.bytes_burst < LEAST_STORED {
        let found = relay.bytes_burst;
        return fault("relay.bytes_burst", format!("expected at least {LEAST_STORED}, found {found}"));
    }
    // Longer, and a client takes an update that is not acknowledged for one that is lost.
    if relay.sync_interval > MOST_SYNC_INTERVAL {
        let found = relay.sync_interval;
        return fault("relay.sync_interval", format!("expected at most {MOST_SYNC_INTERVAL}, found {found}"));
    }
    Ok(())
}

fn check_limits(limits: &LimitsConfig) -> Result<(), Fault> {
    let message = limits.max_message;
    if message < LEAST_MESSAGE || message > MOST_MESSAGE {
        return fault(
            "limits.max_message",
            format!("expected {LEAST_MESSAGE} to {MOST_MESSAGE}, found {message}"),
        );
    }
    for (key, size) in
        [("limits.outbound_queue", limits.outbound_queue), ("limits.bytes_burst", limits.bytes_burst)]
    {
        if size < message {
            let problem = format!("expected at least limits.max_message, which is {message}, found {size}");
            return mismatch(key, "limits.max_message", problem);
        }
    }
    for (key, bound) in [
        ("limits.topics_per_connection", limits.topics_per_connection),
        ("limits.topic_name", limits.topic_name.get()),
        ("limits.outbound_frames", limits.outbound_frames),
        ("limits.json_depth", limits.json_depth),
        ("limits.upgrades_burst", limits.upgrades_burst as usize),
        ("limits.messages_burst", limits.messages_burst as usize),
    ] {
        if bound == 0 {
            return fault(key, "expected at least 1, found 0");
        }
    }
    if limits.json_depth > MOST_DEPTH {
        return fault(
            "limits.json_depth",
            format!("expected at most {MOST_DEPTH}, found {}", limits.json_depth),
        );
    }
    nonzero("limits.write_deadline", limits.write_deadline)?;
    nonzero("limits.handshake_deadline", limits.handshake_deadline)
}

fn check_level(level: &str) -> Result<(), Fault> {
    let is_level = |text: &str| text.parse::<LevelFilter>().is_ok();
    let parts: Vec<&str> = level.split(',').collect();
    let sound = parts.iter().all(|part| is_level(part.split_once('=').map_or(*part, |(_, level)| level)));
    match level.parse::<Targets>() {
        Ok(_) if sound => Ok(()),
        _ => fault(
            "log.level",
            format!(
                "expected error, warn, info, debug, trace or a filter such as \"info,signaling_server::access=debug\", found {level:?}"
            ),
        ),
    }
}

fn nonzero(key: &'static str, period: Period) -> Result<(), Fault> {
    if period.duration().is_zero() { fault(key, "expected a duration longer than 0") } else { Ok(()) }
}

fn fault(key: &'static str, problem: impl Into<String>) -> Result<(), Fault> {
    Err(Fault { key, measure: None, problem: problem.into() })
}

fn mismatch(key: &'static str, measure: &'static str, problem: String) -> Result<(), Fault> {
    Err(Fault { key, measure: Some(measure), problem })
}
