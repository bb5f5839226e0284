//! Bodies in a content coding, decoded as they arrive.
//!
//! Ingest borrows a [`Decoder`] for one body, feeds it with the bytes that have come, and takes the
//! decoded ones step by step. A step reads [`INPUT_BYTES_MAX`] and writes [`OUTPUT_BYTES_MAX`] at
//! most, whatever the body expands to, and [`Pace`] lets others go on between steps: no body holds
//! its worker up. A worker keeps a few decoders for the next bodies ([`Decoders`]), the small ones.
//!
//! Invariant: several gzip members or zstd frames one after the other are one body, and a body ends
//! where one of them does. Failure: [`Damaged`], for anything that is not such a body.

mod gzip;
mod zstd;

use std::cell::RefCell;

use bytes::Bytes;
use tokio::task::yield_now;

pub use gzip::Gzip;
pub use zstd::Zstd;

/// The coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    /// Returns the coding that a `Content-Encoding` names, if it is one that is known. The field is a
    /// list, whose empty elements say nothing (RFC 9110 sections 8.4 and 5.6.1.2).
    pub(super) fn of(list: &[u8]) -> Option<Self> {
        let elements = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let mut names = elements.filter(|name| !name.is_empty());
        let name = names.next()?;
        match names.next() {
            None => Self::named(name),
            Some(_) => None,
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        const CODINGS: [(&[u8], Coding); 4] = [
            (b"identity", Coding::Identity),
            (b"gzip", Coding::Gzip),
            (b"x-gzip", Coding::Gzip),
            (b"zstd", Coding::Zstd),
        ];
        let known = CODINGS
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known));
        known.map(|(_, coding)| *coding)
    }
}

/// Bytes that a decoder is fed with at once.
pub(crate) const INPUT_BYTES_MAX: usize = 16 * 1024;

/// Bytes that a step gives at most.
pub(crate) const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// Steps between two turns of the worker's other tasks.
const STEPS_A_TURN: u32 = 8;

/// Decoders of each coding that a worker keeps.
const SPARES_MAX: usize = 4;

/// A decoder with more memory is not kept: it has had a large window.
const SPARE_BYTES_MAX: usize = 512 * 1024;

/// The body is not in its coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is damaged, ends early, or goes on after its end")]
pub struct Damaged;

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub written_bytes: usize,
    /// Whether the decoder has used up its input.
    pub is_hungry: bool,
}

/// A decoder of one body.
pub enum Decoder {
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
}

impl Decoder {
    pub fn gzip() -> Self {
        Self::Gzip(Box::default())
    }

    pub fn zstd() -> Self {
        Self::Zstd(Box::default())
    }

    /// Gives the decoder its next input: at most [`INPUT_BYTES_MAX`], once it is hungry.
    pub fn feed(&mut self, input: Bytes) {
        debug_assert!(input.len() <= INPUT_BYTES_MAX, "a step is short");
        match self {
            Self::Gzip(gzip) => gzip.feed(input),
            Self::Zstd(zstd) => zstd.feed(input),
        }
    }

    /// Decodes until the room, which is not empty, is full, or until the decoder is hungry.
    pub fn step(&mut self, room: &mut [u8]) -> Result<Step, Damaged> {
        debug_assert!(!room.is_empty(), "a step without room comes to nothing");
        match self {
            Self::Gzip(gzip) => gzip.step(room),
            Self::Zstd(zstd) => zstd.step(room),
        }
    }

    /// Whether the body may end here.
    pub fn is_at_end(&self) -> bool {
        match self {
            Self::Gzip(gzip) => gzip.is_at_end(),
            Self::Zstd(zstd) => zstd.is_at_end(),
        }
    }

    /// Returns the memory that the decoder holds, its window included.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Gzip(_) => gzip::BYTES,
            Self::Zstd(zstd) => zstd.bytes(),
        }
    }
}

/// The decoders that a worker keeps for the next bodies.
#[derive(Default)]
pub(crate) struct Decoders {
    gzip: RefCell<Vec<Decoder>>,
    zstd: RefCell<Vec<Decoder>>,
}

impl Decoders {
    /// Lends a decoder for one body; `None` if the body is not encoded.
    pub(crate) fn lend(&self, coding: Coding) -> Option<Decoder> {
        let spare = |spares: &RefCell<Vec<Decoder>>| spares.borrow_mut().pop();
        match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(spare(&self.gzip).unwrap_or_else(Decoder::gzip)),
            Coding::Zstd => Some(spare(&self.zstd).unwrap_or_else(Decoder::zstd)),
        }
    }

    /// Keeps a decoder that has come to the end of its body. Any other is dropped: its state is
    /// unknown.
    pub(crate) fn give_back(&self, decoder: Decoder) {
        debug_assert!(decoder.is_at_end(), "it begins anew with the next body");
        let mut spares = match decoder {
            Decoder::Gzip(_) => self.gzip.borrow_mut(),
            Decoder::Zstd(_) => self.zstd.borrow_mut(),
        };
        if decoder.bytes() <= SPARE_BYTES_MAX && spares.len() < SPARES_MAX {
            spares.push(decoder);
        }
    }
}

/// Lets the worker's other tasks go on between the steps of one body.
#[derive(Default)]
pub(crate) struct Pace(u32);

impl Pace {
    pub(crate) async fn step(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(STEPS_A_TURN) {
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests;
