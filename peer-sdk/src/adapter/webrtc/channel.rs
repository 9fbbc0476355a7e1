//! The two directions of a data channel: one task reads, one writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, watch};
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelMessage};

use super::Event;
use super::owner::{Gone, Link};

/// How often an emptying channel is looked at while it is closed.
const LOOK: Duration = Duration::from_millis(5);

/// How often it is looked whether what was sent has been acknowledged. An acknowledgement may wait 200 ms for company.
const ACKNOWLEDGED: Duration = Duration::from_millis(250);

/// Where a channel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Stage {
    Opening,
    Open,
    Ended,
}

/// Whether every message arrives, in order.
pub(super) async fn is_reliable(channel: &dyn DataChannel) -> bool {
    matches!(channel.ordered().await, Ok(true))
        && matches!(channel.max_retransmits().await, Ok(None))
        && matches!(channel.max_packet_life_time().await, Ok(None))
}

/// Reads until the channel has ended. `largest` is what the other side takes.
pub(super) async fn read(
    channel: Arc<dyn DataChannel>,
    link: Link,
    largest: watch::Receiver<usize>,
    stage: watch::Sender<Stage>,
) {
    // With nobody to tell, it is still heard whether the other side has closed the channel.
    let mut is_heard = true;
    while let Some(event) = channel.poll().await {
        let passed_on = match event {
            DataChannelEvent::OnOpen if *stage.borrow() == Stage::Opening => {
                let label = channel.label().await.unwrap_or_default();
                let max_message_size = *largest.borrow();
                // First, so that whoever hears of it can send.
                link.outbox.open(max_message_size);
                stage.send_replace(Stage::Open);
                link.tell(Event::Open { label, max_message_size }).await
            }
            DataChannelEvent::OnMessage(message) if is_heard => pass_on(&link, message).await,
            DataChannelEvent::OnClose => break,
            _ => Ok(()),
        };
        is_heard &= passed_on.is_ok();
    }
    link.outbox.shut();
    stage.send_replace(Stage::Ended);
}

async fn pass_on(link: &Link, message: RTCDataChannelMessage) -> Result<(), Gone> {
    link.pace.busy();
    // Room is made when the event is read. No message is larger than the crate takes, which is what we told it.
    let weight = u32::try_from(message.data.len()).map_err(|_| Gone)?;
    let room = tokio::select! {
        room = link.room.acquire_many(weight) => room.map_err(|_| Gone)?,
        () = link.stop.cancelled() => return Err(Gone),
    };
    room.forget();
    let data = message.data.freeze();
    link.tell(if message.is_string { Event::Text(data) } else { Event::Message(data) }).await
}

/// Writes what is queued until the channel takes no more.
pub(super) async fn write(channel: Arc<dyn DataChannel>, link: Link, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(message) = next(channel.as_ref(), &link, &mut queue).await {
        let len = message.len();
        link.pace.sends();
        let message = message.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if let Err(error) = channel.send(message).await {
            tracing::debug!(%error, "a channel that takes no more");
            link.outbox.shut();
            return;
        }
        if link.outbox.taken(len) && link.tell(Event::Drained).await.is_err() {
            return;
        }
    }
}

/// The next message to write. Meanwhile it is noticed when all that was written has been acknowledged.
async fn next(channel: &dyn DataChannel, link: &Link, queue: &mut mpsc::Receiver<Bytes>) -> Option<Bytes> {
    while link.pace.is_owed() {
        match tokio::time::timeout(ACKNOWLEDGED, queue.recv()).await {
            Ok(message) => return message,
            Err(_) if is_acknowledged(channel).await => link.pace.settled(),
            Err(_) => {}
        }
    }
    queue.recv().await
}

/// Whether all that was written has been acknowledged, or never will be.
async fn is_acknowledged(channel: &dyn DataChannel) -> bool {
    !channel.outstanding_bytes().await.is_ok_and(|bytes| bytes > 0)
}

/// Closes a channel that is not ours, and waits until the other side has heard it.
pub(super) async fn decline(channel: &dyn DataChannel) {
    if channel.close().await.is_ok() {
        while let Some(event) = channel.poll().await {
            if matches!(event, DataChannelEvent::OnClose) {
                return;
            }
        }
    }
}

/// Waits until everything that was queued has been acknowledged.
pub(super) async fn flushed(channel: &dyn DataChannel, link: &Link) {
    while link.outbox.queued() > 0 || !is_acknowledged(channel).await {
        link.pace.kick();
        tokio::time::sleep(LOOK).await;
    }
}
