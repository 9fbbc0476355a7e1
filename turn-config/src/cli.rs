//! The subcommands: each reads its arguments, calls the library and prints.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use turn_config::credential::{OpaqueId, SharedSecret, Ttl, mint};
use turn_config::description::Description;
use turn_config::ice::{IceConfig, TurnServerConfig};
use turn_config::probe::{Family, Login, Settings, Step, Trust, probe};
use turn_config::render::{render, write_private};
use turn_config::url::TurnUrl;

/// Runs coturn from one typed description, and checks that it relays.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the turnserver.conf of a description, or writes it.
    #[command(after_help = "Examples:
  turn-config render turn.toml
  turn-config render turn.toml --output /etc/turnserver.conf && systemctl restart coturn

The result contains the secrets. A new file is readable by its owner only; one that is there already keeps its owner,
group and mode. When the description is refused (exit code 2), nothing is written.")]
    Render {
        /// The description.
        description: PathBuf,
        /// Writes here instead of printing: the whole file or nothing.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Says everything that is wrong with a description, each with its line.
    #[command(after_help = "Example:
  turn-config check turn.toml

Exit code 0: nothing is wrong. 2: something is.")]
    Check {
        /// The description.
        description: PathBuf,
    },
    /// Prints a credential that expires, as JSON.
    #[command(after_help = "Examples:
  turn-config credential --ttl 1h --secret-file /etc/turn/secret
  turn-config credential --config turn.toml --url turn:turn.example.org --url turns:turn.example.org:443

With --url it prints what `new RTCPeerConnection` takes.")]
    Credential {
        #[command(flatten)]
        secret: SecretArgs,
        /// How long it is valid: a second to a week.
        #[arg(long, default_value = "1h")]
        ttl: Ttl,
        /// Whom it is for: letters, digits, '-', '_' and '.', and nothing personal. A random id by default.
        #[arg(long, value_name = "ID")]
        user: Option<OpaqueId>,
        /// A TURN URL it is for. May be given several times.
        #[arg(long, value_name = "URL")]
        url: Vec<TurnUrl>,
    },
    /// Asks a running server for a STUN binding and for TURN allocations, and relays data through it both ways.
    #[command(after_help = "Examples:
  turn-config probe turn:turn.example.org:3478?transport=udp --config turn.toml
  turn-config probe turn:turn.example.org?transport=tcp turns:turn.example.org:443 --secret-file /etc/turn/secret
  TURN_PASSWORD=… turn-config probe turn:turn.example.org --username 1767225600:id

Exit code 0: every URL relays. 1: one does not.")]
    Probe {
        /// TURN URLs: turn:HOST[:PORT][?transport=udp|tcp] or turns:HOST[:PORT].
        #[arg(required = true, value_name = "URL")]
        urls: Vec<TurnUrl>,
        #[command(flatten)]
        login: LoginArgs,
        /// A PEM file with the authorities to trust for turns:, instead of those of this machine.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// How long one step may take.
        #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// Asks for a relayed IPv6 address.
        #[arg(long)]
        ipv6: bool,
    },
}

/// Where the shared secret is; without either, in the environment variable TURN_SECRET. Never on the command line,
/// which every user of the machine can read.
#[derive(Args)]
struct SecretArgs {
    /// Takes the first secret of this description [default: the environment variable TURN_SECRET].
    #[arg(long, value_name = "FILE", conflicts_with = "secret_file")]
    config: Option<PathBuf>,
    /// Takes this file as the secret.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Args)]
struct LoginArgs {
    #[command(flatten)]
    secret: SecretArgs,
    /// Logs in with this name, and the password in the environment variable TURN_PASSWORD, instead of minting a
    /// credential.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["config", "secret_file"])]
    username: Option<String>,
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Render { description, output } => {
                let conf = render(&Description::load(&description)?);
                match output {
                    Some(path) => write_private(&path, &conf)
                        .with_context(|| format!("cannot write {}", path.display())),
                    None => print(conf.trim_end()),
                }
            }
            Command::Check { description } => {
                Description::load(&description)?;
                print(&format!("{}: nothing is wrong", description.display()))
            }
            Command::Credential { secret, ttl, user, url } => {
                let user = user.unwrap_or_else(OpaqueId::random);
                credential(&secret.load()?, ttl, &user, &url)
            }
            Command::Probe { urls, login, ca, timeout, ipv6 } => {
                let settings = Settings { patience: timeout, trust: ca.map_or(Trust::System, Trust::File) };
                let family = if ipv6 { Family::V6 } else { Family::V4 };
                probe_all(&urls, &login.load()?, family, &settings)
            }
        }
    }
}

impl SecretArgs {
    fn load(&self) -> anyhow::Result<SharedSecret> {
        if let Some(path) = &self.config {
            let description = Description::load(path)?;
            return Ok(description.secrets.into_iter().next().expect("a checked description has a secret"));
        }
        if let Some(path) = &self.secret_file {
            return Ok(SharedSecret::read(path)?);
        }
        let secret =
            std::env::var("TURN_SECRET").context("no secret: give --config, --secret-file or TURN_SECRET")?;
        SharedSecret::new(&secret).context("TURN_SECRET")
    }
}

impl LoginArgs {
    fn load(self) -> anyhow::Result<Login> {
        let Some(username) = self.username else {
            let secret = self.secret.load()?;
            return Ok(mint(&secret, SystemTime::now(), Ttl::HOUR, &OpaqueId::random()).into());
        };
        let password =
            std::env::var("TURN_PASSWORD").context("--username needs the password in TURN_PASSWORD")?;
        Ok(Login { username, password })
    }
}

fn credential(secret: &SharedSecret, ttl: Ttl, user: &OpaqueId, urls: &[TurnUrl]) -> anyhow::Result<()> {
    let now = SystemTime::now();
    if urls.is_empty() {
        let minted = mint(secret, now, ttl, user);
        let json = serde_json::json!({
            "username": minted.username, "credential": minted.password, "ttl": minted.ttl.seconds(),
        });
        return print(&json.to_string());
    }
    let server = TurnServerConfig {
        urls: urls.iter().map(ToString::to_string).collect(),
        secret: Some(secret.expose().to_owned()),
        secret_file: None,
    };
    let servers = IceConfig { turn: vec![server], ttl: ttl.to_string(), ..IceConfig::default() }.load()?;
    print(&serde_json::to_string(&servers.answer(now, user))?)
}

fn probe_all(urls: &[TurnUrl], login: &Login, family: Family, settings: &Settings) -> anyhow::Result<()> {
    let mut failed = 0;
    for url in urls {
        print(&url.to_string())?;
        let tell = |step| drop(print(&format!("  {}", describe(step))));
        if let Err(error) = probe(url, login, family, settings, tell) {
            print(&format!("  FAILED      {error}"))?;
            failed += 1;
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} URLs do not relay", urls.len());
    Ok(())
}

fn describe(step: Step) -> String {
    match step {
        Step::Connected { server, took } => format!("connected   {}  to {server}", ms(took)),
        Step::Bound { seen_as, took } => format!("binding     {}  seen as {seen_as}", ms(took)),
        Step::Allocated { relayed, lifetime, took } => {
            format!("allocation  {}  relayed address {relayed} for {} s", ms(took), lifetime.as_secs())
        }
        Step::Relayed { there, back } => {
            format!(
                "relayed     {}  there and {} back, from one relayed address to another",
                ms(there),
                ms(back).trim()
            )
        }
    }
}

fn ms(took: Duration) -> String {
    format!("{:8.2} ms", took.as_secs_f64() * 1000.0)
}

/// Like `println!`, but a reader that has gone away is an error and no panic.
fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}
