//! A socket, with or without TLS.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use rustls::ClientConnection;

/// The TLS of one connection.
pub type Secure = Box<ClientConnection>;

/// Bytes to and from a server, encrypted if its address says `wss`. It blocks if its socket does.
#[derive(Debug)]
pub struct Stream<S> {
    socket: S,
    tls: Option<Secure>,
}

impl<S> Stream<S> {
    /// With TLS that is still to be shaken hands on, or without.
    #[must_use]
    pub fn new(socket: S, tls: Option<Secure>) -> Self {
        Self { socket, tls }
    }

    /// The socket, to register it.
    pub fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Whether a read that gave less than was asked for means that there is no more: with TLS, a read gives one
    /// record at most.
    #[must_use]
    pub fn short_read_is_last(&self) -> bool {
        self.tls.is_none()
    }
}

impl Stream<TcpStream> {
    /// How long a read waits; `None` waits for ever.
    ///
    /// # Errors
    /// A length of zero.
    pub fn set_read_timeout(&self, length: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(length)
    }

    /// The same stream, which no longer blocks.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn into_nonblocking(self) -> io::Result<Stream<mio::net::TcpStream>> {
        self.socket.set_nonblocking(true)?;
        Ok(Stream { socket: mio::net::TcpStream::from_std(self.socket), tls: self.tls })
    }
}

impl<S: Read + Write> Read for Stream<S> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(to),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).read(to),
        }
    }
}

impl<S: Read + Write> Write for Stream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).flush(),
        }
    }
}
