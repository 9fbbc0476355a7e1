//! Each section of a description: its keys, their limits, and what its values must not do together.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use toml::Spanned;
use toml::de::DeTable;

use super::problem::{Problems, Refusal};
use super::reader::{Reader, Section, Span};
use super::{Description, External, Listen, Peers, Process, Quotas, Relay, Tls};
use crate::credential::SharedSecret;

/// The longest list of addresses, and of ranges.
const MAX_LIST: usize = 256;
/// Below are the ports of other services, and they need privileges.
const MIN_RELAY_PORT: u64 = 1024;
const PORTS_END: u64 = 65536;
const MAX_SESSIONS_END: u64 = 1_000_001;
const MAX_RATE_END: u64 = 100_000_000_001;

pub(super) fn read(text: &str, base: &Path) -> Result<Description, Problems> {
    let mut reader = Reader::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            reader.refuse(&error.span().unwrap_or(0..0), Refusal::Syntax(error.message().to_owned()));
        }
        return Err(Problems(reader.into_problems()));
    }
    let description = read_sections(&mut reader, Section::root(&table), base);
    let problems = reader.into_problems();
    match description {
        Some(description) if problems.is_empty() => Ok(description),
        _ => Err(Problems(problems)),
    }
}

fn read_sections<'t>(reader: &mut Reader<'t>, mut root: Section<'t>, base: &Path) -> Option<Description> {
    let realm = realm(reader, &mut root);
    let tls_section = root.section(reader, "tls");
    let tls = tls(reader, tls_section, base);
    let relay_section = root.section(reader, "relay");
    let (relay, ports_at) = relay(reader, relay_section);
    let listen_section = root.section(reader, "listen");
    let listen = listen(reader, listen_section, &relay, &ports_at);
    let secrets_section = root.section(reader, "secrets");
    let secrets = secrets(reader, secrets_section, base);
    let quotas_section = root.section(reader, "quotas");
    let quotas = quotas(reader, quotas_section);
    let peers_section = root.section(reader, "peers");
    let peers = peers(reader, peers_section);
    let mut metrics_section = root.section(reader, "metrics");
    let metrics = metrics_section.parsed(reader, "listen", "an address and port such as \"127.0.0.1:9641\"");
    metrics_section.finish(reader);
    let process_section = root.section(reader, "process");
    let process = process(reader, process_section, base);
    root.finish(reader);
    let metrics = metrics.map(Spanned::into_inner);
    Some(Description { realm: realm?, listen, relay, tls, secrets, quotas, peers, metrics, process })
}

fn realm<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> Option<String> {
    let Some(realm) = root.text(reader, "realm") else {
        root.missing(reader, "realm");
        return None;
    };
    let fits = |text: &str| {
        (1..=127).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !fits(realm.get_ref()) {
        let expected = "a domain name of 1 to 127 bytes";
        let refusal = Refusal::Unreadable { key: "realm".into(), value: realm.get_ref().clone(), expected };
        reader.refuse(&realm.span(), refusal);
    }
    Some(realm.into_inner())
}

fn listen<'t>(reader: &mut Reader<'t>, mut section: Section<'t>, relay: &Relay, ports_at: &Span) -> Listen {
    let default = Listen::default();
    let addresses = addresses(reader, &mut section, "listen.addresses");
    let mut port = |key, default: u16| {
        let given = section.number(reader, key, 1..PORTS_END);
        let at = given.as_ref().map_or_else(|| ports_at.clone(), Spanned::span);
        let port = given.map_or(default, Spanned::into_inner);
        if (relay.first_port..=relay.last_port).contains(&port) {
            let (first, last) = (relay.first_port, relay.last_port);
            reader.refuse(&at, Refusal::PortOverlap { key, port, first, last });
        }
        (port, at)
    };
    let (plain, _) = port("port", default.port);
    let (tls_port, at) = port("tls_port", default.tls_port);
    if plain == tls_port {
        reader.refuse(&at, Refusal::PortTwice(plain));
    }
    section.finish(reader);
    Listen { addresses, port: plain, tls_port }
}

/// The relay section, and where its ports stand.
fn relay<'t>(reader: &mut Reader<'t>, mut section: Section<'t>) -> (Relay, Span) {
    let default = Relay::default();
    let addresses = addresses(reader, &mut section, "relay.addresses");
    let external =
        section.list(reader, "external", "\"PUBLIC\" or \"PUBLIC/PRIVATE\", two addresses of one family");
    check_external(reader, &external);
    let first = section.number(reader, "first_port", MIN_RELAY_PORT..PORTS_END);
    let last = section.number(reader, "last_port", MIN_RELAY_PORT..PORTS_END);
    let at = last.as_ref().or(first.as_ref()).map_or(0..0, Spanned::span);
    let first_port = first.map_or(default.first_port, Spanned::into_inner);
    let last_port = last.map_or(default.last_port, Spanned::into_inner);
    if first_port > last_port {
        reader.refuse(&at, Refusal::PortsReversed { first: first_port, last: last_port });
    }
    section.finish(reader);
    let external = external.into_iter().map(Spanned::into_inner).collect();
    (Relay { addresses, external, first_port, last_port }, at)
}

fn addresses<'t>(reader: &mut Reader<'t>, section: &mut Section<'t>, key: &'static str) -> Vec<IpAddr> {
    let found: Vec<Spanned<IpAddr>> = section.list(reader, "addresses", "IP addresses such as \"192.0.2.1\"");
    limit_list(reader, key, &found);
    let mut addresses = Vec::new();
    for address in found {
        let reason = if address.get_ref().is_unspecified() {
            "which stands for all addresses; leave the list empty for that"
        } else if address.get_ref().is_multicast() {
            "which is a multicast group"
        } else if addresses.contains(address.get_ref()) {
            "which is there already"
        } else {
            addresses.push(address.into_inner());
            continue;
        };
        reader.refuse(
            &address.span(),
            Refusal::Address { key, address: address.get_ref().to_string(), reason },
        );
    }
    addresses
}

fn check_external(reader: &mut Reader<'_>, external: &[Spanned<External>]) {
    let key = "relay.external";
    limit_list(reader, key, external);
    for (index, entry) in external.iter().enumerate() {
        let public = entry.get_ref().public;
        let reason = if public.is_unspecified() || public.is_loopback() || public.is_multicast() {
            "which nobody outside can reach"
        } else if external.len() > 1 && entry.get_ref().private.is_none() {
            "which needs its private address (\"PUBLIC/PRIVATE\"), because there are several"
        } else if external[..index].iter().any(|earlier| earlier.get_ref().public == public) {
            "which is there already"
        } else {
            continue;
        };
        reader.refuse(&entry.span(), Refusal::Address { key, address: public.to_string(), reason });
    }
}

impl FromStr for External {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let Some((public, private)) = text.split_once('/') else {
            return Ok(Self { public: text.parse().map_err(|_| ())?, private: None });
        };
        let public: IpAddr = public.parse().map_err(|_| ())?;
        let private: IpAddr = private.parse().map_err(|_| ())?;
        if public.is_ipv4() == private.is_ipv4() {
            Ok(Self { public, private: Some(private) })
        } else {
            Err(())
        }
    }
}

fn tls<'t>(reader: &mut Reader<'t>, mut section: Section<'t>, base: &Path) -> Option<Tls> {
    if !section.is_there() {
        return None;
    }
    let certificate = file(reader, &mut section, "certificate", base);
    let key = file(reader, &mut section, "key", base);
    section.finish(reader);
    let (certificate, key) = (certificate?, key?);
    let chain = read_certificates(certificate.get_ref());
    if let Err(reason) = &chain {
        refuse_file(reader, "tls.certificate", &certificate, reason.clone());
    }
    let private = read_key(key.get_ref());
    match (chain, private) {
        (Ok(chain), Ok(private)) => {
            if let Err(reason) = key_fits(chain, private) {
                refuse_file(reader, "tls.key", &key, reason);
            }
        }
        (_, Err(reason)) => refuse_file(reader, "tls.key", &key, reason),
        _ => {}
    }
    Some(Tls { certificate: certificate.into_inner(), key: key.into_inner() })
}

fn file<'t>(
    reader: &mut Reader<'t>,
    section: &mut Section<'t>,
    key: &'static str,
    base: &Path,
) -> Option<Spanned<PathBuf>> {
    let Some(text) = section.text(reader, key) else {
        section.missing(reader, key);
        return None;
    };
    path(reader, key, &text, base)
}

/// A path as coturn will read it back: absolute, and without what ends a line or a value there.
fn path(reader: &mut Reader<'_>, key: &str, text: &Spanned<String>, base: &Path) -> Option<Spanned<PathBuf>> {
    let joined = std::path::absolute(base.join(text.get_ref())).ok();
    let usable = joined.filter(|path| {
        path.to_str()
            .is_some_and(|path| !path.contains(['"', '\'', ' ', '#']) && !path.contains(char::is_control))
    });
    if usable.is_none() || text.get_ref().is_empty() {
        let expected = "a path without spaces, quotation marks and '#'";
        let refusal = Refusal::Unreadable { key: key.to_owned(), value: text.get_ref().clone(), expected };
        reader.refuse(&text.span(), refusal);
        return None;
    }
    Some(Spanned::new(text.span(), usable?))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if chain.is_empty() { Err("has no certificate in PEM form".to_owned()) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("cannot be read: {error}"))
}

fn key_fits(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), String> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = rustls::sign::CertifiedKey::from_der(chain, key, &provider);
    certified.map(|_| ()).map_err(|error| format!("does not go with the certificate: {error}"))
}

fn refuse_file(reader: &mut Reader<'_>, key: &'static str, path: &Spanned<PathBuf>, reason: String) {
    reader.refuse(&path.span(), Refusal::File { key, path: path.get_ref().clone(), reason });
}

fn secrets<'t>(reader: &mut Reader<'t>, mut section: Section<'t>, base: &Path) -> Vec<SharedSecret> {
    let mut found = Vec::new();
    for text in section.texts(reader, "files") {
        let Some(path) = path(reader, "secrets.files", &text, base) else { continue };
        found.push(Spanned::new(text.span(), SharedSecret::read(path.get_ref())));
    }
    let inline = section.texts(reader, "values");
    found.extend(inline.iter().map(|text| Spanned::new(text.span(), SharedSecret::new(text.get_ref()))));
    if found.is_empty() {
        section.missing(reader, "files");
    }
    if let Some(third) = found.get(2) {
        reader.refuse(&third.span(), Refusal::TooMany { key: "secrets", len: found.len(), limit: 2 });
    }
    section.finish(reader);
    let mut secrets = Vec::new();
    for secret in found {
        let at = secret.span();
        match secret.into_inner() {
            Ok(secret) if secrets.contains(&secret) => reader.refuse(&at, Refusal::SecretTwice),
            Ok(secret) => secrets.push(secret),
            Err(error) => reader.refuse(&at, Refusal::Secret(error)),
        }
    }
    secrets
}

fn quotas<'t>(reader: &mut Reader<'t>, mut section: Section<'t>) -> Quotas {
    let default = Quotas::default();
    let per_user = section.number(reader, "per_user", 1..MAX_SESSIONS_END);
    let total = section.number(reader, "total", 1..MAX_SESSIONS_END);
    let session = section.number(reader, "session_bytes_per_second", 1000..MAX_RATE_END);
    let capacity = section.number::<u64>(reader, "total_bytes_per_second", 0..MAX_RATE_END);
    let at = capacity.as_ref().map(Spanned::span);
    let quotas = Quotas {
        per_user: per_user.map_or(default.per_user, Spanned::into_inner),
        total: total.map_or(default.total, Spanned::into_inner),
        session_bytes_per_second: session.map_or(default.session_bytes_per_second, Spanned::into_inner),
        total_bytes_per_second: capacity.map_or(default.total_bytes_per_second, Spanned::into_inner),
    };
    let (each, total) = (quotas.session_bytes_per_second, quotas.total_bytes_per_second);
    let fit = total / each;
    if let Some(at) = at.filter(|_| total > 0 && fit < u64::from(quotas.total)) {
        reader.refuse(&at, Refusal::CapacityBelowQuota { total, each, fit, quota: quotas.total });
    }
    section.finish(reader);
    quotas
}

fn peers<'t>(reader: &mut Reader<'t>, mut section: Section<'t>) -> Peers {
    let expected = "networks such as \"10.1.2.0/24\" or single addresses";
    let allow: Vec<Spanned<Range>> = section.list(reader, "allow", expected);
    let deny: Vec<Spanned<Range>> = section.list(reader, "deny", expected);
    section.finish(reader);
    check_ranges(reader, "peers.allow", &allow);
    check_ranges(reader, "peers.deny", &deny);
    for denied in &deny {
        let denied_net = denied.get_ref().0;
        if let Some(allowed) = allow.iter().find(|allowed| allowed.get_ref().0.contains(&denied_net)) {
            let refusal = Refusal::DenyInsideAllow { denied: denied_net, allowed: allowed.get_ref().0 };
            reader.refuse(&denied.span(), refusal);
        }
    }
    let networks =
        |ranges: Vec<Spanned<Range>>| ranges.into_iter().map(|range| range.into_inner().0).collect();
    Peers { allow: networks(allow), deny: networks(deny) }
}

fn check_ranges(reader: &mut Reader<'_>, list: &'static str, ranges: &[Spanned<Range>]) {
    limit_list(reader, list, ranges);
    for (index, range) in ranges.iter().enumerate() {
        let second = range.get_ref().0;
        if second != second.trunc() {
            reader.refuse(&range.span(), Refusal::HostBits { given: second, network: second.trunc() });
        }
        if is_everything_to_coturn(&second) {
            let reason = "which coturn takes for every address there is, IPv4 and IPv6";
            reader.refuse(&range.span(), Refusal::Address { key: list, address: second.to_string(), reason });
        }
        let overlaps = |first: &IpNet| first.contains(&second) || second.contains(first);
        if let Some(first) = ranges[..index].iter().map(|range| range.get_ref().0).find(overlaps) {
            reader.refuse(&range.span(), Refusal::RangesOverlap { list, first, second });
        }
    }
}

/// coturn compares an end of a range that is all zeros with nothing, not even the family of the address.
fn is_everything_to_coturn(net: &IpNet) -> bool {
    net.broadcast().is_unspecified() || (net.network().is_ipv6() && net.network().is_unspecified())
}

/// A network, or a single address for the network of its own.
#[derive(Clone, Copy)]
struct Range(IpNet);

impl FromStr for Range {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map(Range).map_err(|_| ())
    }
}

fn process<'t>(reader: &mut Reader<'t>, mut section: Section<'t>, base: &Path) -> Process {
    let mut process = Process::default();
    if let Some(log) = section.text(reader, "log") {
        let named = ["stdout", "syslog"].contains(&log.get_ref().as_str());
        let file = if named { None } else { path(reader, "process.log", &log, base) };
        process.log = file.map_or(log.into_inner(), |file| file.get_ref().display().to_string());
    }
    if let Some(file) = section.text(reader, "pid_file") {
        process.pid_file = path(reader, "process.pid_file", &file, base).map(Spanned::into_inner);
    }
    section.finish(reader);
    process
}

fn limit_list<T>(reader: &mut Reader<'_>, key: &'static str, list: &[Spanned<T>]) {
    if let Some(first_beyond) = list.get(MAX_LIST) {
        reader.refuse(&first_beyond.span(), Refusal::TooMany { key, len: list.len(), limit: MAX_LIST });
    }
}
