//! Bodies in the content codings that the gateway takes.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

pub fn zstd(body: &[u8]) -> Vec<u8> {
    let mut encoded = vec![0; zstd_safe::compress_bound(body.len())];
    let bytes = zstd_safe::compress(&mut encoded[..], body, 3).expect("there is room");
    encoded.truncate(bytes);
    encoded
}
