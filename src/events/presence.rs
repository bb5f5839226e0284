//! A device on one of its connections: what it has sent, and what is to be told of it.
//!
//! The connection counts each answer, and notes what comes to light meanwhile; its task tells of
//! that once it has been polled, and of the rest at its end. Usage that was told is remembered, so
//! each request is in one usage event.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::Reporter;
use super::event::{Event, Opening};
use super::usage::{Counts, Usage};
use crate::record::{DeviceId, Timestamp};
use crate::words::{Disconnect, Protocol, Scope};

/// The count of one connection, which its worker's reporter looks at as well.
pub(super) struct Account {
    device: DeviceId,
    protocol: Protocol,
    not_after: Timestamp,
    opened_at: Instant,
    counts: Cell<Counts>,
    /// Counts that usage events have told, and the end of their time.
    told: Cell<Counts>,
    told_until: Cell<Timestamp>,
    news: Cell<News>,
    /// Whether an event has told, or is about to, that the certificate's end is near.
    is_expiry_noted: Cell<bool>,
}

/// News of a connection that no event has told yet.
#[derive(Clone, Copy, Default)]
struct News {
    /// The bucket that refused last, and how many refusals are to be told.
    limited: Option<(Scope, u32)>,
    expires: bool,
}

impl Account {
    pub(super) fn of(opening: &Opening<'_>) -> Self {
        Self {
            device: opening.device.clone(),
            protocol: opening.protocol,
            not_after: opening.not_after,
            opened_at: Instant::now(),
            counts: Cell::default(),
            told: Cell::default(),
            told_until: Cell::new(Timestamp::now()),
            news: Cell::default(),
            is_expiry_noted: Cell::default(),
        }
    }

    pub(super) fn device(&self) -> &DeviceId {
        &self.device
    }

    /// Returns the usage that no event has told yet; `None` where there is none.
    fn untold(&self) -> Option<Usage> {
        let counts = self.counts.get().since(&self.told.get());
        let from = self.told_until.get();
        (!counts.is_nothing()).then(|| Usage {
            from,
            to: from.max(Timestamp::now()),
            counts,
        })
    }

    /// Has what was not told told by `tell`, which says whether it was: if not, it is told with what
    /// comes after it. Where nothing was sent, the next usage begins now.
    pub(super) fn settle(&self, tell: impl FnOnce(&Usage) -> bool) {
        let Some(usage) = self.untold() else {
            return self.told_until.set(Timestamp::now());
        };
        if tell(&usage) {
            self.told.set(self.counts.get());
            self.told_until.set(usage.to);
        }
    }

    fn lasted(&self) -> Duration {
        self.opened_at.elapsed()
    }
}

/// A device that is there. Told to be gone by [`close`](Self::close).
pub(crate) struct Presence {
    pub(super) reporter: Rc<Reporter>,
    pub(super) account: Rc<Account>,
    /// Place among the open connections, where usage is told.
    pub(super) place: Option<usize>,
}

impl Presence {
    /// Counts a request that was answered, with the bytes of its body where it was accepted.
    #[inline]
    pub(crate) fn count(&self, is_accepted: bool, accepted_bytes: u64) {
        debug_assert!(is_accepted || accepted_bytes == 0);
        let mut counts = self.account.counts.get();
        counts.accepted += u64::from(is_accepted);
        counts.refused += u64::from(!is_accepted);
        counts.bytes += accepted_bytes;
        self.account.counts.set(counts);
    }

    /// So many refusals are to be told, the last one by this bucket.
    pub(crate) fn note_limited(&self, scope: Scope, refused: u32) {
        let mut news = self.account.news.get();
        news.limited = Some((scope, refused));
        self.account.news.set(news);
    }

    /// The certificate's end is near: told once.
    pub(crate) fn note_expiry(&self) {
        if self.account.is_expiry_noted.replace(true) {
            return;
        }
        let mut news = self.account.news.get();
        news.expires = true;
        self.account.news.set(news);
    }

    /// Tells what has come to light.
    #[inline]
    pub(crate) fn tell_news(&self) {
        let news = self.account.news.get();
        if news.limited.is_some() || news.expires {
            self.tell(self.account.news.take());
        }
    }

    #[cold]
    fn tell(&self, news: News) {
        let Account {
            device, not_after, ..
        } = &*self.account;
        if let Some((scope, refused)) = news.limited {
            let event = Event::Limited { scope, refused };
            self.reporter.tell(Some(device), &event);
        }
        if news.expires {
            let not_after = *not_after;
            let event = Event::CertificateExpires { not_after };
            self.reporter.tell(Some(device), &event);
        }
    }

    /// Tells that the device has gone, after all else that there is to tell of its connection.
    pub(crate) fn close(self, reason: Disconnect) {
        self.tell_news();
        let account = &self.account;
        if let Some(place) = self.place {
            self.reporter.open.borrow_mut().remove(place);
            if let Some(usage) = account.untold() {
                self.reporter.tell_last_usage(&account.device, usage);
            }
        }
        let event = Event::Disconnected {
            protocol: account.protocol,
            reason,
            lasted: account.lasted(),
            counts: account.counts.get(),
        };
        self.reporter.tell(Some(&account.device), &event);
    }
}
