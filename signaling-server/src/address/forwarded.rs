//! The headers in which a proxy names the client: one entry for each proxy on the way, the nearest last. An entry is
//! `None` when it names no address that can be read.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The entries of `X-Forwarded-For`; `None` without such a header.
pub(super) fn x_forwarded_for(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    entries(headers, &X_FORWARDED_FOR, |line| line.split(',').map(|entry| address(entry.trim())).collect())
}

/// The entries of `Forwarded` (RFC 7239); `None` without such a header.
pub(super) fn forwarded(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    entries(headers, &FORWARDED, |line| {
        split_unquoted(line, ',')
            .into_iter()
            .map(|element| forwarded_for(element).and_then(|node| address(&node)))
            .collect()
    })
}

fn entries(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl Fn(&str) -> Vec<Option<IpAddr>>,
) -> Option<Vec<Option<IpAddr>>> {
    let lines = headers.get_all(name);
    headers
        .contains_key(name)
        .then(|| lines.iter().flat_map(|line| line.to_str().map_or_else(|_| vec![None], &read)).collect())
}

/// An address with or without a port, an IPv6 one with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// The value of the one `for=` in an element such as `for="[2001:db8::1]:4711";proto=https`, unquoted.
fn forwarded_for(element: &str) -> Option<String> {
    let mut values = split_unquoted(element, ';').into_iter().filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    unquoted(value)
}

fn unquoted(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else {
        return Some(value.to_owned());
    };
    // A backslash only ever escapes a quote or itself, and neither is part of an address.
    rest.strip_suffix('"').map(str::to_owned)
}

/// Splits at each `separator` that is not inside double quotes.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let splits = c == separator && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        splits
    })
    .collect()
}
