//! A coturn of its own for one test, on loopback, from a rendered description.

use std::fs;
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use turn_config::credential::{OpaqueId, SharedSecret, Ttl, mint};
use turn_config::description::Description;
use turn_config::probe::{Login, Settings, Trust, TurnClient};
use turn_config::render::{render, write_private};
use turn_config::url::{Transport, TurnUrl};

/// How long coturn may take to come up on a busy machine.
const STARTUP: Duration = Duration::from_secs(30);

/// What a test wants to be different.
pub(crate) struct Setup {
    pub(crate) secrets: Vec<&'static str>,
    /// Lines for `[peers]`. By default loopback is allowed, so that two clients of the test can be peers.
    pub(crate) peers: &'static str,
    /// Lines for `[quotas]`.
    pub(crate) quotas: &'static str,
    pub(crate) ipv6: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { secrets: vec![SECRET], peers: "allow = [\"127.0.0.1\"]", quotas: "", ipv6: false }
    }
}

pub(crate) const SECRET: &str = "a-secret-that-only-tests-know";

/// A running coturn; ends when dropped.
pub(crate) struct Coturn {
    child: Child,
    folder: TempDir,
    port: u16,
    tls_port: u16,
}

impl Coturn {
    pub(crate) fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
        let (port, tls_port) = free_ports();
        let addresses = if setup.ipv6 { "\"127.0.0.1\", \"::1\"" } else { "\"127.0.0.1\"" };
        let text = format!(
            "realm = \"turn.test\"\n\
             [listen]\naddresses = [{addresses}]\nport = {port}\ntls_port = {tls_port}\n\
             [relay]\naddresses = [{addresses}]\nfirst_port = 20000\nlast_port = 29999\n\
             [tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
             [secrets]\nvalues = {:?}\n[peers]\n{}\n[quotas]\n{}\n[process]\nlog = \"coturn.log\"\npid_file = \"pid\"\n",
            setup.secrets, setup.peers, setup.quotas
        );
        let description = Description::parse(&text, folder.path()).unwrap();
        write_private(&folder.path().join("turnserver.conf"), &render(&description)).unwrap();
        let child = spawn(&folder);
        let mut coturn = Self { child, folder, port, tls_port };
        coturn.wait_until_it_answers();
        coturn
    }

    pub(crate) fn url(&self, transport: Transport) -> TurnUrl {
        let url = match transport {
            Transport::Udp => format!("turn:127.0.0.1:{}?transport=udp", self.port),
            Transport::Tcp => format!("turn:127.0.0.1:{}?transport=tcp", self.port),
            Transport::Tls => format!("turns:localhost:{}?transport=tcp", self.tls_port),
        };
        url.parse().unwrap()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            patience: Duration::from_secs(10),
            trust: Trust::File(self.folder.path().join("cert.pem")),
        }
    }

    pub(crate) fn connect(&self, transport: Transport, login: &Login) -> TurnClient {
        TurnClient::connect(&self.url(transport), login, &self.settings()).unwrap()
    }

    /// Everything coturn has said: its log, and what it wrote to its terminal.
    pub(crate) fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("coturn.log") + &read("terminal.log")
    }

    fn wait_until_it_answers(&mut self) {
        let login = login_of(SECRET, "nobody", "1h");
        let begun = Instant::now();
        let impatient = Settings { patience: Duration::from_millis(300), ..self.settings() };
        for transport in [Transport::Udp, Transport::Tls] {
            let url = self.url(transport);
            while TurnClient::connect(&url, &login, &impatient)
                .and_then(|mut client| client.binding())
                .is_err()
            {
                let ended = self.child.try_wait().unwrap();
                assert!(
                    ended.is_none() && begun.elapsed() < STARTUP,
                    "coturn did not come up:\n{}",
                    self.log()
                );
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A login for `user` minted now with `secret`.
pub(crate) fn login_of(secret: &str, user: &str, ttl: &str) -> Login {
    login_at(SystemTime::now(), secret, user, ttl)
}

/// A login for `user` minted at `now` with `secret`.
pub(crate) fn login_at(now: SystemTime, secret: &str, user: &str, ttl: &str) -> Login {
    let ttl: Ttl = ttl.parse().unwrap();
    let user: OpaqueId = user.parse().unwrap();
    mint(&SharedSecret::new(secret).unwrap(), now, ttl, &user).into()
}

/// Whether this machine has an IPv6 loopback; says so when it has not.
pub(crate) fn has_ipv6() -> bool {
    let has = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        eprintln!("skipped: this machine has no IPv6 loopback address");
    }
    has
}

fn spawn(folder: &TempDir) -> Child {
    let terminal = fs::File::create(folder.path().join("terminal.log")).unwrap();
    let child = Command::new(turnserver())
        .arg("-c")
        .arg(folder.path().join("turnserver.conf"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal)
        .spawn();
    child.expect("turnserver runs")
}

fn turnserver() -> PathBuf {
    let found = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .map(|folder| folder.join("turnserver"))
        .find(|path| path.is_file());
    found.expect("turnserver is not installed; on Debian: apt-get install coturn")
}

/// Two ports nobody listens at, over UDP and TCP. The system gives them from its range for outgoing connections,
/// which lies above the relay ports of the tests.
fn free_ports() -> (u16, u16) {
    let free = || {
        loop {
            let stream = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = stream.local_addr().unwrap().port();
            if let Ok(datagrams) = UdpSocket::bind(("127.0.0.1", port)) {
                return (port, stream, datagrams);
            }
        }
    };
    // Both are held until both are known, so that they differ.
    let (one, two) = (free(), free());
    (one.0, two.0)
}
