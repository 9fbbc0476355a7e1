//! One socket, written to by many.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::Outbox;

/// The socket of an outbox, which those who flush it write to as well.
#[derive(Debug)]
pub(crate) struct SharedWriter(pub(crate) Arc<Outbox>);

impl SharedWriter {
    /// Tries until tokio knows that the socket takes no more, and will say when it does again.
    fn poll(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&OwnedWriteHalf) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let Some(socket) = &self.0.socket else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        loop {
            match attempt(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream(socket).poll_write_ready(cx))?;
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

fn stream(socket: &OwnedWriteHalf) -> &TcpStream {
    socket.as_ref()
}

impl tokio::io::AsyncWrite for SharedWriter {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |socket| socket.try_write(bytes))
    }

    fn poll_write_vectored(
        self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |socket| match slices {
            [one] => socket.try_write(one),
            several => socket.try_write_vectored(several),
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match &self.0.socket {
            Some(socket) => SockRef::from(stream(socket)).shutdown(Shutdown::Write),
            None => Ok(()),
        })
    }
}
