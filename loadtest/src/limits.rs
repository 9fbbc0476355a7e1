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
    check_files(connections, raise_open_files())?;
    // On loopback there are more addresses to connect from.
    if target.is_ipv4_loopback() { Ok(()) } else { check_ports(connections, ports()) }
}

fn check_files(connections: u64, limit: u64) -> anyhow::Result<()> {
    let needed = connections + OTHER_FILES;
    ensure!(
        needed <= limit,
        "{} connections need {} open files and the limit is {}: raise it with `ulimit -n`",
        grouped(connections),
        grouped(needed),
        grouped(limit)
    );
    Ok(())
}

fn check_ports(connections: u64, ports: u64) -> anyhow::Result<()> {
    ensure!(
        connections <= ports,
        "{} connections to one server need as many ports and this machine uses {}: widen \
         `sysctl net.ipv4.ip_local_port_range` (at most 1024 to 65535), or share the load between several machines",
        grouped(connections),
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
        assert!(check_files(936, 1000).is_ok());
        assert!(check_files(937, 1000).unwrap_err().to_string().contains("`ulimit -n`"));
        assert!(check_ports(28_232, 28_232).is_ok());
        let error = check_ports(28_233, 28_232).unwrap_err().to_string();
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
