//! Sessions of TLS 1.2 by their ids, for stacks that know no tickets: modems, old embedded ones.
//!
//! rustls keeps a session here after each full handshake of TLS 1.2, also where the client takes a
//! ticket: it cannot be told apart. They go with the authorities, as tickets do, so that no session
//! is resumed that those would not let in. Bounds: [`SESSIONS_MAX`] of [`SESSION_BYTES_MAX`] bytes,
//! the oldest are forgotten first; a session lasts for [`LIFETIME`], which is that of a ticket. A
//! session that is not found is a full handshake.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

/// The most sessions that are remembered.
const SESSIONS_MAX: usize = 4096;

/// The largest session that is remembered, in bytes. All of them together have 6 MiB as a rule.
const SESSION_BYTES_MAX: usize = 8 * 1024;

const _: () = assert!(
    SESSIONS_MAX * SESSION_BYTES_MAX <= 32 << 20,
    "all of them together have 32 MiB at the very worst"
);

/// The lifetime that rustls gives to tickets.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// The bytes of a session's time, which stand before the session.
const TIME_BYTES: usize = size_of::<u64>();

/// The sessions of all workers.
#[derive(Debug)]
pub(crate) struct Sessions {
    cache: Arc<ServerSessionMemoryCache>,
    since: Instant,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            cache: ServerSessionMemoryCache::new(SESSIONS_MAX),
            since: Instant::now(),
        }
    }
}

impl Sessions {
    fn put_at(&self, age: Duration, key: Vec<u8>, value: &[u8]) -> bool {
        if value.len() > SESSION_BYTES_MAX {
            return false;
        }
        let time = age.as_secs().to_be_bytes();
        self.cache.put(key, [&time[..], value].concat())
    }

    fn get_at(&self, age: Duration, key: &[u8]) -> Option<Vec<u8>> {
        let kept = self.cache.get(key)?;
        let (time, value) = kept.split_first_chunk::<TIME_BYTES>()?;
        let kept_for = age.as_secs().saturating_sub(u64::from_be_bytes(*time));
        (kept_for < LIFETIME.as_secs()).then(|| value.to_vec())
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.put_at(self.since.elapsed(), key, &value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get_at(self.since.elapsed(), key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.get(key);
        self.cache.take(key);
        value
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_as_long_as_a_ticket() {
        let (sessions, second) = (Sessions::default(), Duration::from_secs(1));
        assert!(sessions.put_at(second, b"id".to_vec(), b"session"));
        let last = sessions.get_at(LIFETIME, b"id");
        assert_eq!(last.as_deref(), Some(&b"session"[..]));
        assert_eq!(sessions.get_at(LIFETIME + second, b"id"), None);
        assert_eq!(sessions.get(b"other"), None);
        assert_eq!(sessions.take(b"id").as_deref(), Some(&b"session"[..]));
        assert_eq!(sessions.get(b"id"), None);
    }

    #[test]
    fn sessions_are_bounded_in_number_and_size() {
        let sessions = Sessions::default();
        assert!(!sessions.put(vec![0], vec![0; SESSION_BYTES_MAX + 1]));
        let ids = || (0..2 * SESSIONS_MAX as u32).map(u32::to_be_bytes);
        for id in ids() {
            assert!(sessions.put(id.to_vec(), vec![0]));
        }
        let kept = ids().filter(|id| sessions.get(id).is_some()).count();
        assert!((1..=SESSIONS_MAX).contains(&kept), "{kept}");
    }
}
