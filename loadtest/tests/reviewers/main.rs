//! The reviewers' day against the real server, and against servers that do one thing wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;
#[path = "../support/run.rs"]
mod run;
#[path = "../support/server.rs"]
mod server;

use std::{fs, net::SocketAddr, path::Path, thread, time::Duration};

use double::{Fault, double};
use rcgen::{CertificateParams, KeyPair};
use run::{Run, against, loadtest};
use server::{any, in_memory, start, stored};
use signaling_server::config::{AccessMode, RelayMode, Secret};

/// Twelve reviewers in two rooms, hurried: half a minute's reading in two seconds.
const DAY: &str = "--count 12 --rooms 2 --ramp 300ms --duration 2s --document 2KB --annotate-every 300ms \
                   --cursor-every 100ms --lose-every 1s --away 200ms --seed 7";
/// The same without losses, so that a fault is the only thing that happens.
const CALM: &str = "--count 8 --ramp 200ms --duration 2s --document 2KB --annotate-every 200ms \
                    --cursor-every 200ms --lose-every 0s --seed 7";

fn reviewers(server: SocketAddr, flags: &str) -> Run {
    against(server, "reviewers", flags)
}

#[test]
fn a_day_ends_with_equal_documents_and_everybody_in_sight() {
    let run = reviewers(in_memory(), DAY).passed();
    assert!(run.figure("annotations") > 40.0);
    assert!(run.figure("lost_their_network") > 3.0 && run.figure("of_these_half_open") > 0.0);
    assert_eq!(run.figure("reconnects"), run.figure("lost_their_network"));
    // One of each room has gone home, and a newcomer looks at each.
    assert_eq!((run.figure("present_at_the_end"), run.figure("documents_compared")), (10.0, 12.0));
    assert_eq!((run.figure("lost"), run.figure("ghosts"), run.figure("unseen")), (0.0, 0.0, 0.0));
    assert_eq!(
        run.figure("annotations_acked") + run.figure("annotations_found_kept"),
        run.figure("annotations")
    );
    for figure in ["latency_p99_ms", "everybody_p99_ms", "ack_p99_ms", "presence_p99_ms", "catch_up_p99_ms"] {
        assert!((0.001..60_000.0).contains(&run.figure(figure)), "{figure}");
    }
    assert!(run.figure("latency_p50_ms") <= run.figure("everybody_p99_ms"));
}

#[test]
fn the_report_holds_the_servers_side_and_is_a_page_with_charts() {
    let directory = tempfile::tempdir().unwrap();
    let (server, page) = (stored(any(), directory.path()), directory.path().join("report.html"));
    let pid = std::process::id();
    let flags = format!("{CALM} --pid {pid} --metrics http://{} --html {}", server.metrics, page.display());
    let run = reviewers(server.address, &flags).passed();
    assert!(run.figure("server_cpu_us_per_delivery") > 0.0);
    assert!(run.figure("server_queue_high_water_bytes") > 0.0);
    let moments = run.report["timeline"].as_array().unwrap();
    assert!(moments.len() >= 2 && moments[1]["server_rss_bytes"].as_f64().unwrap() > 1e6);
    assert!(run.report["percentiles"].as_array().unwrap().len() > 10);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("Latency over time") && page.contains("Server memory") && page.contains("passed"));
}

#[test]
fn the_server_tells_its_own_figures_where_its_process_is_out_of_sight() {
    let server = start(any(), |config| config.relay.mode = RelayMode::Memory);
    let run = reviewers(server.address, &format!("{CALM} --metrics http://{}", server.metrics)).passed();
    // The page counts CPU time in whole seconds.
    assert!(run.figure("server_cpu_percent") >= 0.0 && run.figure("server_rss_peak_bytes") > 1e6);
}

#[test]
fn a_double_without_fault_passes() {
    reviewers(double(Fault::Nothing), DAY).passed();
}

#[test]
fn an_acked_annotation_that_is_dropped_is_missed_with_its_room_and_seed() {
    let run = reviewers(double(Fault::DropsOne), CALM).failed("lost=0 does not hold");
    // Nobody but its author has it, and none of the author's later ones can be shown without it.
    assert!(run.figure("lost") >= 6.0, "{}", run.figure("lost"));
    run.failed("room 0, seed 7: ").failed("acknowledged annotations, the first is number");
}

#[test]
fn an_annotation_that_overtakes_another_is_noticed() {
    let run = reviewers(double(Fault::Reorders), CALM).failed("out_of_order=0 does not hold");
    assert_eq!(run.figure("lost"), 0.0);
    run.failed("before an earlier one");
}

#[test]
fn one_reader_that_is_skipped_is_noticed() {
    let run = reviewers(double(Fault::SkipsOne), CALM).failed("lost=0 does not hold");
    assert_eq!(run.figure("documents_unequal"), 1.0);
}

#[test]
fn a_ghost_is_seen() {
    let run = reviewers(double(Fault::LeavesGhosts), CALM).failed("who has left");
    // One has gone home; six others and the newcomer see it still.
    assert_eq!(run.figure("ghosts"), 8.0);
    assert_eq!(run.figure("lost"), 0.0);
}

#[test]
fn presence_that_is_not_passed_on_is_missed() {
    let run = reviewers(double(Fault::HidesPresence), CALM).failed("does not see reviewer");
    assert!(run.figure("unseen") > 0.0);
}

#[test]
fn a_relay_that_does_not_send_what_was_there_before_leaves_people_stuck() {
    let run = reviewers(double(Fault::SendsNoPast), CALM).failed("never got all that the server has");
    assert!(run.figure("stuck") > 0.0);
}

#[test]
fn connections_that_come_and_go_and_a_restart_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = stored(any(), directory.path());
    let address = server.address;
    let restarted = directory.path().to_owned();
    let restart = thread::spawn(move || {
        thread::sleep(Duration::from_secs(2));
        server.stop();
        stored(address, &restarted)
    });
    let flags = "--count 10 --ramp 200ms --duration 4s --document 2KB --annotate-every 200ms --cursor-every 200ms \
                 --lose-every 800ms --away 100ms --storm-every 1500ms --threshold lost=0 --threshold out_of_order=0";
    let run = against(address, "churn", flags).passed();
    restart.join().unwrap();
    assert!(
        run.report["errors"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>()
            > 0
    );
    assert!(run.figure("reconnects") > 30.0);
    assert!(run.figure("annotations_brought_on_return") > 0.0);
}

#[test]
fn a_soak_tells_how_memory_grows_and_needs_to_see_it() {
    let flags =
        format!("{CALM} --duration 14s --count 4 --pid {} --threshold rss_slope<100GB", std::process::id());
    let run = against(in_memory(), "soak", &flags).passed();
    assert!(run.figure("server_rss_slope_bytes_per_hour").abs() < 100e9);
    let output = loadtest(&["soak", "ws://127.0.0.1:1", "--count=3"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--pid or --metrics"));
}

#[test]
fn reviewers_come_and_go_as_the_stages_say() {
    let flags = "--stage 500ms:10 --stage 1s:10 --stage 500ms:4 --document 1KB --annotate-every 300ms";
    let run = reviewers(in_memory(), flags).passed();
    assert_eq!((run.figure("arrivals"), run.figure("present_at_the_end")), (10.0, 4.0));
}

#[test]
fn a_plan_is_run_and_flags_take_the_place_of_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let plan = directory.path().join("plan.toml");
    let text = "scenario = \"reviewers\"\ncount = 50\nduration = \"1s\"\nramp = \"100ms\"\nannotate_every = \"100ms\"\ndocument = \"1KB\"\n\
                thresholds = [\"p99<10s\", \"lost=0\"]\njson = true\n";
    fs::write(&plan, text).unwrap();
    let (plan, url) = (plan.to_str().unwrap(), format!("ws://{}", in_memory()));
    let output = loadtest(&["run", plan, &url, "--count", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["figures"]["reviewers"], 3);
    assert_eq!(report["thresholds"].as_array().unwrap().len(), 2);
    fs::write(plan, format!("{text}cuont = 3\n")).unwrap();
    let output = loadtest(&["run", plan, &url]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--cuont"));
}

#[test]
fn capacity_runs_at_several_counts_or_searches() {
    let url = format!("ws://{}", in_memory());
    let scenario = [
        "--",
        "reviewers",
        &url,
        "--duration=500ms",
        "--ramp=100ms",
        "--document=1KB",
        "--cursor-every=100ms",
    ];
    let run = |flags: &[&str], last: &str| {
        let output = loadtest(&[&["capacity", "--json", "--rest=0s"], flags, &scenario, &[last]].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report)
    };
    let (code, report) = run(&["--at=2,5"], "--threshold=lost=0");
    assert_eq!((code, report["steps"].as_array().unwrap().len()), (Some(0), 2));
    assert_eq!(report["steps"][1]["report"]["figures"]["reviewers"], 5);
    let (code, report) = run(&["--from=2", "--most=20"], "--threshold=arrivals<7");
    assert_eq!((code, report["figures"]["capacity"].as_f64()), (Some(0), Some(6.0)));
    let (code, report) = run(&["--from=8"], "--threshold=arrivals<7");
    assert_eq!((code, &report["failures"][0]), (Some(1), &"not even 8 hold".into()));
}

#[test]
fn a_server_behind_tls_and_a_token_is_loaded_and_without_either_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(directory.path());
    let server = start(any(), |config| {
        config.relay.mode = RelayMode::Memory;
        config.access.mode = AccessMode::Tokens;
        config.access.tokens = vec![Secret::new("s3cret")];
        (config.tls.cert, config.tls.key) = (Some(cert.clone().into()), Some(key.into()));
    });
    let url = format!("wss://localhost:{}", server.address.port());
    let day = [
        "--count=4",
        "--ramp=100ms",
        "--duration=1s",
        "--document=400KB",
        "--lose-every=500ms",
        "--annotate-every=100ms",
    ];
    let run = |flags: &[&str]| {
        let output = loadtest(&[&["reviewers", &url], &day[..], flags].concat());
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let ca = format!("--ca={cert}");
    let (code, said) = run(&[&ca, "--token=s3cret"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("s3cret"));
    let (code, said) = run(&[&ca]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("AuthFailed"), "{said}");
    let (code, said) = run(&["--token=s3cret"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no tls"), "{said}");
    let signaling =
        loadtest(&["signaling", &url, &ca, "--token=s3cret", "--clients=4", "--rooms=2", "--duration=500ms"]);
    assert_eq!(signaling.status.code(), Some(0), "{}", String::from_utf8_lossy(&signaling.stdout));
    let relay =
        loadtest(&["relay", &url, &ca, "--token=s3cret", "--clients=4", "--rooms=2", "--duration=500ms"]);
    assert_eq!(relay.status.code(), Some(0), "{}", String::from_utf8_lossy(&relay.stdout));
}

fn certificate(directory: &Path) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let path = |name| directory.join(name).to_str().unwrap().to_owned();
    let (cert, private) = (path("cert.pem"), path("key.pem"));
    fs::write(&cert, certificate.pem()).unwrap();
    fs::write(&private, key.serialize_pem()).unwrap();
    (cert, private)
}

#[test]
fn thresholds_and_stages_hold_for_every_scenario() {
    let server = in_memory();
    let small = "--rooms 2 --clients 4 --warmup 100ms";
    let stages = "--stage 500ms:100 --stage 500ms:100";
    let run = against(server, "relay", &format!("{small} {stages} --threshold p99<10s --threshold lost=0"))
        .passed();
    // Half a second up to 100 a second, and half a second of it.
    assert!((70.0..=76.0).contains(&run.figure("updates")), "{}", run.figure("updates"));
    against(server, "relay", &format!("{small} --duration 500ms --threshold p99<1ns"))
        .failed("p99<1ns does not hold");
    let run = against(server, "signaling", &format!("{small} {stages} --threshold p99<10s")).passed();
    assert!((70.0..=76.0).contains(&run.figure("publishes")), "{}", run.figure("publishes"));
}

#[test]
fn a_threshold_on_a_figure_that_there_is_not_is_told_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let plan = directory.path().join("plan.toml");
    // Nobody listens there: what is said of the threshold comes before any connection.
    let text = "scenario = \"churn\"\nurl = \"ws://127.0.0.1:1\"\nthresholds = [\"lost=0\", \"p9<100ms\"]\n";
    fs::write(&plan, text).unwrap();
    let (url, wrong) = ("ws://127.0.0.1:1", "--threshold=p9<100ms");
    for arguments in [
        ["run", plan.to_str().unwrap()].as_slice(),
        &["reviewers", url, wrong],
        &["soak", url, wrong],
        &["mesh", url, wrong],
        &["signaling", url, wrong],
        &["relay", url, wrong],
        &["capacity", "--", "reviewers", url, wrong],
    ] {
        let output = loadtest(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        let said = "there is no figure \"p9\" for \"p9<100ms\", did you mean \"p99\"? There are p50 p90 p99 ";
        assert!(stderr.contains(said), "{stderr}");
        assert!(stderr.contains(" latency_p99_ms ") && stderr.contains(" errors"), "{stderr}");
    }
    let idle = loadtest(&["signaling", url, "--idle=10", "--threshold=p99<1s"]);
    assert!(String::from_utf8_lossy(&idle.stderr).contains("there is no figure \"latency_p99_ms\""));
}

#[test]
fn what_cannot_be_run_is_one_line_and_exit_code_2() {
    for (arguments, expected) in [
        (["reviewers", "ws://127.0.0.1:1", "--count=2"], "connect"),
        (["reviewers", "ws://127.0.0.1:1", "--rooms=400"], "--rooms is 400, 1 to 300"),
        (["reviewers", "ws://127.0.0.1:1", "--half-open=2"], "--half-open is 2, 0 to 1"),
        (["reviewers", "ws://127.0.0.1:1", "--count=900000"], "raise it with `ulimit -n`"),
        (["reviewers", "ws://127.0.0.1:1", "--metrics=http://127.0.0.1:1"], "cannot read http://127.0.0.1:1"),
        (["run", "/nonexistent/plan.toml", "--json"], "cannot read /nonexistent/plan.toml"),
        (["reviewers", "ws://127.0.0.1:1", "--threshold=rss<500MB"], "need --pid or --metrics"),
    ] {
        let output = loadtest(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
