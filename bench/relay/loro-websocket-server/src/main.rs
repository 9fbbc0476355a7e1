//! The relay of `loro-websocket-server` 0.1.0 as it comes, in memory, on a free port that is printed.

use std::error::Error;

use loro_websocket_server::serve_incoming;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on ws://{}", listener.local_addr()?);
    serve_incoming(listener).await
}
