//! The `turnserver.conf` of a description: the same lines in the same order every time, each under its reason.

use std::fmt::{Display, Write as _};
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use ipnet::IpNet;

use crate::description::{Description, Peers, Quotas, Relay};

/// What is never relayed to unless a description allows it: networks behind the server, addresses that reach one of
/// those in another spelling, and the services in which clouds keep the credentials of their machines. Multicast is
/// refused by a setting of its own. The address `::` is not in the list, because coturn refuses it anyway and takes a
/// range that begins there for one that IPv4 addresses are in as well.
pub const DENIED: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this machine, under the name of no address"),
    ("10.0.0.0/8", "private (RFC 1918)"),
    ("100.64.0.0/10", "carrier NAT (RFC 6598), and the metadata service of Alibaba"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "the platform service of Azure, which answers machines inside only"),
    ("169.254.0.0/16", "link-local, and the metadata service 169.254.169.254 of most clouds"),
    ("172.16.0.0/12", "private (RFC 1918)"),
    ("192.0.0.0/24", "protocol assignments, and the metadata service of Oracle"),
    ("192.88.99.0/24", "6to4 relays, which lead into IPv6 unchecked"),
    ("192.168.0.0/16", "private (RFC 1918)"),
    ("198.18.0.0/15", "benchmarking networks (RFC 2544)"),
    ("240.0.0.0/4", "reserved, and broadcast"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "IPv4 in IPv6 spelling"),
    ("64:ff9b::/96", "NAT64: any IPv4 address, the private ones too"),
    ("64:ff9b:1::/48", "NAT64 of a local network (RFC 8215)"),
    ("2001::/32", "Teredo: any IPv4 address"),
    ("2002::/16", "6to4: any IPv4 address, the private ones too"),
    ("fc00::/7", "unique local, and the metadata services fd00:ec2::254 and fd20:ce::254"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local, as private networks were once numbered"),
];

/// Renders the configuration. It contains the secrets: [`write`](write_private) it where only coturn can read it.
pub fn render(description: &Description) -> String {
    let mut conf = Conf::default();
    conf.title("turnserver.conf, rendered by turn-config; change the description and render again.");
    who(&mut conf, description);
    listening(&mut conf, description);
    relaying(&mut conf, &description.relay);
    transport_security(&mut conf, description);
    peers(&mut conf, &description.peers);
    quotas(&mut conf, &description.quotas);
    surface(&mut conf, description);
    process(&mut conf, description);
    conf.text
}

fn who(conf: &mut Conf, description: &Description) {
    conf.section("Who may use this server");
    conf.flag(
        "Credentials that expire, computed from a shared secret; there are no static users.",
        "use-auth-secret",
    );
    let reasons =
        ["New credentials are minted with this secret.", "Credentials minted before the change still work."];
    for (secret, reason) in description.secrets.iter().zip(reasons) {
        conf.set(reason, "static-auth-secret", secret.expose());
    }
    conf.set("Named in every challenge; part of what a client signs.", "realm", &description.realm);
    conf.set(
        "A database would be a second place for users and secrets; this one is empty.",
        "userdb",
        ":memory:",
    );
    conf.set("A challenge that was overheard is worthless after ten minutes.", "stale-nonce", 600);
}

fn listening(conf: &mut Conf, description: &Description) {
    conf.section("Where clients connect");
    for address in &description.listen.addresses {
        conf.set("Listens here.", "listening-ip", address);
    }
    conf.set("TURN and STUN over UDP and TCP.", "listening-port", description.listen.port);
    if description.tls.is_some() {
        conf.set("TURN over TLS.", "tls-listening-port", description.listen.tls_port);
    }
    conf.flag("Lets clients tell STUN from what else arrives on a socket.", "fingerprint");
}

fn relaying(conf: &mut Conf, relay: &Relay) {
    conf.section("Where relayed traffic leaves");
    for address in &relay.addresses {
        conf.set("Relays from here.", "relay-ip", address);
    }
    for external in &relay.external {
        let value = match external.private {
            Some(private) => format!("{}/{private}", external.public),
            None => external.public.to_string(),
        };
        conf.set(
            "What peers are told, because the machine itself has another address.",
            "external-ip",
            value,
        );
    }
    conf.set("First relay port; the firewall opens UDP from here,", "min-port", relay.first_port);
    conf.set("to here. Each relayed session takes one.", "max-port", relay.last_port);
    conf.flag("Browsers relay UDP only; TCP towards peers would be a port scanner.", "no-tcp-relay");
}

fn transport_security(conf: &mut Conf, description: &Description) {
    conf.section("TLS");
    match &description.tls {
        Some(tls) => {
            conf.set("The certificate chain for turns: URLs.", "cert", tls.certificate.display());
            conf.set("Its private key.", "pkey", tls.key.display());
            conf.flag("TLS 1.2 is the oldest that is safe.", "no-tlsv1");
            conf.flag("TLS 1.2 is the oldest that is safe.", "no-tlsv1_1");
        }
        None => conf.flag("No certificate, so no turns: URLs.", "no-tls"),
    }
    conf.flag("No browser speaks TURN over DTLS, and answering it amplifies forged packets.", "no-dtls");
}

fn peers(conf: &mut Conf, peers: &Peers) {
    conf.section("To whom traffic may be relayed: a relay into the operator's own network is a hole");
    conf.flag("Nobody reviews a plan with a multicast group.", "no-multicast-peers");
    let loopback = |net: &&IpNet| net.contains(&first_loopback(net));
    if peers.allow.iter().any(|net| loopback(&net)) {
        conf.flag(
            "A loopback range is allowed below; coturn wants to be told twice.",
            "allow-loopback-peers",
        );
    }
    for net in &peers.allow {
        conf.set("Allowed on purpose; wins over what is denied.", "allowed-peer-ip", range(net));
    }
    for (net, reason) in DENIED {
        let net = net.parse().expect("the table holds networks");
        conf.set(&format!("{net}: {reason}."), "denied-peer-ip", range(&net));
    }
    for net in &peers.deny {
        conf.set("Denied by the description.", "denied-peer-ip", range(net));
    }
}

fn quotas(conf: &mut Conf, quotas: &Quotas) {
    conf.section("How much may be used");
    conf.set("Sessions one user id may have at once.", "user-quota", quotas.per_user);
    conf.set("Sessions in all.", "total-quota", quotas.total);
    conf.set(
        "Bytes a second of one session in each direction; more is dropped.",
        "max-bps",
        quotas.session_bytes_per_second,
    );
    if quotas.total_bytes_per_second > 0 {
        conf.set(
            "Bytes a second of all sessions; each sets its full share aside when it begins.",
            "bps-capacity",
            quotas.total_bytes_per_second,
        );
    }
}

fn surface(conf: &mut Conf, description: &Description) {
    conf.section("What else could be spoken to");
    conf.flag("No remote console.", "no-cli");
    conf.flag("Strangers are not told the version.", "no-software-attribute");
    conf.flag("Longer answers to forged packets help nobody but an attacker.", "no-rfc5780");
    conf.flag(
        "Longer answers to forged packets help nobody but an attacker.",
        "no-stun-backward-compatibility",
    );
    conf.flag(
        "Longer answers to forged packets help nobody but an attacker.",
        "response-origin-only-with-rfc5780",
    );
    conf.flag("Peer ranges come from this file alone.", "no-dynamic-ip-list");
    conf.flag("The realm comes from this file alone.", "no-dynamic-realms");
    if let Some(address) = description.metrics {
        conf.flag(
            "Metrics for Prometheus; without prometheus-username-labels no user name is in them.",
            "prometheus",
        );
        conf.set("Metrics are for operators: not on a public address.", "prometheus-address", address.ip());
        conf.set("Metrics are for operators: not on a public address.", "prometheus-port", address.port());
    }
}

fn process(conf: &mut Conf, description: &Description) {
    conf.section("The process");
    match description.process.log.as_str() {
        "syslog" => conf.flag("Logs to the system log.", "syslog"),
        log => {
            conf.set("Logs here.", "log-file", log);
            conf.flag("Logs under this very name, so that others can rotate the file.", "simple-log");
        }
    }
    if let Some(file) = &description.process.pid_file {
        conf.set("The process id, for whoever starts and stops it.", "pidfile", file.display());
    }
}

/// Writes a rendered configuration so that a reader sees the old file or the new one and never a part: beside it
/// first, then renamed over it. A new file is readable by its owner alone (0600); an old one keeps mode, owner and
/// group, so that coturn can go on reading it.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".turn-config-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    if let Ok(old) = fs::metadata(path) {
        // Owner first: changing it may take bits of the mode away.
        chown(file.path(), Some(old.uid()), Some(old.gid()))?;
        fs::set_permissions(file.path(), Permissions::from_mode(old.mode() & 0o777))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// coturn reads `first-last`, and a single address as itself.
fn range(net: &IpNet) -> String {
    let (first, last) = match net {
        IpNet::V4(net) => (IpAddr::from(net.network()), IpAddr::from(net.broadcast())),
        IpNet::V6(net) => (IpAddr::from(net.network()), IpAddr::from(net.broadcast())),
    };
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn first_loopback(net: &IpNet) -> IpAddr {
    let loopback: IpNet = match net {
        IpNet::V4(_) => "127.0.0.0/8".parse().expect("a network"),
        IpNet::V6(_) => "::1/128".parse().expect("a network"),
    };
    if loopback.contains(&net.network()) { net.network() } else { loopback.network() }
}

#[derive(Default)]
struct Conf {
    text: String,
}

impl Conf {
    fn title(&mut self, title: &str) {
        self.push(format_args!("# {title}"));
    }

    fn section(&mut self, title: &str) {
        self.push(format_args!("\n## {title}"));
    }

    fn flag(&mut self, reason: &str, name: &str) {
        self.push(format_args!("# {reason}\n{name}"));
    }

    fn set(&mut self, reason: &str, name: &str, value: impl Display) {
        self.push(format_args!("# {reason}\n{name}={value}"));
    }

    fn push(&mut self, lines: std::fmt::Arguments<'_>) {
        self.text.write_fmt(lines).expect("a String takes everything");
        self.text.push('\n');
    }
}
