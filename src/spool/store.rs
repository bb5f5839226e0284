//! The content of a folder: segments, the cursor, and the records that are retired.
//!
//! [`recovery`] finds the segments when the gateway starts, [`index`] and [`ranges`] hold which
//! records are not retired, [`cursor`] keeps that on disk, and a [`reader`] gives the records back.
//! [`look`] says before a start what would refuse it. All of them share the [`ledger`] of one log. The layer knows nothing of the side that commits.
//! Data that cannot be read is an error to try again, damaged data goes to [`quarantine`] and is
//! logged.

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
