//! The simulated world: engines and the server's real rooms under a virtual clock, on a network, with disks and
//! clocks that misbehave as a seed has it.
//!
//! 500 seeds of turmoil, and fewer of the stories that each show one thing. `SIM_SEEDS=5000` runs ten times as many of
//! all, `SIM_SEED=7` that one. A seed that fails prints the command that runs it again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod network;
mod peer;
mod server;
mod world;

mod convergence;
mod mesh;
mod offline;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Tells a story once for each seed, or for the one that the environment names.
fn for_seeds(story: &str, seeds: u64, tell: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SIM_SEEDS").map_or(seeds, |all| (seeds * all / 500).max(1)),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tell(seed))) {
            eprintln!("seed {seed} fails. Again: SIM_SEED={seed} cargo test -p peer-sdk --test sim {story}");
            resume_unwind(panic);
        }
    }
}
