//! A coturn of its own for one test, on loopback, without TLS.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub const SECRET: &str = "a-secret-that-only-tests-know";

/// How long coturn may take to come up on a busy machine.
const STARTUP: Duration = Duration::from_secs(30);

/// A running coturn; ends when dropped.
pub struct Coturn {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Coturn {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let flags = format!(
            "-n --listening-ip=127.0.0.1 --listening-port={port} --relay-ip=127.0.0.1 --min-port=30000 \
             --max-port=31999 --use-auth-secret --static-auth-secret={SECRET} --realm=turn.test --fingerprint \
             --allow-loopback-peers --no-tls --no-dtls --no-cli --userdb=turn.db --pidfile=pid --log-file=log"
        );
        let child = Command::new("turnserver")
            .args(flags.split_whitespace())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.expect("turnserver is installed; on Debian: apt-get install coturn");
        let mut coturn = Self { child, port, _folder: folder };
        coturn.wait_until_it_answers();
        coturn
    }

    pub fn url(&self) -> String {
        format!("turn:127.0.0.1:{}?transport=udp", self.port)
    }

    fn wait_until_it_answers(&mut self) {
        // A STUN binding request with an id of zeros.
        const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let begun = Instant::now();
        let mut answer = [0; 512];
        while socket.send_to(&BINDING, ("127.0.0.1", self.port)).is_err() || socket.recv(&mut answer).is_err()
        {
            assert!(
                self.child.try_wait().unwrap().is_none() && begun.elapsed() < STARTUP,
                "coturn did not come up"
            );
        }
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
