//! The QUIC connection as all of its streams see it: its overhead, and its end.
//!
//! [`Link`] is made by the adapter above for each connection, and shared by its streams, which live
//! in one task. Every byte that arrives on a stream is overhead until it has become part of a
//! request ([`Overhead`]): frames without end, and requests that are refused for ever, end their
//! connection with H3_EXCESSIVE_LOAD. The peer is told the first reason to close.

use std::cell::Cell;
use std::rc::Rc;

use h3::error::Code;
use quinn::{ConnectionError, VarInt};
use tokio::time::Instant;

use crate::http::overhead::Overhead;
use crate::words::Disconnect;

/// The connection that streams share, with the overhead that they may cost.
pub(crate) struct Link {
    quic: quinn::Connection,
    overhead: Overhead,
    is_flood: Cell<bool>,
    /// Cause of the connection's end, if this side did not end it.
    end: Cell<Option<Disconnect>>,
}

impl Link {
    pub(crate) fn new(quic: quinn::Connection) -> Rc<Self> {
        Rc::new(Self {
            quic,
            overhead: Overhead::since(Instant::now()),
            is_flood: Cell::new(false),
            end: Cell::default(),
        })
    }

    pub(crate) fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// Counts bytes that have arrived; `false` when they were too many, and the connection is
    /// closed.
    pub(crate) fn charge(&self, bytes: usize) -> bool {
        let is_within = self.overhead.take(bytes).is_ok();
        if !is_within {
            self.end_flood();
        }
        is_within
    }

    /// Takes back counted bytes, which were part of a request.
    pub(crate) fn pay_back(&self, bytes: usize) {
        self.overhead.pay_back(bytes);
    }

    /// Closes the connection. To be called while h3 has it: when h3 lets go, it gives a reason of
    /// its own.
    pub(crate) fn close(&self, code: Code) {
        self.close_saying(code, b"");
    }

    /// Closes it with words for the reason.
    pub(crate) fn close_saying(&self, code: Code, reason: &[u8]) {
        self.note_end();
        self.quic.close(varint(code.value()), reason);
    }

    /// Notes how QUIC has ended the connection, if it has: closed by this side, it has no other
    /// end. A client that is silent for the idle time-out may be gone or not: the two cannot be
    /// told apart.
    fn note_end(&self) {
        let end = match self.quic.close_reason() {
            Some(ConnectionError::TimedOut) => Some(Disconnect::Idle),
            Some(ConnectionError::Reset) => Some(Disconnect::Lost),
            _ => None,
        };
        self.end.set(self.end.get().or(end));
    }

    /// Returns how QUIC has ended the connection, if neither side closed it.
    pub(crate) fn end(&self) -> Option<Disconnect> {
        self.note_end();
        self.end.get()
    }

    /// Closes a connection that costs more than it brings.
    #[cold]
    pub(crate) fn end_flood(&self) {
        self.is_flood.set(true);
        self.close(Code::H3_EXCESSIVE_LOAD);
    }

    pub(crate) fn is_flood(&self) -> bool {
        self.is_flood.get()
    }
}

/// Codes of h3 are variable-length integers by themselves.
pub(crate) fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}
