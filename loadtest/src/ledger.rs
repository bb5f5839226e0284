//! The ledger of every request that the fleet made, for the audit: a file of fixed records.
//!
//! The conductor makes the file, every thread of every worker appends to it, the audit reads it
//! whole. Format, little-endian: a head of 16 bytes (magic, run, 0), then records of 24 bytes:
//! device u32, sequence u32, digest u64, status u16, 0 u16, latency in µs u32. Records of one
//! device stand in the order of their sending. Invariant: a writer appends whole records in one write to a file
//! opened for appending, so writers do not mix. A file that is cut off within a record, or is no
//! ledger, is an error.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::payload::RunId;

const MAGIC: &[u8; 8] = b"FBLEDGR1";
const HEAD_BYTES: usize = 16;
const RECORD_BYTES: usize = 24;

/// The whole records that a writer holds before it appends them, in bytes.
const BUFFER_BYTES: usize = 2048 * RECORD_BYTES;

const _: () = assert!(MAGIC.len() + size_of::<u32>() <= HEAD_BYTES, "the run fits");
const _: () = assert!(
    BUFFER_BYTES.is_multiple_of(RECORD_BYTES),
    "one write appends whole records"
);

/// End of a request.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub(crate) struct Status(pub u16);

impl Status {
    /// The request was sent, whole or in part, and no answer came.
    pub(crate) const UNANSWERED: Self = Self(0);
    /// The request was never sent.
    pub(crate) const UNSENT: Self = Self(1);
    pub(crate) const SAFE: Self = Self(204);
    /// Answer of front doors in the place of 204.
    pub(crate) const OK: Self = Self(200);
    const GATEWAY_TIMEOUT: Self = Self(504);

    /// Whether the sender cannot know what became of the record.
    pub(crate) fn is_unknown(self) -> bool {
        self == Self::UNANSWERED || self == Self::GATEWAY_TIMEOUT
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::UNANSWERED => f.write_str("unanswered"),
            Self::UNSENT => f.write_str("unsent"),
            Self(status) => write!(f, "{status}"),
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub device: u32,
    pub sequence: u32,
    pub digest: u64,
    pub status: Status,
    /// Time from the intended sending to the answer; `u32::MAX` stands for all that is longer.
    pub latency_us: u32,
}

impl Entry {
    /// Returns the key that tells requests apart: device and sequence.
    pub(crate) fn key(&self) -> (u32, u32) {
        (self.device, self.sequence)
    }

    fn encode(self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        record[..4].copy_from_slice(&self.device.to_le_bytes());
        record[4..8].copy_from_slice(&self.sequence.to_le_bytes());
        record[8..16].copy_from_slice(&self.digest.to_le_bytes());
        record[16..18].copy_from_slice(&self.status.0.to_le_bytes());
        record[20..].copy_from_slice(&self.latency_us.to_le_bytes());
        record
    }

    fn decode(record: &[u8; RECORD_BYTES]) -> Self {
        let [device, sequence, low, high] = [0, 4, 8, 12].map(|at| u32_at(record, at));
        Self {
            device,
            sequence,
            digest: u64::from(low) | u64::from(high) << 32,
            status: Status(u16::from_le_bytes([record[16], record[17]])),
            latency_us: u32_at(record, 20),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Makes an empty ledger, in place of one that was there.
pub(crate) fn create(path: &Path, run: RunId) -> Result<()> {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&run.0.to_le_bytes());
    std::fs::write(path, head).with_context(|| path.display().to_string())
}

/// Run and requests of a ledger.
pub(crate) fn read(path: &Path) -> Result<(RunId, Vec<Entry>)> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let file = path.display();
    let is_ledger = bytes.len() >= HEAD_BYTES && bytes.starts_with(MAGIC);
    ensure!(is_ledger, "{file} is no ledger");
    let (head, records) = bytes.split_at(HEAD_BYTES);
    let (records, rest) = records.as_chunks();
    let rest_bytes = rest.len();
    ensure!(
        rest.is_empty(),
        "{file} is cut off: its last record has {rest_bytes} bytes"
    );
    let entries = records.iter().map(Entry::decode).collect();
    Ok((RunId(u32_at(head, MAGIC.len())), entries))
}

/// Appends to a ledger; what it holds is written when it is full and on [`Writer::flush`].
pub(crate) struct Writer {
    file: File,
    buffer: Vec<u8>,
}

impl Writer {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| path.display().to_string())?;
        Ok(Self {
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        })
    }

    /// Appends an entry, once the buffer is full together with the others.
    pub(crate) fn append(&mut self, entry: Entry) -> std::io::Result<()> {
        self.buffer.extend_from_slice(&entry.encode());
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    pub(crate) fn flush(&mut self) -> std::io::Result<()> {
        debug_assert!(
            self.buffer.len().is_multiple_of(RECORD_BYTES),
            "whole records"
        );
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (
            any::<u32>(),
            any::<u32>(),
            any::<u64>(),
            any::<u16>(),
            any::<u32>(),
        )
            .prop_map(|(device, sequence, digest, status, latency_us)| Entry {
                device,
                sequence,
                digest,
                status: Status(status),
                latency_us,
            });
        prop::collection::vec(entry, 0..50)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(run: u32, entries in entries()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger");
            create(&path, RunId(run)).unwrap();
            let mut writer = Writer::open(&path).unwrap();
            entries.iter().for_each(|entry| writer.append(*entry).unwrap());
            writer.flush().unwrap();
            prop_assert_eq!(read(&path).unwrap(), (RunId(run), entries));
        }
    }

    #[test]
    fn writers_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        create(&path, RunId(1)).unwrap();
        std::thread::scope(|scope| {
            for device in 0..4 {
                let mut writer = Writer::open(&path).unwrap();
                scope.spawn(move || {
                    for sequence in 0..10_000 {
                        writer
                            .append(Entry {
                                device,
                                sequence,
                                digest: 7,
                                status: Status::SAFE,
                                latency_us: 0,
                            })
                            .unwrap();
                    }
                    writer.flush().unwrap();
                });
            }
        });
        let (_, entries) = read(&path).unwrap();
        for device in 0..4 {
            let sequences = entries
                .iter()
                .filter(|entry| entry.device == device)
                .map(|entry| entry.sequence);
            assert!(sequences.eq(0..10_000));
        }
    }

    #[test]
    fn a_torn_or_foreign_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        create(&path, RunId(1)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend([1; RECORD_BYTES + 1]);
        std::fs::write(&path, &bytes).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("cut off"));
        std::fs::write(&path, "something else altogether").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no ledger"));
    }
}
