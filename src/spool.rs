//! The spool: records on local disk while the stream cannot take them. This room holds its formats and building blocks.
//!
//! [`frame`] and [`segment`] say what lies on disk, [`cursor`] how far it is delivered, [`keys`] how it is encrypted;
//! [`index`] is what the spool holds, [`disk`] what is asked of a disk, [`queue`] the bounded way to the one thread that
//! commits, [`ranges`] the set of records that are done with. Numbers on disk are little-endian, checksums are CRC32C.
//! Readers of damaged bytes answer `None`, never a panic and never other content.

pub mod cursor;
pub mod disk;
pub mod engine;
pub mod frame;
pub mod index;
pub mod keys;
pub mod opened;
pub mod quarantine;
pub mod queue;
pub mod ranges;
pub mod reader;
pub mod recovery;
pub mod segment;
pub mod shared;
#[cfg(test)]
mod tests;

use crate::sync;
