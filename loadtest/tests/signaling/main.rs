//! The figures of `loadtest signaling` are right, and what a server does wrong is found.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;
#[path = "../support/run.rs"]
mod run;

use std::{net::SocketAddr, thread};

use double::{Fault, double};
use loadtest::floor::Floor;
use run::{Run, against, loadtest};

/// A floor in this process, and its address.
fn floor() -> SocketAddr {
    let floor = Floor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = floor.local_addr().unwrap();
    thread::spawn(|| floor.run());
    address
}

fn signaling(server: SocketAddr, flags: &str) -> Run {
    against(server, "signaling", flags)
}

/// 20 clients in 4 rooms of 5, 240 publishes in all.
const FIXED: &str = "--clients 20 --rooms 4 --rate 200 --payload 300 --warmup 200ms --duration 1s";

#[test]
fn a_fixed_rate_delivers_every_publish_to_everybody_in_its_room() {
    let run = signaling(floor(), &format!("{FIXED} --pid {}", std::process::id())).passed();
    assert_eq!(run.figure("publishes"), 240.0);
    assert_eq!(run.figure("deliveries"), 1200.0);
    assert_eq!(run.figure("lost"), 0.0);
    let rate = run.figure("deliveries_per_second");
    assert!((300.0..=1200.0).contains(&rate), "{rate} deliveries a second at 200 publishes for 5");
    assert!(run.figure("latency_p50_ms") <= run.figure("latency_p99_ms"));
    let cost = run.figure("server_cpu_us_per_delivery");
    assert!((0.1..1000.0).contains(&cost), "{cost} us a delivery");
}

#[test]
fn several_threads_publish_and_deliver_as_much_as_one() {
    let run = signaling(floor(), &format!("{FIXED} --threads 3")).passed();
    assert_eq!(run.figure("publishes"), 240.0);
    assert_eq!(run.figure("deliveries"), 1200.0);
}

#[test]
fn saturation_follows_every_echo_with_another_publish() {
    let run = signaling(floor(), "--clients 8 --rooms 2 --saturate --window 3 --warmup 0s --duration 500ms")
        .passed();
    assert_eq!(run.figure("deliveries"), run.figure("publishes") * 4.0);
    assert!(run.figure("publishes") > 10.0 * 8.0 * 3.0);
}

#[test]
fn one_lost_delivery_fails_the_run() {
    let run = signaling(double(Fault::DropsOne), FIXED).failed("1 deliveries were lost");
    assert_eq!(run.figure("lost"), 1.0);
}

#[test]
fn a_server_without_fault_passes() {
    signaling(double(Fault::Nothing), FIXED).passed();
}

#[test]
fn a_repeated_and_a_swapped_delivery_fail_the_run() {
    signaling(double(Fault::RepeatsOne), FIXED).failed("1 deliveries came twice or out of order");
    let alone = "--clients 1 --rooms 1 --rate 200 --payload 300 --warmup 200ms --duration 1s";
    let run = signaling(double(Fault::SwapsTwo), alone).failed("1 deliveries came twice or out of order");
    assert_eq!(run.figure("lost"), 0.0);
}

#[test]
fn a_delivery_into_another_room_fails_the_run() {
    signaling(double(Fault::Strays), FIXED).failed("15 deliveries came to somebody who is not in the room");
}

#[test]
fn a_connection_that_is_lost_fails_the_run() {
    signaling(double(Fault::ClosesOne), FIXED).failed("1 connections failed");
}

#[test]
fn a_server_that_sends_rubbish_is_an_error_and_not_a_crash() {
    signaling(double(Fault::Rubbish), FIXED).failed("1 connections failed: bad frame");
}

#[test]
fn a_refused_upgrade_is_told_with_its_status() {
    let run = signaling(double(Fault::Refuses), FIXED).failed("20 connections failed: http 429");
    assert_eq!(run.report["errors"]["http 429"], 20);
}

#[test]
fn a_pause_of_the_server_shows_in_every_publish_that_was_due_meanwhile() {
    let flags = "--clients 20 --rooms 4 --rate 200 --payload 300 --warmup 0s --duration 1s";
    let run = signaling(double(Fault::Pauses), flags).passed();
    // It holds up a hundred publishes: a tester that waited for its server would see a slow one.
    let p99 = run.figure("latency_p99_ms");
    assert!(p99 > 400.0, "p99 is {p99} ms");
}

#[test]
fn a_join_settles_every_pair_and_counts_who_was_bothered() {
    let run = signaling(floor(), "--join --clients 6 --candidates 2").passed();
    assert_eq!(run.figure("pairs_settled"), 15.0);
    // The floor knows no directed delivery.
    assert_eq!(run.figure("deliveries_per_directed_message"), 6.0);
    assert!(run.figure("directed_messages") >= 15.0 * 6.0);
    assert!(run.figure("settle_ms") <= run.figure("last_delivery_ms"));
}

#[test]
fn a_join_that_loses_an_offer_fails() {
    signaling(double(Fault::LosesDirected), "--join --clients 3 --candidates 0 --timeout 1s")
        .failed("directed messages did not reach whom they name");
}

#[test]
fn idle_connections_are_all_open_at_the_end() {
    let run = signaling(floor(), "--idle 120").passed();
    assert_eq!(run.figure("connections"), 120.0);
    assert!(run.report["figures"]["server_bytes_per_connection"].is_null());
    signaling(double(Fault::Refuses), "--idle 3").failed("0 of 3 connections were open");
}

#[test]
fn churn_finds_those_that_left_and_were_not_forgotten() {
    let run = signaling(double(Fault::Nothing), "--churn 60 --concurrency 4").passed();
    assert_eq!(run.figure("cycles"), 60.0);
    assert_eq!(run.figure("ghost_subscribers"), 0.0);
    signaling(double(Fault::KeepsGhosts), "--churn 10 --concurrency 2").failed("10 of those that left");
}

#[test]
fn churn_gives_up_on_a_server_that_lets_nobody_in() {
    let run = signaling(double(Fault::Refuses), "--churn 100000 --concurrency 4")
        .failed("given up after 0 of 100000");
    assert!(run.report["errors"]["http 429"].as_u64().unwrap() < 110);
}

#[test]
fn a_reader_that_never_reads_must_be_disconnected() {
    let flood = "--stall --clients 4 --payload 32000 --warmup 100ms";
    // The floor closes a connection for which 16 MiB wait; the kernel holds up to 10 MiB before that.
    let run = signaling(floor(), &format!("{flood} --rate 500 --duration 2s")).passed();
    assert_eq!(run.report["figures"]["stalled_disconnected"], true);
    signaling(floor(), &format!("{flood} --rate 20 --duration 300ms")).failed("still connected");
}

#[test]
fn what_cannot_be_run_is_one_line_and_exit_code_2() {
    for (arguments, expected) in [
        (["signaling", "wss://127.0.0.1", "--json"], "expected ws://host:port/path"),
        (["signaling", "ws://127.0.0.1:1", "--payload=10"], "--payload is 10, at least"),
        (["signaling", "ws://127.0.0.1:1", "--pid=4194999"], "cannot watch process 4194999"),
        (["signaling", "ws://127.0.0.1:1", "--idle=4000000000"], "raise it with `ulimit -n`"),
    ] {
        let output = loadtest(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
