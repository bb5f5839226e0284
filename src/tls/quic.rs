//! The configurations of QUIC's handshakes: one for each of them, whose verifier notes the
//! certificate that it refuses.
//!
//! quinn tells of a failed handshake no more than its alert, and by then another one may have
//! failed on the thread; so each handshake has a note of its own, which `accept` reads when its
//! handshake has failed. The configuration costs a few hundred bytes for as long as the connection
//! lives.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::ProducesTickets;

use super::pair::Pairs;
use super::sessions::Sessions;
use super::settings::{Settings, server_config};
use super::verifier::{Note, Verifier};

/// Makes the configurations of QUIC's handshakes.
pub(crate) struct QuicConfigs {
    pub(super) settings: Settings,
    pub(super) verifier: Arc<Verifier>,
    pub(super) resolver: Arc<Pairs>,
    pub(super) ticketer: Arc<dyn ProducesTickets>,
    pub(super) sessions: Arc<Sessions>,
}

impl QuicConfigs {
    /// Makes the configuration of one handshake, and what it notes. An error is one of rustls, and
    /// the same for each.
    pub(crate) fn config(&self) -> Result<(Arc<ServerConfig>, Note), rustls::Error> {
        let note = Note::default();
        let verifier = Arc::new(self.verifier.noting(note.clone()));
        let mut config = server_config(&self.settings, verifier, self.resolver.clone())?;
        config.alpn_protocols = vec![b"h3".to_vec()];
        config.ticketer = self.ticketer.clone();
        config.session_storage = self.sessions.clone();
        Ok((Arc::new(config), note))
    }
}
