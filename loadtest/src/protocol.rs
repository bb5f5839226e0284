//! The HTTP versions that a device may speak.

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    H1,
    H2,
    H3,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::H1, Self::H2, Self::H3];

    /// Returns the protocol's name in ALPN.
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::H1 => b"http/1.1",
            Self::H2 => b"h2",
            Self::H3 => b"h3",
        }
    }
}
