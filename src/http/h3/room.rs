//! Room for requests: how many streams a client may open, by how many it needs at once.
//!
//! quinn has a place for each request that a client may open, and each place that was ever used
//! keeps a buffer: a hundred of them were 45 KB of a connection whose device sends one reading at a
//! time. So a client may have [`STREAMS_AT_FIRST`] at first, and [`STREAMS_MAX`] from the moment on
//! that [`MANY_REQUESTS`] are open. Until then it is given further ones a few at a time, when a
//! request has ended: the frame that says so goes out with the answer, where quinn by itself would
//! send a datagram for it. quinn does so too when less than [`LEAST`] are left, so that a client
//! never waits for answers that have no room.

use quinn::VarInt;

/// Most open requests of a connection: the least that RFC 9114 section 6.1 asks for.
pub(crate) const STREAMS_MAX: u32 = 100;

/// Requests that a client may open at first.
pub(crate) const STREAMS_AT_FIRST: u32 = 8;

/// Open requests from which on a client may open [`STREAMS_MAX`].
const MANY_REQUESTS: usize = 4;

/// Requests that end between two times that a client is given further ones.
const ENDED_AT_ONCE: u32 = 3;

/// Requests that quinn sees to by itself that a client may have open.
const LEAST: u32 = 4;

const _: () = assert!(MANY_REQUESTS <= LEAST as usize);
const _: () = assert!(LEAST + ENDED_AT_ONCE < STREAMS_AT_FIRST && STREAMS_AT_FIRST < STREAMS_MAX);

/// The room that one client has.
pub(crate) struct Room<'c> {
    quic: &'c quinn::Connection,
    is_wide: bool,
    /// Requests that have ended since it was given further ones.
    ended: u32,
}

impl<'c> Room<'c> {
    pub(crate) fn new(quic: &'c quinn::Connection) -> Self {
        let room = Self {
            quic,
            is_wide: false,
            ended: 0,
        };
        room.set(LEAST);
        room
    }

    /// Notes that so many requests are open, one more than before.
    pub(crate) fn note_open(&mut self, requests: usize) {
        if requests >= MANY_REQUESTS && !self.is_wide {
            self.is_wide = true;
            self.set(STREAMS_MAX);
        }
    }

    /// Notes that a request has ended.
    pub(crate) fn note_ended(&mut self) {
        if self.is_wide {
            return;
        }
        self.ended += 1;
        if self.ended >= ENDED_AT_ONCE {
            self.ended = 0;
            self.set(STREAMS_AT_FIRST);
            // What it has been given is left to it.
            self.set(LEAST);
        }
    }

    fn set(&self, requests: u32) {
        let requests = VarInt::from_u32(requests);
        self.quic.set_max_concurrent_bi_streams(requests);
    }
}
