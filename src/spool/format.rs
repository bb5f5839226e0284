//! The layout on disk: frames and their bodies, the headers of segments, and the keys that encrypt
//! them.
//!
//! The lowest layer, on which [`store`](super::store) and [`commit`](super::commit) stand: bytes
//! in, values out, and the reverse. Nothing here reads or writes a file of the spool. Numbers are
//! little-endian, checksums CRC32C; damaged bytes parse as `None`, never as other content.

pub(super) mod body;
pub(super) mod fields;
pub(super) mod frame;
pub(super) mod keys;
pub(super) mod segment;
#[cfg(test)]
mod tests;
