//! The gateway's side of a stream.

use std::future::Future;
use std::pin::pin;
use std::slice;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, StreamErrorIncoming, StreamId, WriteBuf};

use super::error::write_error;
use super::stream_id;
use crate::http::h3::link::varint;

/// A stream that the gateway sends on. Dropped while its last frame is not whole, it is reset; else
/// it ends there.
pub(crate) struct SendStream {
    stream: quinn::SendStream,
    /// The bytes of the frame that is being written. h3's own buffer is several hundred bytes large,
    /// and would live as long as a connection in each of its streams.
    frame: Option<Bytes>,
    /// There has been a frame, and each has been written to its end.
    is_whole: bool,
}

impl SendStream {
    pub(crate) fn new(stream: quinn::SendStream) -> Self {
        Self {
            stream,
            frame: None,
            is_whole: false,
        }
    }

    /// Gives it up, with a code that says why.
    pub(crate) fn abort(&mut self, code: u64) {
        // A stream that is over has nothing to reset.
        let _ = self.stream.reset(varint(code));
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.is_whole {
            self.abort(Code::H3_REQUEST_CANCELLED.value());
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(frame) = &mut self.frame {
            while frame.has_remaining() {
                // What is written is taken from its start.
                let writing = pin!(self.stream.write_chunks(slice::from_mut(frame)));
                ready!(writing.poll(context)).map_err(write_error)?;
            }
            debug_assert!(!self.is_whole, "a frame was under way");
            (self.frame, self.is_whole) = (None, true);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the next frame; called when the frame before it has been written, see `poll_ready`.
    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        if self.frame.is_some() {
            return Err(StreamErrorIncoming::Unknown("a frame is under way".into()));
        }
        let mut frame: WriteBuf<Bytes> = data.into();
        let frame = frame.copy_to_bytes(frame.remaining());
        (self.frame, self.is_whole) = (Some(frame), false);
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|closed| StreamErrorIncoming::Unknown(Box::new(closed))))
    }

    fn reset(&mut self, code: u64) {
        self.abort(code);
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}
