//! Faults of a stream, and the scope of each: its request, or the connection.

use h3::error::Code;
use thiserror::Error;

use super::fields::Flaw;

/// A fault of a stream.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    #[error("a frame is too long")]
    TooLong,
    #[error("too many frames without a meaning")]
    Meaningless,
    #[error("the stream ends in the middle of a frame")]
    CutOff,
    #[error("a frame's payload is not what its type has")]
    Payload,
    #[error("a control frame goes back on one before it, or names a push that there is not")]
    Id,
    #[error("a field section cannot be decoded")]
    Undecodable,
    #[error("a field section is malformed")]
    Malformed,
}

impl Fault {
    /// Its code in RFC 9114 section 8.1, or RFC 9204 section 6.
    pub fn code(self) -> Code {
        match self {
            Self::TooLong | Self::Meaningless => Code::H3_EXCESSIVE_LOAD,
            Self::CutOff | Self::Payload => Code::H3_FRAME_ERROR,
            Self::Id => Code::H3_ID_ERROR,
            Self::Undecodable => Code::QPACK_DECOMPRESSION_FAILED,
            Self::Malformed => Code::H3_MESSAGE_ERROR,
        }
    }

    /// Whether it ends the connection also where it is found in a request.
    pub fn ends_connection(self) -> bool {
        match self {
            Self::TooLong | Self::Meaningless | Self::Malformed => false,
            Self::CutOff | Self::Payload | Self::Id | Self::Undecodable => true,
        }
    }
}

impl From<Flaw> for Fault {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Undecodable => Self::Undecodable,
            Flaw::Malformed => Self::Malformed,
        }
    }
}
