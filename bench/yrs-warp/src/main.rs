//! The signaling service of `yrs-warp` 0.9.0, served as its own example does, on a free port that is printed.

use warp::{
    Filter, Rejection, Reply,
    ws::{WebSocket, Ws},
};
use yrs_warp::signaling::{SignalingService, signaling_conn};

#[tokio::main]
async fn main() {
    let signaling = SignalingService::new();
    let routes = warp::ws().and(warp::any().map(move || signaling.clone())).and_then(upgrade);
    let (address, serving) = warp::serve(routes).bind_ephemeral(([127, 0, 0, 1], 0));
    println!("listening on ws://{address}");
    serving.await;
}

async fn upgrade(ws: Ws, service: SignalingService) -> Result<impl Reply, Rejection> {
    Ok(ws.on_upgrade(move |socket| serve(socket, service)))
}

async fn serve(socket: WebSocket, service: SignalingService) {
    // What ended a connection is of no interest here; a server would log it.
    let _ = signaling_conn(socket, service).await;
}
