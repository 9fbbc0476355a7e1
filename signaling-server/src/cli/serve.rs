//! `serve`: runs the server until it is told to stop.

use std::io::{self, IsTerminal};
use std::net::TcpListener;
use std::process::ExitCode;

use tokio::sync::watch;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::settings::Settings;
use super::{failed, refused};
use crate::config::{AccessMode, Config, LogConfig, LogFormat, RelayConfig, RelayMode};
use crate::notify;
use crate::reload::Reload;
use crate::server::Server;

pub(super) fn run(settings: &Settings) -> ExitCode {
    let config = match settings.load() {
        Ok(loaded) => loaded.config,
        Err(error) => return refused(error),
    };
    start_logging(&config.log);
    raise_file_limit();
    // While there is one thread.
    let clients = match notify::handed_over_listener() {
        Ok(listener) => listener,
        Err(error) => return failed(error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(error),
    };
    runtime.block_on(serve(config, clients))
}

async fn serve(config: Config, clients: Option<TcpListener>) -> ExitCode {
    let open = config.access.mode == AccessMode::Open;
    let relay = config.relay.clone();
    // Before anybody is told that the server listens: whoever waits for that line may stop it at once.
    let (shutdown, abort) = match signals() {
        Ok(signals) => signals,
        Err(error) => return failed(format_args!("signals can not be received: {error}")),
    };
    let server = match Server::bind_on(config, clients).await {
        Ok(server) => server,
        Err(error) => return failed(error),
    };
    if let Err(error) = reload_on_hangup(server.reload()) {
        return failed(format_args!("signals can not be received: {error}"));
    }
    announce(&server, open);
    announce_relay(&relay);
    server.run(shutdown, abort).await;
    ExitCode::SUCCESS
}

/// Says where the server listens, whatever the log level.
fn announce(server: &Server, open: bool) {
    let scheme = if server.is_tls() { "wss" } else { "ws" };
    let address = server.local_addr();
    let note = if open {
        " (open to everybody: anyone who knows a room name can join it; see [access] in config.example.toml)"
    } else {
        ""
    };
    println!("listening on {scheme}://{address}{note}");
    tracing::info!(%address, scheme, open, "listening");
    if let Some(metrics) = server.metrics_addr() {
        println!("metrics on http://{metrics}/metrics");
        tracing::info!(address = %metrics, "metrics");
    }
}

/// Says what becomes of documents, if anything.
fn announce_relay(relay: &RelayConfig) {
    match (relay.mode, &relay.data_dir) {
        (RelayMode::Off, _) => {}
        (RelayMode::Disk, Some(dir)) => {
            tracing::info!(data_dir = %dir.display(), "documents are relayed, and kept on disk");
        }
        (RelayMode::Memory | RelayMode::Disk, _) => {
            tracing::info!("documents are relayed, and kept in memory");
        }
    }
}

fn start_logging(config: &LogConfig) {
    let asked: Targets = config.level.parse().expect("the level was checked when it was loaded");
    // What Loro says and the spans that it opens for every import are full of documents; they cost time, too.
    let filter =
        Targets::new().with_target("loro", LevelFilter::OFF).with_target("loro_internal", LevelFilter::OFF);
    let filter =
        filter.with_targets(asked.iter()).with_default(asked.default_level().unwrap_or(LevelFilter::OFF));
    let registry = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Human => {
            let lines = tracing_subscriber::fmt::layer().with_ansi(io::stderr().is_terminal());
            registry.with(lines.with_writer(io::stderr)).init();
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
            registry.with(lines.with_writer(io::stderr)).init();
        }
    }
}

/// Every connection is a file, and many systems start a process with 1024 while they allow far more.
fn raise_file_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the open-file limit can not be raised");
    }
}

/// Two futures: one ready at the first SIGTERM or SIGINT, one at the second.
fn signals() -> io::Result<(impl Future<Output = ()>, impl Future<Output = ()>)> {
    let (count, seen) = watch::channel(0_u32);
    let mut next = stop_requests()?;
    // Ends with the process: a stop request must be heard until then.
    tokio::spawn(async move {
        loop {
            next.received().await;
            count.send_modify(|count| *count += 1);
        }
    });
    Ok((reached(seen.clone(), 1), reached(seen, 2)))
}

/// Reads keys, tokens and certificates again at each SIGHUP.
#[cfg(unix)]
fn reload_on_hangup(reload: Reload) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = signal(SignalKind::hangup())?;
    // Ends with the process, as the one that hears stop requests.
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            notify::reloading();
            reload.now().await;
            notify::ready();
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn reload_on_hangup(_: Reload) -> io::Result<()> {
    Ok(())
}

async fn reached(mut seen: watch::Receiver<u32>, wanted: u32) {
    if seen.wait_for(|count| *count >= wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
struct StopRequests {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
fn stop_requests() -> io::Result<StopRequests> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(StopRequests {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    })
}

#[cfg(unix)]
impl StopRequests {
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct StopRequests;

#[cfg(not(unix))]
fn stop_requests() -> io::Result<StopRequests> {
    Ok(StopRequests)
}

#[cfg(not(unix))]
impl StopRequests {
    async fn received(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
