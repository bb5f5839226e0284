//! Any bytes in the place of a frame's header, of its body, and of a whole segment: refused, or what was written.

use std::io::{self, IoSlice};

use bytes::Bytes;
use forebay::internals::spool::DiskFile;
use forebay::internals::spool::FRAMES_START;
use forebay::internals::spool::Keys;
use forebay::internals::spool::Opened;
use forebay::internals::spool::{Draft, decode};
use forebay::internals::spool::{FrameHeader, HEADER_BYTES};

pub fn check(data: &[u8]) {
    read_body(data);
    if let Some(header) = data.first_chunk::<HEADER_BYTES>() {
        let _ = FrameHeader::parse(header, &[0; 16], 0);
    }
    read_segment(Memory(data.to_vec()));
}

/// A body that decodes is the one that its records encode to.
fn read_body(data: &[u8]) {
    let Some((&records, body)) = data.split_first() else {
        return;
    };
    let Some(content) = decode(Bytes::copy_from_slice(body), records.into()) else {
        return;
    };
    if content.reason.is_none() && records > 0 {
        let draft =
            Draft::new(&content.stream, &content.records).expect("what was read can be written");
        assert_eq!(draft.body(), body);
    }
}

fn read_segment(file: Memory) {
    let bytes = file.0.len() as u64;
    let Ok(opened) = Opened::open(file, &Keys::default()) else {
        return;
    };
    if let Ok(Some((offset, header))) = opened.find_frame(FRAMES_START..bytes, 0) {
        let body = opened.body(offset, &header).expect("memory reads");
        let _ = body.and_then(|body| decode(body.into(), header.records));
    }
}

struct Memory(Vec<u8>);

impl DiskFile for Memory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(true)
    }
}
