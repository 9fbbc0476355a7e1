//! Edits made apart, unplugged, and what becomes of them when the plug is back.
//!
//! ```sh
//! cargo run --example offline
//! ```
//!
//! An agent's hub and two reviewers run in this process, over real sockets on loopback. Ends with status 0 if all three
//! have the same plan.

mod plan;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use peer_sdk::Peer;
use peer_sdk::adapter::websocket::Hub;
use plan::Plan;

const ROOM: &str = "offline-example";
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    let hub = Hub::bind("127.0.0.1:0").await?;
    let (url, address) = (hub.url(), hub.address().to_string());
    let token = url.rsplit('=').next().context("the hub's url has its token")?.to_owned();
    let agent = Peer::builder(ROOM).user("agent").hub(&hub).start().await?;
    plan::create(agent.document(), "Move the database", [("Copy", "nightly"), ("Switch", "at noon")])?;
    let ana = Peer::builder(ROOM).user("ana").websocket(&url).start().await?;
    let ben = Peer::builder(ROOM).user("ben").websocket(&url).start().await?;
    let all = [("agent", &agent), ("ana", &ana), ("ben", &ben)];
    together(&all, 0).await?;
    say("everybody has the plan", &all);

    println!("-- the hub is unplugged");
    agent.close().await;
    hub.close().await;
    ana.wait_until(|status| !status.links[0].up).await;
    ben.wait_until(|status| !status.links[0].up).await;
    for number in 1..=3 {
        plan::annotate(ana.document(), "s1", "ana", &format!("ana's remark {number}"))?;
        plan::annotate(ben.document(), "s2", "ben", &format!("ben's remark {number}"))?;
    }
    plan::annotate(agent.document(), "", "agent", "written on the agent's machine meanwhile")?;
    say("each has its own remarks", &all);

    println!("-- the hub is plugged in");
    let begun = Instant::now();
    let hub = Hub::builder().token(&token).bind(&address).await?;
    let again = Peer::builder(ROOM).document(agent.document()).user("agent").hub(&hub).start().await?;
    ana.wake().await;
    ben.wake().await;
    let all = [("agent", &again), ("ana", &ana), ("ben", &ben)];
    together(&all, 7).await?;
    say(&format!("all remarks are everywhere after {:?}", begun.elapsed()), &all);
    for (_, peer) in all {
        peer.close().await;
    }
    Ok(())
}

/// Waits until all have the same plan, with so many annotations.
async fn together(all: &[(&str, &Peer)], annotations: usize) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let plans: Vec<Plan> = all.iter().map(|(_, peer)| plan::read(peer.document())).collect();
        let complete = |plan: &Plan| !plan.title.is_empty() && plan.annotations.len() == annotations;
        if plans.iter().all(|plan| complete(plan) && *plan == plans[0]) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the plans still differ after {PATIENCE:?}: {plans:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn say(what: &str, all: &[(&str, &Peer)]) {
    println!("{what}");
    for (name, peer) in all {
        let plan = plan::read(peer.document());
        println!(
            "  {name}: {:?}, {} steps, {} annotations",
            plan.title,
            plan.steps.len(),
            plan.annotations.len()
        );
    }
}
