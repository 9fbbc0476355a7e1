//! What this machine has to allow before so many connections can be made.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::ensure;

use crate::{
    client::{Options, Target},
    measure::process::raise_open_files,
    report::grouped,
};

/// Connections that one local address is used for; it has about 28,000 ports.
const PER_LOCAL_ADDRESS: u32 = 20_000;
/// Files that are open besides the connections.
const OTHER_FILES: u64 = 64;

/// Fails early, with what to change, when this process cannot have so many connections to that server.
///
/// # Errors
/// When it may not open enough files, or when one address of this machine has too few ports.
pub(crate) fn check(target: &Target, connections: u64) -> anyhow::Result<()> {
    let what = format!("{} connections to one server", grouped(connections));
    check_files(&what, connections, raise_open_files())?;
    // On loopback there are more addresses to connect from.
    if target.is_ipv4_loopback() { Ok(()) } else { check_ports(&what, connections, ports()) }
}

/// The same for peers that connect to each other: each has so many files open, and so many ports of each local address.
///
/// # Errors
/// As for [`check`].
pub(crate) fn check_peers(peers: u64, files: u64, ports_each: u64) -> anyhow::Result<()> {
    let what = format!("{} peers", grouped(peers));
    check_files(&what, peers * files, raise_open_files())?;
    check_ports(&what, peers * ports_each, ports())
}

fn check_files(what: &str, files: u64, limit: u64) -> anyhow::Result<()> {
    let needed = files + OTHER_FILES;
    ensure!(
        needed <= limit,
        "{what} need {} open files and the limit is {}: raise it with `ulimit -n`",
        grouped(needed),
        grouped(limit)
    );
    Ok(())
}

fn check_ports(what: &str, needed: u64, ports: u64) -> anyhow::Result<()> {
    ensure!(
        needed <= ports,
        "{what} need {} ports and this machine uses {}: widen `sysctl net.ipv4.ip_local_port_range` (at most 1024 to \
         65535), or share the load between several machines",
        grouped(needed),
        grouped(ports)
    );
    Ok(())
}

/// How many ports the system gives to outgoing connections.
fn ports() -> u64 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_ascii_whitespace().filter_map(|end| end.parse::<u64>().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) => last.saturating_sub(first) + 1,
        // Linux's default where it does not say.
        _ => 28_232,
    }
}

/// How the `nth` connection is made: beyond what one address has ports for, from other loopback addresses.
pub(crate) fn nth_connection(target: &Target, nth: u32) -> Options {
    let group = nth / PER_LOCAL_ADDRESS;
    if group == 0 || !target.is_ipv4_loopback() {
        return Options::default();
    }
    let [_, b, c, d] = (1 + group).to_be_bytes();
    Options { from: Some(IpAddr::V4(Ipv4Addr::new(127, b, c, d))), receive_buffer: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_files_and_ports_are_told_with_what_to_change() {
        assert!(check_files("all", 936, 1000).is_ok());
        assert!(check_files("all", 937, 1000).unwrap_err().to_string().contains("`ulimit -n`"));
        assert!(check_ports("all", 28_232, 28_232).is_ok());
        let error = check_ports("all", 28_233, 28_232).unwrap_err().to_string();
        assert!(error.contains("28,233") && error.contains("net.ipv4.ip_local_port_range"), "{error}");
        assert!(ports() > 1000);
    }

    #[test]
    fn on_loopback_many_connections_come_from_several_addresses() {
        let here = Target::resolve("ws://127.0.0.1:1").unwrap();
        let from = |nth| nth_connection(&here, nth).from;
        assert_eq!((from(0), from(19_999)), (None, None));
        assert_eq!(from(20_000), Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))));
    }
}
