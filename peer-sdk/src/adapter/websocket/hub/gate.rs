//! Who may come in: by `Host`, `Origin` and token.

use std::net::SocketAddr;

use percent_encoding::percent_decode_str;
use tokio_tungstenite::tungstenite::handshake::server::Request;
use tokio_tungstenite::tungstenite::http::{HeaderMap, StatusCode, header};

use super::HubBuilder;

/// Who may come in.
#[derive(Debug)]
pub(super) struct Gate {
    origins: Vec<String>,
    hosts: Vec<String>,
    pub(super) token: Option<String>,
    pub(super) guests: usize,
}

impl Gate {
    pub(super) fn new(builder: HubBuilder, local: SocketAddr) -> Self {
        let mut hosts = builder.hosts;
        hosts.extend([
            local.to_string(),
            format!("localhost:{}", local.port()),
            format!("127.0.0.1:{}", local.port()),
        ]);
        hosts.push(format!("[::1]:{}", local.port()));
        Self { origins: builder.origins, hosts, token: builder.token, guests: builder.guests }
    }

    pub(super) fn admits(&self, request: &Request) -> Result<(), (StatusCode, &'static str)> {
        let header = |name| text(request.headers(), name);
        let host = header(header::HOST).unwrap_or_default();
        if !self.hosts.iter().any(|known| host.eq_ignore_ascii_case(known)) {
            return Err((StatusCode::FORBIDDEN, "unknown host"));
        }
        if request.headers().contains_key(header::ORIGIN) {
            let origin = header(header::ORIGIN).unwrap_or_default();
            if !self.origins.iter().any(|known| origin.eq_ignore_ascii_case(known)) {
                return Err((StatusCode::FORBIDDEN, "unknown origin"));
            }
        }
        let query = request.uri().query().unwrap_or_default();
        let shown = query.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default();
        let shown = percent_decode_str(shown).collect::<Vec<_>>();
        match &self.token {
            Some(token) if !same(token.as_bytes(), &shown) => Err((StatusCode::UNAUTHORIZED, "wrong token")),
            _ => Ok(()),
        }
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Compares in a time that tells nothing but the length.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
