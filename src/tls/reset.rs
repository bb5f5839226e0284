//! The secret of QUIC's stateless resets, which is the same one after a restart (RFC 9000 section
//! 10.3.2).
//!
//! A gateway that was killed has lost its connections, and answers what comes on them by a token
//! that the client was given when it connected: so the client knows at once, and need not wait for
//! its idle time-out. The secret follows from the bytes of the server's private key files as they
//! are at start, and from the host's name: who shares the key on another host must not be able to
//! end connections that live here (RFC 9000 section 21.11). Neither must another worker, to whom a
//! packet may have gone astray: each one has a key of its own.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::hmac::{self, HMAC_SHA256};

use super::TlsError;
use super::files::{self, KEY};

/// Label of the derivation: purpose and version.
const PURPOSE: &[u8] = b"forebay stateless reset 1";

/// File in which Linux tells the host's name; without it hosts are not told apart.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// The secret of all workers.
#[derive(Clone)]
pub(crate) struct Resets(hmac::Key);

impl Resets {
    /// Reads the server's private keys.
    pub(crate) fn load(key_files: &[PathBuf]) -> Result<Self, TlsError> {
        let mut secret = Vec::new();
        for file in key_files {
            let bytes = std::fs::read(file);
            secret.extend(bytes.map_err(|error| files::failed(KEY, file, error.to_string()))?);
        }
        let host = std::fs::read(HOST_NAME).unwrap_or_default();
        Ok(Self::of(&secret, &host))
    }

    fn of(secret: &[u8], host: &[u8]) -> Self {
        let key = hmac::Key::new(HMAC_SHA256, secret);
        Self(derive(&key, &[PURPOSE, host].concat()))
    }

    /// The key of one of so many workers, whose packets find it after a restart with as many
    /// (`accept::steer`).
    pub(crate) fn of_worker(&self, worker: usize, workers: usize) -> Arc<hmac::Key> {
        debug_assert!(worker < workers);
        let place = [worker, workers].map(|number| (number as u64).to_be_bytes());
        Arc::new(derive(&self.0, &place.concat()))
    }
}

fn derive(key: &hmac::Key, of: &[u8]) -> hmac::Key {
    hmac::Key::new(HMAC_SHA256, hmac::sign(key, of).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(secret: &[u8], host: &[u8], worker: usize, workers: usize) -> Vec<u8> {
        let key = Resets::of(secret, host).of_worker(worker, workers);
        hmac::sign(&key, b"connection id").as_ref().to_vec()
    }

    #[test]
    fn only_the_same_worker_of_the_same_gateway_makes_the_same_token() {
        let expected = token(b"key", b"edge-1", 0, 2);
        assert_eq!(token(b"key", b"edge-1", 0, 2), expected);
        for other in [
            token(b"other", b"edge-1", 0, 2),
            token(b"key", b"edge-2", 0, 2),
            token(b"key", b"edge-1", 1, 2),
            token(b"key", b"edge-1", 0, 3),
        ] {
            assert_ne!(other, expected);
        }
    }
}
