//! An agent's plans, under review: an MCP server over stdio that is the hub of everybody who reviews them.
//!
//! ```sh
//! cargo run --example mcp_server -- --dir plans --page https://reviews.example/ --signal wss://signal.example
//! ```
//!
//! An MCP client (an agent's runner) starts it and speaks MCP to its stdin and stdout. Each plan is a document in a file of
//! its own in `--dir`, and a room of the hub at `--listen`; `create_plan` answers with the link to share. With `--signal`
//! reviewers elsewhere are found and connected to over WebRTC. What the document looks like stands in `PLAN.md`.
//!
//! The hub lets in who shows its token, which the link carries. Web pages are let in from the origin of `--page`, and from
//! each `--origin`.

#[path = "../plan/mod.rs"]
mod plan;

mod shelf;
mod tools;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use peer_sdk::adapter::websocket::Hub;
use rmcp::ServiceExt;
use rmcp::transport::stdio;

use plan::ways::Ways;
use shelf::{Invitation, Shelf};
use tools::Tools;

/// Serves plans to an agent over MCP, and to their reviewers as a hub
#[derive(Parser)]
struct Flags {
    /// Keep the plans in this directory
    #[arg(long, default_value = "plans")]
    dir: PathBuf,
    /// Where the hub listens; port 0 is any that is free
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// The hub's token; drawn at random if none is given
    #[arg(long, env = "HUB_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The page on which people review: links lead there
    #[arg(long)]
    page: Option<String>,
    /// Let web pages of this origin in; may be given several times
    #[arg(long)]
    origin: Vec<String>,
    /// The agent's name in annotations and in presence
    #[arg(long, default_value = "agent")]
    name: String,
    /// Be a hub and nothing else: links name the signaling servers, and reviewers connect among each other
    #[arg(long)]
    hub_only: bool,
    #[command(flatten)]
    ways: Ways,
}

#[tokio::main]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let hub = bind(&flags).await?;
    // Stdout is for the protocol.
    eprintln!("the hub listens at {}", hub.address());
    let invitation = Invitation::new(&hub, flags.page.as_deref(), &flags.ways);
    let ways = if flags.hub_only { Ways { signal: Vec::new(), ..flags.ways } } else { flags.ways };
    let shelf = Shelf::open(flags.dir, flags.name, hub, ways, invitation).await?;
    let tools = Tools::new(shelf);
    let service = tools.clone().serve(stdio()).await.context("the MCP client did not introduce itself")?;
    service.waiting().await?;
    tools.close().await;
    Ok(())
}

async fn bind(flags: &Flags) -> Result<Hub> {
    let mut hub = Hub::builder();
    for origin in
        flags.page.iter().filter_map(|page| origin(page)).chain(flags.origin.iter().map(String::as_str))
    {
        hub = hub.origin(origin);
    }
    if let Some(token) = &flags.token {
        hub = hub.token(token);
    }
    Ok(hub.bind(&flags.listen).await?)
}

/// Scheme, host and port of a page.
fn origin(page: &str) -> Option<&str> {
    let host = page.find("://")? + 3;
    let end = page[host..].find(['/', '?', '#']).map_or(page.len(), |end| host + end);
    Some(&page[..end])
}
