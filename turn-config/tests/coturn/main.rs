//! Promises kept together with the real coturn.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod server;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use server::{Coturn, SECRET, Setup, has_ipv6, login_at, login_of};
use turn_config::probe::{Family, Login, ProbeError, Step, TurnClient, probe};
use turn_config::url::Transport;

const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];
const ANOTHER_SECRET: &str = "another-secret-for-the-rotation";

/// The code an allocation is refused with.
fn refusal(coturn: &Coturn, transport: Transport, login: &Login) -> u16 {
    match coturn.connect(transport, login).allocate(Family::V4) {
        Err(ProbeError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ProbeError>) -> u16 {
    match result {
        Err(ProbeError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

fn receive(client: &mut TurnClient) -> (SocketAddr, Vec<u8>) {
    client.receive(Instant::now() + client.patience()).unwrap().expect("data comes through")
}

#[test]
fn a_minted_credential_relays_both_ways_over_udp_tcp_and_tls() {
    let coturn = Coturn::start(&Setup::default());
    let login = login_of(SECRET, "reviewer", "1h");
    for transport in TRANSPORTS {
        let mut ana = coturn.connect(transport, &login);
        let mut ben = coturn.connect(Transport::Udp, &login);
        let [anas, bens] = [&mut ana, &mut ben].map(|client| client.allocate(Family::V4).unwrap().relayed);
        ana.permit(bens.ip()).unwrap();
        let channel = ben.bind_channel(anas).unwrap();
        ana.send(bens, b"line 3 is wrong").unwrap();
        assert_eq!(receive(&mut ben), (anas, b"line 3 is wrong".to_vec()), "{transport}");
        ben.send_on(channel, b"fixed").unwrap();
        assert_eq!(receive(&mut ana), (bens, b"fixed".to_vec()), "{transport}");
    }
}

#[test]
fn the_probe_sees_every_step_work() {
    let coturn = Coturn::start(&Setup::default());
    let login = login_of(SECRET, "probe", "1h");
    for transport in TRANSPORTS {
        let mut steps = Vec::new();
        probe(&coturn.url(transport), &login, Family::V4, &coturn.settings(), |step| steps.push(step))
            .unwrap();
        assert!(
            matches!(
                steps.as_slice(),
                [Step::Connected { .. }, Step::Bound { .. }, Step::Allocated { .. }, Step::Relayed { .. }]
            ),
            "{transport}: {steps:?}"
        );
    }
}

#[test]
fn expired_forged_and_wrongly_signed_credentials_are_refused() {
    let coturn = Coturn::start(&Setup::default());
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let good = login_of(SECRET, "reviewer", "1h");
    let (expiry, _) = good.username.split_once(':').unwrap();
    let later = expiry.parse::<u64>().unwrap() + 1000;
    for transport in TRANSPORTS {
        let refused =
            |login: &Login| assert_eq!(refusal(&coturn, transport, login), 401, "{transport}: {login:?}");
        refused(&login_at(an_hour_ago, SECRET, "reviewer", "59m"));
        refused(&login_of(ANOTHER_SECRET, "reviewer", "1h"));
        refused(&Login { username: format!("{later}:reviewer"), password: good.password.clone() });
        refused(&Login { username: format!("{expiry}:admin"), password: good.password.clone() });
        refused(&Login { username: "reviewer".to_owned(), password: good.password.clone() });
        coturn.connect(transport, &good).allocate(Family::V4).unwrap();
    }
}

#[test]
fn an_allocation_outlives_the_credential_it_was_made_with() {
    let coturn = Coturn::start(&Setup::default());
    let minted = SystemTime::now();
    let login = login_at(minted, SECRET, "reviewer", "2s");
    let mut early = coturn.connect(Transport::Udp, &login);
    early.allocate(Family::V4).unwrap();
    // Refreshed while the clock on the wall goes on: what a browser does, only more often.
    while minted.elapsed().unwrap() < Duration::from_secs(4) {
        early.refresh(Duration::from_secs(600)).unwrap();
        assert_eq!(early.receive(Instant::now() + Duration::from_millis(200)).unwrap(), None);
    }
    assert_eq!(refusal(&coturn, Transport::Udp, &login), 401);
    assert_eq!(early.refresh(Duration::from_secs(600)).unwrap(), Duration::from_secs(600));
    early.permit([192, 0, 2, 1].into()).unwrap();
}

#[test]
fn both_secrets_work_while_they_are_changed_and_then_only_the_new_one() {
    let old = login_of(SECRET, "reviewer", "1h");
    let new = login_of(ANOTHER_SECRET, "reviewer", "1h");

    let during = Coturn::start(&Setup { secrets: vec![ANOTHER_SECRET, SECRET], ..Setup::default() });
    for login in [&old, &new] {
        during.connect(Transport::Udp, login).allocate(Family::V4).unwrap();
    }
    drop(during);

    let after = Coturn::start(&Setup { secrets: vec![ANOTHER_SECRET], ..Setup::default() });
    assert_eq!(refusal(&after, Transport::Udp, &old), 401);
    after.connect(Transport::Udp, &new).allocate(Family::V4).unwrap();
}

fn is_denied(client: &mut TurnClient, peers: &[&str]) {
    for peer in peers {
        let peer: IpAddr = peer.parse().unwrap();
        assert_eq!(code(client.permit(peer)), 403, "{peer}");
        assert_eq!(code(client.bind_channel(SocketAddr::new(peer, 80))), 403, "{peer}");
    }
}

#[test]
fn a_peer_in_a_denied_range_is_refused_and_one_that_is_allowed_is_not() {
    let peers = "allow = [\"10.9.8.0/24\"]\ndeny = [\"192.0.2.128/25\"]";
    let coturn = Coturn::start(&Setup { peers, ..Setup::default() });
    let mut client = coturn.connect(Transport::Udp, &login_of(SECRET, "reviewer", "1h"));
    client.allocate(Family::V4).unwrap();
    is_denied(
        &mut client,
        &[
            "0.0.0.1",
            "10.0.0.1",
            "10.9.7.255",
            "10.9.9.0",
            "100.64.0.1",
            "127.0.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.128",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
        ],
    );
    for allowed in ["10.9.8.0", "10.9.8.255", "192.0.2.127", "198.51.100.1", "168.63.129.15"] {
        client.permit(allowed.parse().unwrap()).unwrap_or_else(|error| panic!("{allowed}: {error}"));
    }
}

#[test]
fn a_peer_in_a_denied_ipv6_range_is_refused() {
    if !has_ipv6() {
        return;
    }
    let peers = "allow = [\"fd00:7::/64\"]\ndeny = [\"2001:db8:6::/48\"]";
    let coturn = Coturn::start(&Setup { peers, ipv6: true, ..Setup::default() });
    let mut client = coturn.connect(Transport::Udp, &login_of(SECRET, "reviewer", "1h"));
    let relayed = client.allocate(Family::V6).unwrap().relayed;
    assert!(relayed.is_ipv6(), "{relayed}");
    is_denied(
        &mut client,
        &[
            "::1",
            "::",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2001::1",
            "2002:a00:1::1",
            "2001:db8:6::1",
            "fd00:ec2::254",
            "fd00:8::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ],
    );
    for allowed in ["fd00:7::1", "2001:db8:7::1", "2606:4700::1"] {
        client.permit(allowed.parse().unwrap()).unwrap_or_else(|error| panic!("{allowed}: {error}"));
    }
}

#[test]
fn relayed_data_comes_through_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    let coturn = Coturn::start(&Setup { peers: "allow = [\"::1\"]", ipv6: true, ..Setup::default() });
    let login = login_of(SECRET, "probe", "1h");
    let mut relayed = false;
    let told = |step| relayed |= matches!(step, Step::Relayed { .. });
    probe(&coturn.url(Transport::Udp), &login, Family::V6, &coturn.settings(), told).unwrap();
    assert!(relayed);
}

#[test]
fn the_quota_counts_a_user_id_under_all_its_credentials() {
    let coturn = Coturn::start(&Setup { quotas: "per_user = 2", ..Setup::default() });
    let first = login_of(SECRET, "greedy", "1h");
    let mut held: Vec<_> = (0..2).map(|_| coturn.connect(Transport::Udp, &first)).collect();
    for client in &mut held {
        client.allocate(Family::V4).unwrap();
    }
    assert_eq!(refusal(&coturn, Transport::Udp, &login_of(SECRET, "greedy", "2h")), 486);
    coturn.connect(Transport::Udp, &login_of(SECRET, "modest", "1h")).allocate(Family::V4).unwrap();
}

#[test]
fn the_rendered_file_is_taken_without_a_warning() {
    // Nothing allowed: coturn rightly warns of allowed loopback peers, which only tests have.
    let coturn = Coturn::start(&Setup { peers: "", ipv6: has_ipv6(), ..Setup::default() });
    coturn.connect(Transport::Tls, &login_of(SECRET, "reviewer", "1h")).allocate(Family::V4).unwrap();
    let log = coturn.log();
    assert!(log.contains("Total General servers"), "this is no log:\n{log}");
    for line in log.lines() {
        let lower = line.to_lowercase();
        assert!(!["warning", "error", "bad config"].iter().any(|bad| lower.contains(bad)), "{line}");
    }
}
