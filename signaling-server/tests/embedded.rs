//! The service inside of another one's router.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use serde_json::json;
use signaling_server::config::Config;
use signaling_server::http;
use signaling_server::signaling::Signaling;
use support::Client;
use tokio::net::TcpListener;

#[tokio::test]
async fn another_service_can_nest_the_router() {
    let signaling = Signaling::new(&Config::default()).unwrap();
    let app = Router::new()
        .route("/", get(|| async { "the host's own page" }))
        .nest("/signaling", http::router(signaling.clone()));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });

    assert_eq!(support::get(address, "/").await.1, "the host's own page");
    let mut ana = Client::connect(&format!("ws://{address}/signaling/any/path")).await;
    ana.subscribe("t").await;
    ana.publish("t", json!(1)).await;
    assert_eq!(ana.next().await["clients"], 1);
    assert_eq!(signaling.hub().connections(), 1);

    let (close, ()) = tokio::join!(ana.closed(), signaling.close(std::time::Duration::ZERO));
    assert_eq!(u16::from(close.unwrap().code), 1012);
    assert_eq!(support::upgrade_status(&format!("ws://{address}/signaling"), &[]).await, 503);
}
