//! Reading an encoded body: decoded as it arrives, bounded by its decoded bytes.

use super::{Body, Bounds, Ledger, Reader};
use crate::ingest::Refusal;
use crate::ingest::decode::{Damaged, Decoder, INPUT_BYTES_MAX, OUTPUT_BYTES_MAX, Pace};

/// Multiple to which a body mostly expands: room for so much is made at first.
const EXPANSION: usize = 4;

const FIRST_BYTES_MIN: usize = 1024;

impl From<Damaged> for Refusal {
    fn from(Damaged: Damaged) -> Self {
        Self::MalformedEncoding
    }
}

/// Reads the whole body and returns it decoded: `bytes_max` bytes at most, however much is left to
/// decode. `bounds` are those of the body as it comes.
pub(crate) async fn read_decoded<B: Body>(
    mut body: B,
    bounds: Bounds,
    bytes_max: usize,
    decoder: &mut Decoder,
    ledger: &mut impl Ledger,
) -> Result<Vec<u8>, Refusal> {
    let mut reader = Reader::new(bounds, ledger);
    let mut decoded = Decoded::new(bytes_max, decoder);
    let mut pace = Pace::default();
    while let Some(mut piece) = reader.next(&mut body).await? {
        decoded.expected_bytes = EXPANSION * piece.len();
        while !piece.is_empty() {
            let input = piece.split_to(piece.len().min(INPUT_BYTES_MAX));
            decoded.decoder.feed(input);
            while decoded.step(&mut reader)? {
                pace.step().await;
            }
        }
    }
    if reader.received_bytes == 0 {
        return Err(Refusal::EmptyBody);
    }
    reader.check_length(reader.received_bytes)?;
    decoded.finish()
}

/// The decoded part of a body.
struct Decoded<'d> {
    /// Zeros from `filled_bytes` on.
    buffer: Vec<u8>,
    filled_bytes: usize,
    bytes_max: usize,
    /// Bytes that were charged beyond those that have come or were declared.
    charged_bytes: usize,
    /// Room of the buffer at first, in bytes.
    expected_bytes: usize,
    decoder: &'d mut Decoder,
}

impl<'d> Decoded<'d> {
    fn new(bytes_max: usize, decoder: &'d mut Decoder) -> Self {
        Self {
            buffer: Vec::new(),
            filled_bytes: 0,
            bytes_max,
            charged_bytes: 0,
            expected_bytes: 0,
            decoder,
        }
    }

    /// Decodes one step. Returns whether the input that was fed has more to give.
    fn step<L: Ledger>(&mut self, reader: &mut Reader<'_, L>) -> Result<bool, Refusal> {
        self.make_room(reader.ledger)?;
        let free = &mut self.buffer[self.filled_bytes..];
        let room_bytes = free.len().min(OUTPUT_BYTES_MAX);
        let step = self.decoder.step(&mut free[..room_bytes])?;
        debug_assert!(step.written_bytes <= room_bytes);
        self.filled_bytes += step.written_bytes;
        if self.filled_bytes > self.bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        // The decoder's window has appeared with the head of its frame.
        self.hold(self.buffer.len(), reader.ledger)?;
        self.pay(reader)?;
        Ok(!step.is_hungry)
    }

    /// Makes room for a step. The buffer doubles, up to one byte more than a body may have: that
    /// byte tells that a body is too long.
    fn make_room(&mut self, ledger: &mut impl Ledger) -> Result<(), Refusal> {
        let most = self.bytes_max + 1;
        debug_assert!(self.filled_bytes < most, "a longer body is refused");
        if self.filled_bytes < self.buffer.len() {
            return Ok(());
        }
        let wanted = self.expected_bytes.max(FIRST_BYTES_MIN);
        let buffer_bytes = wanted.max(2 * self.filled_bytes).min(most);
        self.hold(buffer_bytes, ledger)?;
        self.buffer.reserve_exact(buffer_bytes - self.filled_bytes);
        self.buffer.resize(buffer_bytes, 0);
        Ok(())
    }

    fn hold(&self, buffer_bytes: usize, ledger: &mut impl Ledger) -> Result<(), Refusal> {
        ledger.hold(buffer_bytes + self.decoder.bytes())
    }

    /// Charges for the decoded bytes beyond those that were paid for as they came or were declared.
    fn pay<L: Ledger>(&mut self, reader: &mut Reader<'_, L>) -> Result<(), Refusal> {
        let declared = reader.bounds.declared_bytes;
        let paid = declared.unwrap_or(reader.received_bytes) + self.charged_bytes;
        let owed = self.filled_bytes.saturating_sub(paid);
        self.charged_bytes += owed;
        if owed > 0 {
            reader.ledger.charge(owed)?;
        }
        Ok(())
    }

    /// Returns the body, if it ends where its coding does.
    fn finish(mut self) -> Result<Vec<u8>, Refusal> {
        if !self.decoder.is_at_end() {
            return Err(Refusal::MalformedEncoding);
        }
        if self.filled_bytes == 0 {
            return Err(Refusal::EmptyBody);
        }
        self.buffer.truncate(self.filled_bytes);
        // Records may wait for long: they must not keep much more memory than they need.
        if self.buffer.capacity() > 2 * self.filled_bytes {
            self.buffer.shrink_to_fit();
        }
        Ok(self.buffer)
    }
}
