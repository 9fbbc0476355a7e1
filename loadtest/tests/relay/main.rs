//! The figures of `loadtest relay` are right, and what a relay does wrong is found.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;
#[path = "../support/run.rs"]
mod run;
#[path = "../support/server.rs"]
mod server;

use std::net::SocketAddr;

use double::{Fault, double};
use run::{Run, against, loadtest};
use server::{in_memory, on_disk, stingy};

/// 3 rooms of 4, 240 edits in all, each for 3 readers.
const FIXED: &str = "--rooms 3 --clients 4 --rate 200 --warmup 200ms --duration 1s";

fn relay(server: SocketAddr, flags: &str) -> Run {
    against(server, "relay", flags)
}

#[test]
fn a_fixed_rate_reaches_every_reader_and_is_acknowledged() {
    let run = relay(in_memory(), &format!("{FIXED} --pid {}", std::process::id())).passed();
    assert_eq!(run.figure("updates"), 240.0);
    assert_eq!(run.figure("deliveries"), 720.0);
    assert_eq!(run.figure("acks_ok"), 240.0);
    assert_eq!(run.figure("lost"), 0.0);
    // Twelve clients, and a newcomer in each room.
    assert_eq!(run.figure("documents_compared"), 15.0);
    assert!(run.figure("latency_p50_ms") <= run.figure("latency_p99_ms"));
    assert!(run.figure("ack_p50_ms") > 0.0);
    let cost = run.figure("server_cpu_us_per_delivery");
    assert!((0.1..10_000.0).contains(&cost), "{cost} us a delivery");
}

#[test]
fn a_server_that_stores_passes_and_its_acks_come_after_the_deliveries() {
    let directory = tempfile::tempdir().unwrap();
    let run = relay(on_disk(directory.path()), FIXED).passed();
    assert_eq!(run.figure("acks_ok"), 240.0);
    assert!(run.figure("ack_p50_ms") > run.figure("latency_p50_ms"));
}

#[test]
fn only_writers_write() {
    let run = relay(in_memory(), &format!("{FIXED} --writers 1")).passed();
    assert_eq!(run.figure("writers"), 3.0);
    assert_eq!(run.figure("deliveries"), 720.0);
}

#[test]
fn saturation_follows_every_edit_that_arrived_with_another() {
    let run = relay(in_memory(), "--rooms 2 --clients 4 --saturate --window 3 --warmup 0s --duration 500ms")
        .passed();
    assert_eq!(run.figure("deliveries"), run.figure("updates") * 3.0);
    assert!(run.figure("updates") > 10.0 * 8.0 * 3.0);
}

#[test]
fn a_keystroke_is_measured_in_documents_of_every_size() {
    let flags = format!("--grow 100B,300KB --keystrokes 30 --rate 1000 --pid {}", std::process::id());
    let run = relay(in_memory(), &flags).passed();
    assert!(run.figure("server_cpu_us_per_keystroke_100") > 0.0);
    assert!(run.figure("latency_p99_ms_300000") > 0.0);
    assert!(run.figure("server_cpu_last_to_first") > 0.0);
}

#[test]
fn a_joiner_of_a_large_document_is_measured_beside_the_traffic_of_others() {
    let run = relay(in_memory(), &format!("{FIXED} --join 1MB --joins 2")).passed();
    assert!(run.figure("document_update_bytes") > 1e6);
    assert!(run.figure("join_ms") > 0.0);
    assert!(run.figure("join_to_in_process") > 0.1);
    assert_eq!(run.figure("deliveries"), 720.0);
}

#[test]
fn stored_rooms_are_written_once_and_compared_the_next_time() {
    let directory = tempfile::tempdir().unwrap();
    let server = on_disk(directory.path());
    let first = relay(server, "--stored 6 --document 5KB --seed 9").passed();
    assert_eq!((first.figure("rooms_written"), first.figure("rooms_found")), (6.0, 0.0));
    let again = relay(server, "--stored 6 --document 5KB --seed 9").passed();
    assert_eq!((again.figure("rooms_written"), again.figure("rooms_found")), (0.0, 6.0));
    relay(server, "--stored 6 --document 6KB --seed 9").failed("room 5 holds another document");
}

#[test]
fn a_relay_without_fault_passes_in_both_versions() {
    relay(double(Fault::Nothing), FIXED).passed();
    let run = relay(double(Fault::Old), &format!("{FIXED} --protocol v0")).passed();
    assert_eq!(run.figure("deliveries"), 720.0);
    assert!(run.report["figures"]["ack_p50_ms"].is_null());
}

#[test]
fn an_acknowledged_update_that_is_dropped_fails_the_run() {
    let run = relay(double(Fault::DropsOne), FIXED).failed("3 deliveries were lost");
    assert_eq!(run.figure("lost"), 3.0);
    // Nobody but its author has it: neither the three others nor the newcomer.
    run.failed("acknowledged edits are missing").failed("4 documents differ");
}

#[test]
fn an_acknowledged_update_that_is_not_kept_fails_the_run() {
    let run = relay(double(Fault::ForgetsOne), FIXED).failed("1 documents differ");
    assert_eq!(run.figure("lost"), 0.0);
    run.failed("acknowledged edits are missing");
    relay(double(Fault::ForgetsOne), &format!("{FIXED} --no-newcomer")).passed();
}

#[test]
fn one_lost_delivery_fails_the_run() {
    relay(double(Fault::SkipsOne), FIXED).failed("1 deliveries were lost").failed("1 documents differ");
}

#[test]
fn a_repeated_delivery_fails_the_run() {
    relay(double(Fault::RepeatsOne), FIXED).failed("3 deliveries came twice or out of order");
}

#[test]
fn a_changed_update_fails_the_run() {
    relay(double(Fault::GarblesOne), FIXED).failed("cannot be imported");
}

#[test]
fn an_update_that_comes_to_another_room_fails_the_run() {
    relay(double(Fault::Strays), FIXED).failed("8 messages came to somebody who is not in the room");
}

#[test]
fn a_missing_and_a_second_ack_fail_the_run() {
    relay(double(Fault::Silent), FIXED).failed("1 updates were never acknowledged");
    relay(double(Fault::AcksTwice), FIXED).failed("1 acks came for what was not sent, or twice");
}

#[test]
fn a_refused_update_is_told_with_its_status_and_is_not_lost() {
    let run = relay(double(Fault::Refuses), FIXED).failed("1 updates were refused: rate_limited");
    assert_eq!((run.figure("lost"), run.figure("acks_rate_limited")), (0.0, 1.0));
    relay(stingy(), FIXED).failed("updates were refused: rate_limited");
}

#[test]
fn a_pause_of_the_relay_shows_in_every_edit_that_was_due_meanwhile() {
    let run =
        relay(double(Fault::Pauses), "--rooms 3 --clients 4 --rate 200 --warmup 0s --duration 1s").passed();
    for figure in ["latency_p99_ms", "ack_p99_ms"] {
        let p99 = run.figure(figure);
        assert!(p99 > 400.0, "{figure} is {p99}");
    }
}

#[test]
fn what_cannot_be_run_is_one_line_and_exit_code_2() {
    let locked = format!("ws://{}", double(Fault::LocksOut));
    for (arguments, expected) in [
        (["relay", "http://127.0.0.1", "--json"], "expected ws://host:port/path"),
        (["relay", "ws://127.0.0.1:1", "--payload=10"], "--payload is 10, 42 to"),
        (["relay", "ws://127.0.0.1:1", "--writers=21"], "--writers is 21, 1 to 20"),
        (["relay", &locked, "--clients=3"], "the server refused"),
        (["relay", &locked, "--join=1KB"], "refused with AuthFailed"),
    ] {
        let output = loadtest(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
