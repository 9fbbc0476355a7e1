//! One connection of the probe, and what it trusts.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::tls::read_certificates;
use crate::watched::FileError;

/// Bytes both ways, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Trust in the system's certificates and those of `ca`. That the system has none is no error here: the handshake will
/// say that the server's certificate is not trusted.
pub(super) fn trust(ca: Option<&Path>) -> Result<Arc<ClientConfig>, FileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        roots.add_parsable_certificates(read_certificates(path)?);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A WebSocket that speaks JSON and waits no longer than its patience.
pub(super) struct Client {
    pub(super) socket: WebSocketStream<Box<dyn Stream>>,
    pub(super) patience: Duration,
}

impl Client {
    /// Sends a message.
    pub(super) async fn send(&mut self, message: &Value) -> Result<(), String> {
        let sent = self.socket.send(Message::text(message.to_string()));
        within(self.patience, sent).await?.map_err(|error| plainly(&error))
    }

    /// The first message that `is_wanted`, and when it came; others are passed over.
    pub(super) async fn receive(
        &mut self,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<(Value, Instant), String> {
        let patience = self.patience;
        let wanted = async {
            loop {
                let message = match self.socket.next().await {
                    None => return Err("the server closed the connection".to_owned()),
                    Some(Err(error)) => return Err(plainly(&error)),
                    Some(Ok(Message::Close(frame))) => {
                        return Err(closed(frame.map(|frame| frame.code.into())));
                    }
                    Some(Ok(message)) => message,
                };
                let text = message.to_text().unwrap_or_default();
                match serde_json::from_str(text) {
                    Ok(value) if is_wanted(&value) => return Ok((value, Instant::now())),
                    _ => {}
                }
            }
        };
        within(patience, wanted).await?
    }
}

fn closed(code: Option<u16>) -> String {
    match code {
        Some(code) => format!("the server closed the connection with code {code}"),
        None => "the server closed the connection".to_owned(),
    }
}

fn plainly(error: &Error) -> String {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => "the server closed the connection".to_owned(),
        error => error.to_string(),
    }
}

/// What a step made, unless it took too long.
pub(super) async fn within<T>(patience: Duration, step: impl Future<Output = T>) -> Result<T, String> {
    let late = |_| format!("no answer in {} s", patience.as_secs_f64());
    tokio::time::timeout(patience, step).await.map_err(late)
}
