//! The command as it is used: it says where it listens, stops when told, and makes tokens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "support/command.rs"]
mod command;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Stdio};
use std::time::SystemTime;

use command::{Files, command, run, run_with};
use rcgen::KeyPair;
use signaling_server::access::{Access, Presented, Role};
use signaling_server::config::{AccessConfig, AccessMode};
use support::Client;

/// A running server; killed when a test fails.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = command();
        command.args(arguments).envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The address in the first line, and what follows it.
    fn listening(&mut self) -> (SocketAddr, String) {
        let line = self.line();
        let rest = line.strip_prefix("listening on ws://").unwrap_or_else(|| panic!("{line}"));
        let (address, note) = rest.split_once(' ').unwrap_or((rest, ""));
        (address.parse().unwrap(), note.to_owned())
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code, and what was logged.
    fn ended(mut self) -> (i32, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code().unwrap(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

const ANYWHERE: [&str; 4] = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];

#[tokio::test]
async fn it_says_where_it_listens_and_that_it_is_open_to_everybody_whatever_the_log_level() {
    let mut server = Running::start(&ANYWHERE, &[("SIGNALING_LOG_LEVEL", "error")]);
    let (address, note) = server.listening();
    assert_eq!(
        note,
        "(open to everybody: anyone who knows a room name can join it; see [access] in config.example.toml)"
    );
    assert!(server.line().starts_with("metrics on http://127.0.0.1:"));
    let mut client = Client::connect(&format!("ws://{address}")).await;
    assert!(client.settle().await.is_empty());
}

#[test]
fn it_does_not_say_so_when_it_is_not() {
    let environment = [("SIGNALING_ACCESS_MODE", "tokens"), ("SIGNALING_ACCESS_TOKENS", "s3cret")];
    let mut server = Running::start(&[&["serve"], &ANYWHERE[..]].concat(), &environment);
    assert_eq!(server.listening().1, "");
}

#[test]
fn a_signal_ends_it_with_exit_code_0() {
    for name in ["TERM", "INT"] {
        let mut server = Running::start(&ANYWHERE, &[("SIGNALING_DRAIN_READY_WAIT", "0")]);
        server.listening();
        server.signal(name);
        assert_eq!(server.ended().0, 0, "{name}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_drain_at_once() {
    let slow = [("SIGNALING_DRAIN_READY_WAIT", "300"), ("SIGNALING_DRAIN_WINDOW", "300")];
    let mut server = Running::start(&ANYWHERE, &slow);
    let (address, _) = server.listening();
    let mut client = Client::connect(&format!("ws://{address}")).await;
    client.settle().await;
    server.signal("TERM");
    let drained = tokio::time::timeout(support::PATIENCE, async {
        while support::get(address, "/readyz").await.0 != 503 {}
    });
    drained.await.unwrap();
    server.signal("TERM");
    assert_eq!(tokio::task::spawn_blocking(|| server.ended()).await.unwrap().0, 0);
}

#[test]
fn an_address_in_use_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = run(&["serve", "--listen", &address, "--metrics-listen", "off", "--log-format", "json"]);
    assert_eq!(said.code, 1);
    let line = said.err.lines().last().unwrap();
    assert!(line.starts_with(&format!("signaling-server: server.listen = \"{address}\": ")), "{line}");
}

#[test]
fn json_logs_are_one_object_a_line() {
    let mut server = Running::start(&[&ANYWHERE[..], &["--log-format", "json"]].concat(), &[]);
    server.listening();
    server.signal("TERM");
    let (_, log) = server.ended();
    assert!(log.contains("\"message\":\"listening\""), "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap().is_object(), "{line}");
    }
}

#[test]
fn a_printed_token_is_admitted_by_a_server_with_the_same_key() {
    let files = Files::new();
    let secret = files.write_text("secret", "an HS256 secret of thirty-two bytes or more");
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let private = files.write_text("private.pem", ed25519.serialize_pem());
    let public = files.write_text("public.pem", ed25519.public_key_pem());
    for (sign, verify) in [(&secret, &secret), (&private, &public)] {
        let token = printed(&[
            "--key", sign, "--room", "plan-*", "--room", "lobby", "--role", "write", "--sub", "ana",
        ]);
        let config = AccessConfig {
            mode: AccessMode::Signed,
            keys_file: Some(verify.into()),
            ..AccessConfig::default()
        };
        let access = Access::from_config(&config).unwrap();
        let grant = access.admit(&Presented::bearer(token), SystemTime::now()).unwrap();
        assert!(grant.may_publish(b"plan-7") && grant.may_publish(b"lobby") && !grant.may_publish(b"other"));
        assert_eq!((grant.role(), grant.subject()), (Role::Write, Some("ana")));
    }
}

#[test]
fn the_token_command_takes_key_audience_and_issuer_from_the_servers_configuration() {
    let files = Files::new();
    let secret = files.write_text("secret", "an HS256 secret of thirty-two bytes or more");
    let config =
        format!("[access]\nmode = \"signed\"\nkeys_file = \"{secret}\"\naudience = \"us\"\nissuer = \"app\"");
    let file = files.write_text("signaling.toml", &config);
    let token = printed(&["--config", &file, "--room", "*"]);
    let access = AccessConfig {
        mode: AccessMode::Signed,
        keys_file: Some(secret.into()),
        audience: Some("us".to_owned()),
        issuer: Some("app".to_owned()),
        ..AccessConfig::default()
    };
    let access = Access::from_config(&access).unwrap();
    let grant = access.admit(&Presented::bearer(token), SystemTime::now()).unwrap();
    assert!(grant.may_subscribe(b"any") && !grant.may_publish(b"any"));
}

fn printed(arguments: &[&str]) -> String {
    let said = run(&[&["token"], arguments].concat());
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    said.out.strip_suffix('\n').unwrap().to_owned()
}

#[test]
fn a_token_that_can_not_be_made_is_one_line() {
    let files = Files::new();
    let short = files.write_text("short", "hunter2");
    let public = files.write_text("public.pem", KeyPair::generate().unwrap().public_key_pem());
    let refused =
        |arguments: &[&str]| run(&[&["token", "--room", "*"], arguments].concat()).refusal().to_owned();
    assert_eq!(
        refused(&["--key", &short]),
        format!("{short}: expected a secret of at least 32 bytes, found 7")
    );
    assert_eq!(
        refused(&["--key", &public]),
        format!(
            "{public}: expected a private key to sign with (Ed25519, P-256 or RSA, unencrypted), found a PEM block \"PUBLIC KEY\""
        )
    );
    assert_eq!(
        refused(&[]),
        "flag --key: expected a file with the key to sign with, or a --config that has access.keys_file"
    );
    assert_eq!(
        refused(&["--ttl", "soon"]),
        "flag --ttl: expected a duration such as \"30s\", found \"soon\""
    );
}

#[test]
fn a_flag_nobody_knows_is_one_line() {
    assert_eq!(
        run(&["--lisen", "x"]).refusal(),
        "unexpected argument '--lisen' found, tip: a similar argument exists: '--listen'"
    );
    assert_eq!(
        run(&["token"]).refusal(),
        "the following required arguments were not provided: --room <GLOB>"
    );
    let said = run(&["token", "--room", "*", "--role", "owner"]);
    assert!(said.refusal().starts_with("invalid value 'owner' for '--role <ROLE>'"), "{}", said.refusal());
}

#[test]
fn a_configuration_named_by_the_environment_serves_every_command() {
    let files = Files::new();
    let bad = files.write_text("signaling.toml", "[log]\nlevel = \"loud\"");
    for arguments in [&["serve"][..], &[], &["check-config"], &["token", "--room", "*"]] {
        let said = run_with(arguments, &[("SIGNALING_CONFIG", &bad)]);
        assert!(said.refusal().starts_with(&format!("{bad}: log.level: ")), "{}", said.refusal());
    }
}

#[test]
fn help_has_examples_and_the_version_is_told() {
    let said = run(&["--help"]);
    assert_eq!(said.code, 0);
    for example in ["check-config --config", "token --config", "probe wss://"] {
        assert!(said.out.contains(example), "{}", said.out);
    }
    let version = run(&["--version"]);
    assert_eq!(
        (version.code, version.out.as_str()),
        (0, concat!("signaling-server ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}
