//! Deadlines of an h2 connection: to be idle, to send a head, to go when it was told.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::Served;
use super::heads::Head;
use crate::http::deadline::Deadline;

/// Time that the last frames to a client whose head does not end have to leave.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// Stage of a connection on its way to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Open,
    /// The client has been told to go: the requests that it has begun are answered.
    Draining,
    /// The connection is refused: what has begun is answered, nothing more is begun, and only then
    /// is the client told. There are clients that lose an answer to what precedes it (a GOAWAY and
    /// the PING of a graceful end).
    Leaving,
    /// The client has been told that this is the end, at this time.
    Ending(Instant),
}

/// The part that has gone on for too long.
pub(super) enum Over {
    /// A head, or it is too large.
    Head,
    Connection,
}

/// The deadlines of a connection, and its stage.
pub(super) struct Vigil<'c> {
    served: Served<'c>,
    pub(super) stage: Stage,
    deadline: Deadline,
}

impl<'c> Vigil<'c> {
    pub(super) fn new(served: Served<'c>) -> Self {
        Self {
            served,
            stage: Stage::Open,
            deadline: Deadline::until(Instant::now() + served.service.idle_timeout),
        }
    }

    /// Waits until a head, or the connection, has gone on for too long.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Over> {
        let head = self.served.meter.head();
        let is_ending = self.is_ending();
        if head == Head::TooLarge && !is_ending {
            return Poll::Ready(Over::Head);
        }
        // Either of these ends earlier than an idle connection.
        if is_ending || head.open_since().is_some() {
            self.deadline.hasten(self.next().1);
        }
        loop {
            ready!(self.deadline.poll_passed(context));
            let (over, at) = self.next();
            if at <= Instant::now() {
                return Poll::Ready(over);
            }
            self.deadline.reset(at);
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending(_))
    }

    /// Returns the next deadline, and the part that it ends.
    fn next(&self) -> (Over, Instant) {
        let Served {
            connection,
            service,
            meter,
        } = self.served;
        if let Stage::Ending(since) = self.stage {
            return (Over::Connection, since + LAST_WORD_TIMEOUT);
        }
        let idle_until = connection.idle_since() + service.idle_timeout;
        let head_since = meter.head().open_since();
        match head_since.map(|since| since + service.header_timeout) {
            Some(head_until) if head_until < idle_until => (Over::Head, head_until),
            _ => (Over::Connection, idle_until),
        }
    }
}
