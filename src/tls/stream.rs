//! TLS over TCP, by rustls' unbuffered interface: a connection that waits holds no buffer.
//!
//! Ciphertext is read into a buffer of the worker's and decrypted where it lies, see [`Buffers`]. A
//! connection keeps only what it must: a record that has not arrived whole, plaintext that nobody
//! has read yet, ciphertext that the socket has not taken. rustls' own interface would keep 4 KiB
//! for each connection, and read no more than that at a time.

mod record;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus, WriteTraffic};
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use record::{PLAINTEXT_BYTES_MAX, encode, read, seal};

/// The most that is read from the socket at a time: one record, of TLS 1.2 too (RFC 5246 section
/// 6.2.3).
const READ_BYTES: usize = 5 + PLAINTEXT_BYTES_MAX + 2048;

/// The most that a hello holds which has not arrived whole, in its records: from anybody, before
/// anything is proved. One has 200 to 2,000 bytes.
const HELLO_BYTES_MAX: usize = 16 * 1024;

/// The most that any later message, or record, holds which has not arrived whole. The largest is a
/// client's chain: three certificates have 2 to 5 kB, of ML-DSA-87 22 kB.
const PARTIAL_BYTES_MAX: usize = 32 * 1024;

const _: () = assert!(
    READ_BYTES < PARTIAL_BYTES_MAX,
    "a record of data fits, whatever its size"
);
const _: () = assert!(
    HELLO_BYTES_MAX <= PARTIAL_BYTES_MAX,
    "the buffer has room for either"
);

/// A client has begun with a request of plain HTTP, in the place of a hello.
#[derive(Debug, thiserror::Error)]
#[error("a request of plain HTTP on the port of TLS")]
pub(crate) struct PlainHttp;

/// The buffers of one worker, lent to whichever of its connections is reading or writing.
#[derive(Clone)]
pub(crate) struct Buffers(Rc<WorkerBuffers>);

struct WorkerBuffers {
    incoming: RefCell<Box<[u8]>>,
    outgoing: RefCell<Vec<u8>>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self(Rc::new(WorkerBuffers {
            incoming: RefCell::new(vec![0; PARTIAL_BYTES_MAX].into()),
            outgoing: RefCell::default(),
        }))
    }
}

/// The server's side of one connection.
pub(crate) struct TlsStream<T> {
    io: T,
    tls: UnbufferedServerConnection,
    buffers: Buffers,
    /// Ciphertext of what has not arrived whole.
    partial: Vec<u8>,
    /// Plaintext, of which the first `read_bytes` have been read.
    plain: Vec<u8>,
    read_bytes: usize,
    /// Ciphertext that the socket has not taken.
    outgoing: Vec<u8>,
    /// Nothing more will come: the client has said so, or there has been an error.
    is_over: bool,
    /// Nothing more will be sent: the client has been told so, or there has been an error.
    is_shut: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> TlsStream<T> {
    /// Shakes hands, and calls `on_bytes` whenever some have arrived. A failure comes with what is
    /// left to close; the client has been sent its alert, if it takes it.
    pub(crate) async fn accept(
        io: T,
        config: Arc<ServerConfig>,
        buffers: Buffers,
        on_bytes: impl Fn(),
    ) -> Result<Self, (io::Error, T)> {
        let tls = match UnbufferedServerConnection::new(config) {
            Ok(tls) => tls,
            Err(error) => return Err((broken(error), io)),
        };
        let mut stream = Self::new(io, tls, buffers);
        let shaken = poll_fn(|context| stream.poll_handshake(context, &on_bytes)).await;
        let Err(error) = shaken else {
            return Ok(stream);
        };
        // The alert may stand behind messages that the socket has no room for yet. A client that
        // is gone takes none.
        let _ = poll_fn(|context| stream.poll_send(context)).await;
        Err((error, stream.io))
    }

    fn new(io: T, tls: UnbufferedServerConnection, buffers: Buffers) -> Self {
        Self {
            io,
            tls,
            buffers,
            partial: Vec::new(),
            plain: Vec::new(),
            read_bytes: 0,
            outgoing: Vec::new(),
            is_over: false,
            is_shut: false,
        }
    }

    fn poll_handshake(
        &mut self,
        context: &mut Context<'_>,
        on_bytes: &impl Fn(),
    ) -> Poll<io::Result<()>> {
        while self.tls.is_handshaking() {
            ready!(self.poll_receive(context, on_bytes))?;
            if self.is_over {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The protocol that ALPN has chosen.
    pub(crate) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// The client's chain, its own certificate first.
    pub(crate) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.tls.peer_certificates()
    }

    /// Whether the session is that of an earlier connection.
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Bytes of a message that may wait for the rest of it.
    fn partial_bytes_max(&self) -> usize {
        // The version is chosen once there is a hello.
        match self.tls.protocol_version() {
            None => HELLO_BYTES_MAX,
            Some(_) => PARTIAL_BYTES_MAX,
        }
    }

    /// Bytes that may be read next; an error for a message without end.
    fn room_bytes(&self) -> io::Result<usize> {
        let room = self.partial_bytes_max().saturating_sub(self.partial.len());
        if room == 0 {
            let error = rustls::Error::General("a message without end".into());
            return Err(broken(error));
        }
        Ok(room.min(READ_BYTES))
    }

    /// Takes in what arrives next; its plaintext, if it has any, is added to `plain`.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        on_bytes: &impl Fn(),
    ) -> Poll<io::Result<()>> {
        // A client that reads nothing may have more to say.
        let _ = self.poll_send(context)?;
        let buffers = self.buffers.clone();
        let incoming = &mut *buffers.0.incoming.borrow_mut();
        let end = ready!(self.poll_incoming(context, incoming))?;
        on_bytes();
        if self.tls.protocol_version().is_none() && is_plain_http(&incoming[..end]) {
            self.is_over = true;
            self.is_shut = true;
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, PlainHttp)));
        }
        let taken = self.take_in(&mut incoming[..end], |_, _| ());
        // rustls sends by itself: its part of the handshake, a new key, an alert.
        let sent = self.poll_send(context);
        self.partial = incoming[taken.map_err(broken)?..end].to_vec();
        let _ = sent?;
        Poll::Ready(Ok(()))
    }

    /// Fills `incoming` with what is kept and what arrives behind it. Gives where that ends.
    fn poll_incoming(
        &mut self,
        context: &mut Context<'_>,
        incoming: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let kept = self.partial.len();
        let room = self.room_bytes()?;
        let mut arrived = ReadBuf::new(&mut incoming[kept..kept + room]);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut arrived))?;
        let end = kept + arrived.filled().len();
        if end == kept {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        incoming[..kept].copy_from_slice(&self.partial);
        Poll::Ready(Ok(end))
    }

    /// Has rustls take in `incoming`, and then, where it may send, `seal` a record to what is to be
    /// sent. Gives how much of `incoming` is not needed any more.
    fn take_in(
        &mut self,
        incoming: &mut [u8],
        seal: impl FnOnce(WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>),
    ) -> Result<usize, rustls::Error> {
        use ConnectionState::*;
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut incoming[done..]);
            done += discard;
            match state {
                Ok(ReadTraffic(traffic)) => done += read(traffic, &mut self.plain)?,
                Ok(EncodeTlsData(message)) => encode(message, &mut self.outgoing),
                Ok(TransmitTlsData(transmit)) => transmit.done(),
                Ok(PeerClosed) => self.is_over = true,
                Ok(WriteTraffic(traffic)) => {
                    seal(traffic, &mut self.outgoing);
                    return Ok(done);
                }
                Ok(_) => return Ok(done),
                Err(error) => {
                    self.give_up(&mut incoming[done..]);
                    return Err(error);
                }
            }
        }
    }

    /// Says what the error was, by an alert behind the messages that had been made before, and
    /// nothing after it.
    fn give_up(&mut self, incoming: &mut [u8]) {
        self.is_over = true;
        self.is_shut = true;
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(message)) =
                self.tls.process_tls_records(incoming).state
            else {
                return;
            };
            encode(message, &mut self.outgoing);
        }
    }

    /// Encrypts `data`, which fits one record, or says that nothing more will come.
    fn write_record(&mut self, data: Option<&[u8]>) -> io::Result<()> {
        if self.outgoing.capacity() == 0 {
            self.outgoing = self.buffers.0.outgoing.take();
        }
        debug_assert!(
            self.outgoing.is_empty() || data.is_none(),
            "what was written before has left"
        );
        // rustls wants to see what it has not done with, whatever it is asked: it knows where in
        // there it is.
        let mut partial = std::mem::take(&mut self.partial);
        let mut sealed = Err(io::ErrorKind::NotConnected.into());
        let taken = self.take_in(&mut partial, |traffic, outgoing| {
            sealed = seal(traffic, data, outgoing)
        });
        partial.drain(..taken.map_err(broken)?);
        self.partial = partial;
        sealed
    }

    /// Sends what there is to send, and then gives its buffer back to the worker.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let bytes = ready!(Pin::new(&mut self.io).poll_write(context, &self.outgoing))?;
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.drain(..bytes);
        }
        if self.outgoing.capacity() > 0 {
            self.buffers
                .0
                .outgoing
                .replace(std::mem::take(&mut self.outgoing));
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether what has come of a hello begins a request. The first byte of a record of TLS is no letter
/// (RFC 8446 section 5.1).
fn is_plain_http(begun: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"POST ", b"GET /", b"HEAD ", b"PUT /", b"PATCH", b"DELET", b"OPTIO", b"CONNE", b"PRI *",
    ];
    METHODS.iter().any(|method| begun.starts_with(method))
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncBufRead for TlsStream<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.plain.is_empty() && !this.is_over {
            ready!(this.poll_receive(context, &|| ()))?;
        }
        Poll::Ready(Ok(&this.plain[this.read_bytes..]))
    }

    fn consume(mut self: Pin<&mut Self>, bytes: usize) {
        self.read_bytes += bytes;
        debug_assert!(
            self.read_bytes <= self.plain.len(),
            "nobody reads more than there is"
        );
        if self.read_bytes == self.plain.len() {
            self.plain = Vec::new();
            self.read_bytes = 0;
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let plain = ready!(self.as_mut().poll_fill_buf(context))?;
        let bytes = plain.len().min(into.remaining());
        into.put_slice(&plain[..bytes]);
        self.consume(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<T> {
    /// Writes one record, once what was written before has left.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(context))?;
        if self.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let data = &data[..data.len().min(PLAINTEXT_BYTES_MAX)];
        self.write_record(Some(data))?;
        let _ = self.poll_send(context)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            self.is_shut = true;
            self.write_record(None)?;
        }
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
