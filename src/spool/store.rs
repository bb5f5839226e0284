//! What a folder holds, and how it is read: segments, the cursor, and which records are retired.
//!
//! [`recovery`] finds the segments when the gateway starts, [`index`] and [`ranges`] know what is
//! not retired, [`cursor`] keeps that on disk, and a [`reader`] gives it back. [`look`] says before
//! a start what would refuse it. A [`ledger`] is what all of them share of one log. The layer knows
//! nothing of who commits. What cannot be read is an error to try again, what is damaged goes to
//! [`quarantine`] and is told of.

pub(super) mod cursor;
pub(super) mod index;
pub(super) mod ledger;
pub(super) mod look;
pub(super) mod mark;
pub(super) mod opened;
pub(super) mod quarantine;
pub(super) mod ranges;
pub(super) mod reader;
pub(super) mod recovery;
