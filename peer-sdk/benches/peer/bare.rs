//! Bare connections of the crate, each with an open data channel that takes messages as long as ours: what there is no
//! less of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peer_sdk::adapter::webrtc::MAX_MESSAGE;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    SettingEngineBuilder,
};

use crate::idle::{SETTLE, resident, rest, with_ends};

pub(crate) async fn measure(ends: u64, seconds: u64) -> Value {
    let before = resident();
    // All at once, as the peers of a mesh do it.
    let one = || tokio::spawn(tokio::time::timeout(Duration::from_secs(60), pair()));
    let pairs = futures_util::future::join_all((0..ends.div_ceil(2)).map(|_| one())).await;
    assert!(pairs.iter().all(|pair| matches!(pair, Ok(Ok(_)))), "connections in time");
    tokio::time::sleep(SETTLE).await;
    let figures = rest(before, seconds).await;
    with_ends(figures, pairs.len() * 2)
}

struct Teller {
    gathered: watch::Sender<bool>,
    channels: mpsc::Sender<Arc<dyn DataChannel>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Teller {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.gathered.send_replace(state == RTCIceGatheringState::Complete);
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        let _ = self.channels.try_send(channel);
    }
}

struct End {
    connection: Arc<dyn PeerConnection>,
    gathered: watch::Receiver<bool>,
    channels: mpsc::Receiver<Arc<dyn DataChannel>>,
}

async fn end() -> End {
    let (gathered, is_gathered) = watch::channel(false);
    let (channels, came) = mpsc::channel(4);
    // The crate reserves as much for each connection as its longest message may have.
    let longest = u32::try_from(MAX_MESSAGE).expect("a constant that fits");
    let settings =
        SettingEngineBuilder::new().with_sctp_max_message_size(SctpMaxMessageSize::Bounded(longest)).build();
    let connection = PeerConnectionBuilder::<SocketAddr>::new()
        .with_setting_engine(settings)
        .with_handler(Arc::new(Teller { gathered, channels }))
        .with_udp_addrs(vec!["127.0.0.1:0".parse().unwrap()])
        .build()
        .await
        .unwrap();
    End { connection: Arc::new(connection), gathered: is_gathered, channels: came }
}

/// Two ends with an open channel, which two tasks wait on.
async fn pair() -> [Arc<dyn PeerConnection>; 2] {
    let (mut ana, mut ben) = (end().await, end().await);
    let channel = ana.connection.create_data_channel("bare", None).await.unwrap();
    let offer = ana.connection.create_offer(None).await.unwrap();
    ana.connection.set_local_description(offer).await.unwrap();
    ana.gathered.wait_for(|gathered| *gathered).await.unwrap();
    let offer = ana.connection.local_description().await.unwrap();
    ben.connection.set_remote_description(offer).await.unwrap();
    let answer = ben.connection.create_answer(None).await.unwrap();
    ben.connection.set_local_description(answer).await.unwrap();
    ben.gathered.wait_for(|gathered| *gathered).await.unwrap();
    let answer = ben.connection.local_description().await.unwrap();
    ana.connection.set_remote_description(answer).await.unwrap();
    let other = ben.channels.recv().await.unwrap();
    opened(channel).await;
    opened(other).await;
    [ana.connection, ben.connection]
}

async fn opened(channel: Arc<dyn DataChannel>) {
    while !matches!(channel.poll().await.unwrap(), DataChannelEvent::OnOpen) {}
    tokio::spawn(async move { while channel.poll().await.is_some() {} });
}
