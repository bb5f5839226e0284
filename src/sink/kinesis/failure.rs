//! The failures of calls: the meaning of an SDK's error for the records of its call.
//!
//! `call` and `verify` ask. The question is always the same: can the stream have the records, which
//! side is at fault, and does waiting help? When in doubt the records may have been written.

use std::error::Error;

use aws_sdk_kinesis::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use hyper_util::client::legacy::Error as HttpClientError;

use crate::record::Reason;
use crate::sink::cause;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing was written, and the same call may pass later.
    NotWritten(Reason),
    /// Nothing was written: the credentials are no longer good. The same call may pass with new
    /// ones.
    Expired(Reason),
    /// The call was sent and no answer came back.
    NoAnswer(Reason),
    /// The stream never takes a record of the call, or the call as a whole; nothing was written.
    Refused(Reason),
    /// The service takes nothing from this gateway until an operator changes something; nothing was
    /// written.
    Stream(Reason),
    /// The stream is gone, or closed to this gateway; nothing was written.
    Barred(Reason),
}

impl Failure {
    pub(crate) fn of<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Self {
        match error {
            SdkError::ConstructionFailure(_) => Self::Stream("the request cannot be made".into()),
            SdkError::TimeoutError(_) => Self::NoAnswer("timeout".into()),
            SdkError::DispatchFailure(failure) => failure.as_connector_error().map_or_else(
                || Self::NoAnswer("the connection was lost".into()),
                of_connection,
            ),
            SdkError::ServiceError(error) => {
                of_answer(error.raw().status().as_u16(), error.err().code())
            }
            _ => Self::NoAnswer("the answer cannot be read".into()),
        }
    }

    pub(crate) fn reason(&self) -> &Reason {
        match self {
            Self::NotWritten(reason)
            | Self::Expired(reason)
            | Self::NoAnswer(reason)
            | Self::Refused(reason)
            | Self::Stream(reason)
            | Self::Barred(reason) => reason,
        }
    }

    /// Whether the credentials are good, but not for this.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Barred(reason) if &**reason == ACCESS_DENIED)
    }

    /// Whether the service answers, but this account asks too often.
    pub(crate) fn is_throttling(&self) -> bool {
        matches!(self, Self::NotWritten(reason) if THROTTLING.contains(&&**reason))
    }
}

const ACCESS_DENIED: &str = "AccessDeniedException";

/// Codes of a call that came too soon after others.
const THROTTLING: [&str; 4] = [
    "LimitExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestThrottled",
];

/// Error codes of PutRecords and those common to all AWS services:
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>,
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html>. A server error that
/// is none of them comes from something on the way, which may have passed the call on.
pub(super) fn of_answer(status: u16, code: Option<&str>) -> Failure {
    let code = code.unwrap_or("an error without a code");
    match code {
        "ValidationException" | "InvalidArgumentException" | "RequestEntityTooLarge" => {
            Failure::Refused(code.into())
        }
        _ if THROTTLING.contains(&code) => Failure::NotWritten(code.into()),
        "ProvisionedThroughputExceededException"
        | "KMSThrottlingException"
        | "InternalFailure"
        | "InternalFailureException"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Failure::NotWritten(code.into()),
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => {
            Failure::Expired(code.into())
        }
        // Keys that have been taken back, as a rotation does.
        "UnrecognizedClientException" | "InvalidClientTokenId" => Failure::Expired(code.into()),
        "ResourceNotFoundException" | ACCESS_DENIED => Failure::Barred(code.into()),
        // The stream's key is disabled, gone or closed to us; KMS's throttling is above.
        _ if code.starts_with("KMS") => Failure::Barred(code.into()),
        _ if status == 413 => Failure::Refused("the call is too large".into()),
        _ if status >= 500 => Failure::NoAnswer(format!("{code}, status {status}").into()),
        _ => Failure::Stream(code.into()),
    }
}

/// Says what a connection's error means. Without an HTTP client's error in the chain the call ended
/// before it was sent, as it does without credentials.
fn of_connection(error: &ConnectorError) -> Failure {
    match find::<HttpClientError>(error) {
        Some(client) if client.is_connect() => Failure::NotWritten(innermost(error)),
        None if error.is_other() || error.is_user() => Failure::Stream(innermost(error)),
        _ => Failure::NoAnswer(innermost(error)),
    }
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    cause::causes(error).find_map(|cause| cause.downcast_ref())
}

/// Puts the first cause's text on one line.
fn innermost(error: &(dyn Error + 'static)) -> Reason {
    let text = cause::innermost(error);
    text.split_whitespace().collect::<Vec<_>>().join(" ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_record_s_own_fault_is_for_good() {
        assert!(matches!(
            of_answer(400, Some("ValidationException")),
            Failure::Refused(_)
        ));
        assert!(matches!(
            of_answer(500, Some("InternalFailure")),
            Failure::NotWritten(_)
        ));
        assert!(matches!(
            of_answer(400, Some("ExpiredTokenException")),
            Failure::Expired(_)
        ));
        assert!(matches!(of_answer(502, None), Failure::NoAnswer(_)));
        assert_eq!(
            of_answer(400, Some("Unheard")),
            Failure::Stream("Unheard".into())
        );
        for code in [
            "ResourceNotFoundException",
            ACCESS_DENIED,
            "KMSDisabledException",
            "KMSAccessDeniedException",
        ] {
            assert_eq!(of_answer(400, Some(code)), Failure::Barred(code.into()));
        }
        for (code, is_throttling) in [
            ("LimitExceededException", true),
            ("InternalFailure", false),
            ("KMSThrottlingException", false),
        ] {
            assert!(matches!(of_answer(400, Some(code)), Failure::NotWritten(_)));
            assert_eq!(of_answer(400, Some(code)).is_throttling(), is_throttling);
        }
    }
}
