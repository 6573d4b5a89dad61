//! A TLS connection over a socket that may not be ready.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;

use rustls::ClientConnection;

use crate::Error;

/// A handshake that did not end yet, or that failed.
pub enum HandshakeError<S> {
    /// It failed.
    Failure(Error),
    /// The socket is not ready.
    WouldBlock(MidHandshakeTlsStream<S>),
}

/// A handshake that waits for its socket.
pub struct MidHandshakeTlsStream<S>(TlsStream<S>);

impl<S: Read + Write> MidHandshakeTlsStream<S> {
    pub(crate) fn new(tls: ClientConnection, socket: S) -> Self {
        Self(TlsStream { tls: Box::new(tls), socket, accepted: 0, is_closing: false })
    }

    /// The socket.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.0.socket
    }

    /// Continues the handshake.
    ///
    /// # Errors
    /// It failed, or waits for the socket.
    pub fn handshake(mut self) -> Result<TlsStream<S>, HandshakeError<S>> {
        match self.0.complete() {
            Ok(()) => Ok(self.0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(HandshakeError::WouldBlock(self))
            }
            Err(error) => Err(HandshakeError::Failure(Error::new(error))),
        }
    }
}

/// A TLS connection.
pub struct TlsStream<S> {
    tls: Box<ClientConnection>,
    socket: S,
    /// Bytes of the caller's buffer that rustls has encrypted and the socket has not yet taken.
    accepted: usize,
    is_closing: bool,
}

impl<S: Read + Write> TlsStream<S> {
    /// The socket.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Tells the server that nothing follows.
    ///
    /// # Errors
    /// The socket failed, or is not ready.
    pub fn shutdown(&mut self) -> io::Result<()> {
        if !mem::replace(&mut self.is_closing, true) {
            self.tls.send_close_notify();
        }
        self.send()
    }

    fn complete(&mut self) -> io::Result<()> {
        loop {
            self.send()?;
            if !self.tls.is_handshaking() {
                return Ok(());
            }
            if self.receive()? == 0 {
                let text = "the server closed the connection during the TLS handshake";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<usize> {
        let received = self.tls.read_tls(&mut self.socket)?;
        let processed = self.tls.process_new_packets().map(drop);
        if processed.is_err() {
            // An alert tells the server why, if the socket takes it now.
            let _ = self.send();
        }
        let invalid = |error| io::Error::new(ErrorKind::InvalidData, Error::from(error));
        processed.map(|()| received).map_err(invalid)
    }
}

impl<S: Read + Write> Read for TlsStream<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.receive()?,
                done => return done,
            };
        }
    }
}

impl<S: Read + Write> Write for TlsStream<S> {
    /// Reports bytes as written when the socket has them all, since sqlx does not flush. After
    /// [`ErrorKind::WouldBlock`], the caller repeats the call with the same bytes.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.accepted == 0 {
            self.accepted = self.tls.writer().write(buf)?;
        }
        self.send()?;
        Ok(mem::take(&mut self.accepted))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
