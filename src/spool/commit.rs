//! The way to disk: the queue of drafts, the thread that empties it, and the engine that writes and
//! syncs.
//!
//! Delivery holds a [`log`], which hands drafts to the [`queue`] and never waits. The [`thread`]
//! takes all that have gathered and lets an [`engine`] a log commit them into the segment of its
//! [`segment_writer`]. A draft is answered `Ok` only once it is synced; a failure is an answer,
//! [`Refused`](engine::Refused).

pub(super) mod engine;
pub(super) mod log;
pub(super) mod queue;
pub(super) mod segment_writer;
pub(super) mod thread;
