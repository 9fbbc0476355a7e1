//! Real peers, introduced by the real server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/run.rs"]
mod run;
#[path = "../support/server.rs"]
mod server;

use std::process::Command;

use run::{against, loadtest};
use server::in_memory;

#[test]
fn peers_find_each_other_and_all_they_write_is_everywhere() {
    let flags = "--count 6 --rooms 2 --rate 10 --duration 2s --lose-every 0s";
    let run = against(in_memory(), "mesh", flags).passed();
    assert_eq!((run.figure("annotations"), run.figure("deliveries")), (20.0, 40.0));
    assert_eq!((run.figure("lost"), run.figure("ghosts"), run.figure("unseen")), (0.0, 0.0, 0.0));
    assert_eq!(run.figure("connections_per_peer"), 2.0);
    assert!((0.01..60_000.0).contains(&run.figure("latency_p99_ms")));
    assert!(run.figure("gathered_after_ms") > 0.0);
}

#[test]
fn peers_that_lose_their_network_write_meanwhile_and_have_everything_when_they_are_back() {
    // Longer away than it takes the others to notice.
    let flags = "--count 4 --rooms 1 --rate 10 --duration 8s --lose-every 3s --away 4s --seed 5";
    let run = against(in_memory(), "mesh", flags).passed();
    assert!(run.figure("lost_their_network") >= 3.0);
    assert_eq!((run.figure("annotations"), run.figure("deliveries")), (80.0, 240.0));
    assert_eq!((run.figure("lost"), run.figure("documents_unequal")), (0.0, 0.0));
    assert!((0.001..60_000.0).contains(&run.figure("catch_up_p99_ms")));
    let back =
        run.report["timeline"].as_array().unwrap().iter().filter_map(|moment| moment["reconnects"].as_u64());
    assert!(back.max().unwrap() >= 1);
}

#[test]
fn peers_that_nobody_introduces_are_missed() {
    let run =
        against(([127, 0, 0, 1], 1).into(), "mesh", "--count 2 --rooms 1 --duration 500ms --timeout 1s");
    let run = run
        .failed("not everybody saw everybody")
        .failed("lost=0 does not hold")
        .failed("unseen=0 does not hold");
    assert!(run.figure("lost") > 0.0);
}

#[test]
fn every_scenario_says_at_the_start_when_this_process_may_not_open_enough_files() {
    for scenario in [
        "mesh",
        "reviewers",
        "churn",
        "signaling",
        "signaling --saturate",
        "signaling --join",
        "signaling --idle=100",
        "signaling --churn=100 --concurrency=100",
        "signaling --stall",
        "relay",
        "relay --join=1KB",
        "capacity --from=100 -- reviewers",
    ] {
        // Nobody listens there: what is said of files comes before any connection.
        let line =
            format!("ulimit -n 80; exec '{}' {scenario} ws://127.0.0.1:1", env!("CARGO_BIN_EXE_loadtest"));
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{scenario}: {stderr}");
        assert!(stderr.contains("and the limit is 80: raise it with `ulimit -n`"), "{scenario}: {stderr}");
    }
}

#[test]
fn what_cannot_be_run_is_one_line_and_exit_code_2() {
    for (arguments, expected) in [
        (["mesh", "ws://127.0.0.1:1", "--count=1"], "--count is 1, 2 to 1000"),
        (["mesh", "ws://127.0.0.1:1", "--rooms=7"], "--rooms is 7, 1 to 6"),
        (["mesh", "ws://127.0.0.1:1", "--token=t"], "mesh knows neither"),
        (["mesh", "ws://127.0.0.1:1", "--lose-every=1ms"], "--lose-every is 1ms, 100ms is the least"),
        (["mesh", "http://127.0.0.1:1", "--rooms=2"], "expected ws://"),
    ] {
        let output = loadtest(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
