//! The URL of a signaling server, taken apart.

use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a query value may hold as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where to connect, and what to ask for there.
pub(super) struct Target {
    /// The host without brackets, for looking it up and for its certificate.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_tls: bool,
    /// The whole URL, with the token.
    pub(super) url: String,
}

impl Target {
    pub(super) fn parse(url: &str, token: Option<&str>) -> Result<Self, String> {
        let expected =
            || format!("expected ws://HOST[:PORT][/PATH] or wss://HOST[:PORT][/PATH], found {url:?}");
        let uri: Uri = url.parse().map_err(|_| expected())?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(expected()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(expected)?;
        let authority = uri.authority().ok_or_else(expected)?;
        // `:99999` parses as an authority without a port.
        if authority.as_str().ends_with(':')
            || authority.as_str().rsplit_once(':').is_some_and(|(_, port)| is_bad_port(port))
        {
            return Err(expected());
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self {
            host: bare.to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            is_tls,
            url: with_token(&uri, token),
        })
    }
}

fn is_bad_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_err()
}

fn with_token(uri: &Uri, token: Option<&str>) -> String {
    let path = if uri.path().is_empty() { "/" } else { uri.path() };
    let token = token.map(|token| format!("token={}", utf8_percent_encode(token, KEPT)));
    let query: Vec<&str> = uri.query().into_iter().chain(token.as_deref()).collect();
    let question = if query.is_empty() { "" } else { "?" };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}{path}{question}{}", uri.scheme_str().unwrap_or("ws"), query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, u16, bool, String) {
        let target = Target::parse(url, Some("a b+/=")).unwrap();
        (target.host, target.port, target.is_tls, target.url)
    }

    #[test]
    fn the_token_goes_where_a_client_would_put_it() {
        let token = "token=a%20b%2B%2F%3D";
        assert_eq!(parsed("ws://h"), ("h".into(), 80, false, format!("ws://h/?{token}")));
        assert_eq!(parsed("wss://h:1/p?x=1"), ("h".into(), 1, true, format!("wss://h:1/p?x=1&{token}")));
        assert_eq!(parsed("wss://[::1]"), ("::1".into(), 443, true, format!("wss://[::1]/?{token}")));
    }

    #[test]
    fn what_is_no_websocket_url_is_refused() {
        for url in ["", "localhost:4444", "http://h", "ws://", "wss:///p", "ws://h:99999", "ws://h:"] {
            assert!(Target::parse(url, None).is_err(), "{url}");
        }
    }
}
