//! One HTTP request.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

use super::{IceError, MAX_ANSWER};
use crate::adapter::signaling::dial::{Address, dial};

/// The body of an answer, or `None` when it has none (204). Redirections are not followed: a token in the URL is meant
/// for its server alone.
pub(super) async fn get(
    address: &Address,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Option<Bytes>, IceError> {
    let stream = dial(address, tls).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::get(address.path_and_query())
        .header(header::HOST, address.authority())
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| IceError::Broken(error.to_string()))?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return Ok(None),
            status => return Err(IceError::Status(status.as_u16())),
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        body.map(|body| Some(body.to_bytes())).map_err(|error| {
            if error.is::<LengthLimitError>() {
                IceError::TooLarge
            } else {
                IceError::Broken(error.to_string())
            }
        })
    };
    tokio::pin!(connection);
    tokio::pin!(answered);
    // The connection is driven here and ends here.
    tokio::select! {
        answered = &mut answered => answered,
        driven = &mut connection => match driven {
            // The last bytes may have come with the end.
            Ok(()) => answered.await,
            Err(error) => Err(broken(error)),
        },
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err passes")]
fn broken(error: hyper::Error) -> IceError {
    IceError::Broken(error.to_string())
}
