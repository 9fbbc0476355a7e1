//! A WebSocket over any byte stream: messages in, ready-made frames out.
//!
//! Reading is tungstenite's, which never sees the stream: it is fed what has arrived, so that a connection at rest holds
//! no read buffer. What is written are the frames of an outbox, as they are.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};
use wire::frame::Kind;

use crate::frame::Frame;
use crate::metrics::Disconnect;
use crate::outbox::{Outbox, Progress};

/// Most bytes taken from a stream at once.
const READ_AT_ONCE: usize = 16 * 1024;
/// What tungstenite keeps for a connection at rest.
const READ_BUFFER: usize = 512;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AT_ONCE]);
}

/// Something that arrived.
#[derive(Debug)]
pub(crate) enum Event {
    Message(Kind, Bytes),
    /// The answer to a ping of ours, with the ping's payload.
    Pong(Bytes),
    /// A ping or an unsolicited frame; answered already.
    Control,
    /// Bytes of something that is not complete yet.
    Partial,
    /// The other end closed; the answer is on its way.
    Closed,
}

/// Why nothing more can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The stream ended or failed: there is nobody to tell.
    Gone,
    /// The other end broke the rules and is to be told so.
    Violation(Disconnect),
}

pub(crate) struct Socket<R, W> {
    reader: R,
    writer: W,
    context: WebSocketContext,
    /// Arrived, and not decoded yet.
    arrived: Bytes,
    /// Bytes that have arrived since [`Socket::take_received`].
    received: usize,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Socket<R, W> {
    /// A WebSocket whose handshake is done. `arrived` came right behind the handshake.
    pub(crate) fn new(reader: R, writer: W, arrived: Bytes, max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(READ_AT_ONCE)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        // An empty rest may still hold the whole buffer that the handshake was read into.
        let arrived = if arrived.is_empty() { Bytes::new() } else { arrived };
        let context = WebSocketContext::new(Role::Server, Some(config));
        Self { reader, writer, context, received: arrived.len(), arrived }
    }

    /// The next thing that arrived. Answers to control frames are put into `outbox`.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Outbox,
    ) -> Poll<Result<Event, ReadError>> {
        if let Some(event) = self.decode(outbox) {
            return Poll::Ready(event);
        }
        self.arrived = ready!(poll_bytes(Pin::new(&mut self.reader), cx)).ok_or(ReadError::Gone)?;
        self.received += self.arrived.len();
        Poll::Ready(self.decode(outbox).unwrap_or(Ok(Event::Partial)))
    }

    /// Bytes that have arrived since this was last asked.
    pub(crate) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// Reads and forgets; ready at the stream's end.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while ready!(poll_bytes(Pin::new(&mut self.reader), cx)).is_some() {}
        Poll::Ready(())
    }

    /// Writes what the outbox holds.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Progress {
        let writer = &mut self.writer;
        let mut progress =
            outbox.poll_write(cx, |cx, slices| Pin::new(&mut *writer).poll_write_vectored(cx, slices));
        if matches!(progress.written, Poll::Ready(Ok(()))) {
            progress.written = Pin::new(writer).poll_flush(cx);
        }
        progress
    }

    /// Ends the stream's write side.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }

    /// Decodes from what has arrived; `None` when that is used up.
    fn decode(&mut self, outbox: &Outbox) -> Option<Result<Event, ReadError>> {
        let mut feed = Feed { arrived: &mut self.arrived, answers: Vec::new() };
        let message = self.context.read(&mut feed);
        if matches!(message, Ok(Message::Ping(_) | Message::Close(_))) {
            // Writes the answer into the feed; the end of the connection is read from the message itself.
            let _ = self.context.flush(&mut feed);
        }
        if !feed.answers.is_empty() {
            // Closed: the connection is ending, and counted as such.
            let _ = outbox.push(Frame::encoded(feed.answers.into()));
        }
        match message {
            Ok(message) => Some(Ok(event(message))),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(read_error(&error))),
        }
    }
}

fn event(message: Message) -> Event {
    match message {
        Message::Text(text) => Event::Message(Kind::Text, text.into()),
        Message::Binary(bytes) => Event::Message(Kind::Binary, bytes),
        Message::Pong(payload) => Event::Pong(payload),
        Message::Close(_) => Event::Closed,
        Message::Ping(_) | Message::Frame(_) => Event::Control,
    }
}

fn read_error(error: &tungstenite::Error) -> ReadError {
    use tungstenite::Error;
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. } | CapacityError::TooManyHeaders) => {
            ReadError::Violation(Disconnect::TooLarge)
        }
        Error::Utf8(_) => ReadError::Violation(Disconnect::InvalidUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_) => ReadError::Gone,
        _ => ReadError::Violation(Disconnect::Protocol),
    }
}

/// Some bytes from the stream, `None` at its end or when it fails.
fn poll_bytes<S: AsyncRead>(stream: Pin<&mut S>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        let outcome = ready!(stream.poll_read(cx, &mut buffer));
        let bytes = Bytes::copy_from_slice(buffer.filled());
        Poll::Ready(Some(bytes).filter(|bytes| outcome.is_ok() && !bytes.is_empty()))
    })
}

/// The stream as tungstenite sees it: what has arrived, then "would block"; what it writes is collected.
struct Feed<'a> {
    arrived: &'a mut Bytes,
    answers: Vec<u8>,
}

impl Read for Feed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.arrived.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = into.len().min(self.arrived.len());
        self.arrived.copy_to_slice(&mut into[..len]);
        Ok(len)
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
