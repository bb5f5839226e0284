//! Session tickets that are no longer than they need to be.
//!
//! rustls writes the client's whole chain into a ticket, which the device then sends with each
//! resumption. What a gateway needs of it is the device's own certificate; those of the authorities
//! above it are the same for a whole fleet. `accept` tells of the chains that were let in
//! ([`SharedCertificates::learn`]), and a ticket holds a reference in the place of a certificate
//! that is known.
//!
//! Limits: [`CERTIFICATES_MAX`] certificates of [`CERTIFICATE_BYTES_MAX`] bytes. They are never
//! forgotten, so a reference holds for as long as the process and its ticket keys live. What is not
//! known stays in the ticket whole: a device that fills the table with certificates of its own
//! choice makes the tickets of others longer, and nothing else. A ticket that cannot be read is a
//! full handshake.
//!
//! The text of a ticket: the number of references, in one byte; for each its certificate's place in
//! the table, in one byte, and where in the rest it belongs, in four bytes, big-endian; then the
//! rest.

use std::sync::Arc;

use arc_swap::ArcSwap;
use memchr::memmem;
use rustls::pki_types::CertificateDer;
use rustls::server::ProducesTickets;

/// The certificates that are remembered: the authorities of most fleets are one or two.
const CERTIFICATES_MAX: usize = 16;

/// The longest certificate that is remembered, in bytes.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

const REFERENCE_BYTES: usize = 1 + size_of::<u32>();

const _: () = assert!(CERTIFICATES_MAX <= u8::MAX as usize);

/// Certificates of authorities that devices bring along, in the order in which they were met.
#[derive(Debug, Default)]
pub(crate) struct SharedCertificates(ArcSwap<Vec<Arc<[u8]>>>);

impl SharedCertificates {
    /// Remembers what stands above the leaf of a chain that was let in.
    pub(crate) fn learn(&self, chain: &[CertificateDer<'_>]) {
        for certificate in chain.iter().skip(1) {
            if is_new(&self.0.load(), certificate) {
                self.add(certificate);
            }
        }
    }

    #[cold]
    fn add(&self, certificate: &[u8]) {
        self.0.rcu(|known| {
            let mut known = Vec::clone(known);
            // Another worker may have met it meanwhile.
            if is_new(&known, certificate) {
                known.push(certificate.into());
            }
            debug_assert!(known.len() <= CERTIFICATES_MAX, "a place fits one byte");
            known
        });
    }

    /// The text with references in the place of certificates that are known.
    fn shorten(&self, text: &[u8]) -> Vec<u8> {
        let known = self.0.load();
        let found = find(&known, text);
        let mut short = Vec::with_capacity(text.len() + 1);
        short.push(found.len() as u8);
        let mut rest = Vec::with_capacity(text.len());
        let mut end = 0;
        for Reference { place, at } in &found {
            rest.extend_from_slice(&text[end..*at]);
            short.push(*place as u8);
            short.extend_from_slice(&(rest.len() as u32).to_be_bytes());
            end = at + known[*place].len();
        }
        rest.extend_from_slice(&text[end..]);
        short.append(&mut rest);
        short
    }

    /// The text that was shortened; `None` for one that was not.
    fn restore(&self, short: &[u8]) -> Option<Vec<u8>> {
        let known = self.0.load();
        let (&count, short) = short.split_first()?;
        let (references, rest) = short.split_at_checked(usize::from(count) * REFERENCE_BYTES)?;
        let mut text = Vec::with_capacity(rest.len());
        let mut end = 0;
        let (references, _) = references.as_chunks::<REFERENCE_BYTES>();
        for [place, at @ ..] in references {
            let at = u32::from_be_bytes(*at) as usize;
            text.extend_from_slice(rest.get(end..at)?);
            text.extend_from_slice(known.get(usize::from(*place))?);
            end = at;
        }
        text.extend_from_slice(&rest[end..]);
        Some(text)
    }
}

fn is_new(known: &[Arc<[u8]>], certificate: &[u8]) -> bool {
    known.len() < CERTIFICATES_MAX
        && certificate.len() <= CERTIFICATE_BYTES_MAX
        && !known.iter().any(|known| **known == *certificate)
}

/// Place in a text at which a known certificate stands.
struct Reference {
    /// Place of the certificate in the table.
    place: usize,
    /// Offset in the text at which it begins.
    at: usize,
}

/// The first place of each known certificate, in the order of the text. No two of them overlap.
fn find(known: &[Arc<[u8]>], text: &[u8]) -> Vec<Reference> {
    let mut found = Vec::new();
    for (place, certificate) in known.iter().enumerate() {
        if let Some(at) = memmem::find(text, certificate) {
            found.push(Reference { place, at });
        }
    }
    found.sort_by_key(|found| found.at);
    let mut end = 0;
    found.retain(|Reference { place, at }| {
        let is_free = *at >= end;
        if is_free {
            end = at + known[*place].len();
        }
        is_free
    });
    debug_assert!(found.len() <= CERTIFICATES_MAX);
    found
}

/// Encrypts tickets, shortened.
#[derive(Debug)]
pub(crate) struct ShortTickets {
    pub ticketer: Arc<dyn ProducesTickets>,
    pub certificates: Arc<SharedCertificates>,
}

impl ProducesTickets for ShortTickets {
    fn enabled(&self) -> bool {
        self.ticketer.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.ticketer.lifetime()
    }

    fn encrypt(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.ticketer.encrypt(&self.certificates.shorten(text))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let short = self.ticketer.decrypt(ticket)?;
        self.certificates.restore(&short)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificates(all: &[Vec<u8>]) -> SharedCertificates {
        let shared = SharedCertificates::default();
        let leaf = CertificateDer::from(vec![0; 10]);
        let others = all.iter().cloned().map(CertificateDer::from);
        shared.learn(&std::iter::once(leaf).chain(others).collect::<Vec<_>>());
        shared
    }

    #[test]
    fn what_is_known_is_not_in_the_ticket() {
        let intermediate = b"an intermediate authority".to_vec();
        let shared = certificates(std::slice::from_ref(&intermediate));
        let text = [&b"leaf"[..], &intermediate, b"secret"].concat();
        let short = shared.shorten(&text);
        assert_eq!(short, b"\x01\x00\x00\x00\x00\x04leafsecret");
        assert_eq!(shared.restore(&short), Some(text));
        assert_eq!(shared.shorten(b"leaf"), b"\0leaf");
    }

    #[test]
    fn the_table_is_bounded_and_keeps_its_places() {
        let many: Vec<Vec<u8>> = (0..100).map(|number| vec![number; 40]).collect();
        let shared = certificates(&many);
        assert_eq!(shared.0.load().len(), CERTIFICATES_MAX);
        let short = shared.shorten(&many[3]);
        shared.learn(&[
            CertificateDer::from(vec![0]),
            CertificateDer::from(vec![9; 9]),
        ]);
        assert_eq!(shared.restore(&short).as_ref(), Some(&many[3]));
    }

    #[test]
    fn what_was_not_shortened_is_refused() {
        let shared = certificates(&[vec![7; 40]]);
        for bad in [
            &b""[..],
            b"\x01",
            b"\x01\x01\0\0\0\0",
            b"\x01\0\0\0\0\x09rest",
        ] {
            assert_eq!(shared.restore(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_text_comes_back_as_it_was(
            known in prop::collection::vec(prop::collection::vec(0..3_u8, 1..8), 0..20),
            parts in prop::collection::vec(prop::collection::vec(0..3_u8, 0..12), 0..8),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let shared = certificates(&known);
            let mut text = Vec::new();
            for (number, part) in parts.iter().enumerate() {
                text.extend_from_slice(part);
                if let Some(pick) = picks.get(number).filter(|_| !known.is_empty()) {
                    text.extend_from_slice(pick.get::<Vec<u8>>(&known));
                }
            }
            prop_assert_eq!(shared.restore(&shared.shorten(&text)), Some(text));
        }
    }
}
