//! The reports of librdkafka: the fate of each message, its log, and the reason why brokers cannot
//! be reached.
//!
//! Called by the tasks that poll the producers. Delivery reports go to the table of batches; the
//! log goes on to ours; the latest trouble with a broker is kept until all is well again, as the
//! reason for answers that are missing.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult};
use rdkafka::producer::ProducerContext;

use super::in_flight::InFlight;
use super::native::may_be_in_topic;
use super::{InTopic, code_of, outcome};

/// The receiver of the reports of one sink's producers.
#[derive(Clone)]
pub(crate) struct Reports {
    in_flight: Arc<InFlight>,
    trouble: Arc<ArcSwapOption<Trouble>>,
}

/// Tells why brokers could not be reached.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub code: RDKafkaErrorCode,
    pub reason: String,
}

impl Trouble {
    /// Whether a password or a certificate is refused, by the broker or by us: asking again will
    /// not help.
    pub(crate) fn turns_us_away(&self) -> bool {
        // TLS 1.3 servers judge a client's certificate after the handshake: librdkafka sees a
        // connection that breaks.
        let is_alert = self.reason.contains("SSL alert number");
        is_alert
            || matches!(
                self.code,
                RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL
            )
    }
}

impl Reports {
    pub(crate) fn new(in_flight: Arc<InFlight>) -> Self {
        Self {
            in_flight,
            trouble: Arc::default(),
        }
    }

    /// Returns the latest trouble with a broker since [`Self::all_is_well`].
    pub(crate) fn trouble(&self) -> Option<Arc<Trouble>> {
        self.trouble.load_full()
    }

    pub(crate) fn all_is_well(&self) {
        self.trouble.store(None);
    }

    /// Notes that there is no token to log in with, for this reason.
    pub(crate) fn no_token(&self, reason: &str) {
        self.note(RDKafkaErrorCode::Authentication, reason);
    }

    fn note(&self, code: RDKafkaErrorCode, reason: &str) {
        self.trouble.store(Some(Arc::new(Trouble {
            code,
            reason: reason.into(),
        })));
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let failure = result
            .as_ref()
            .err()
            .map(|(error, message)| outcome(code_of(error), in_topic(message)));
        self.in_flight.report(opaque, failure);
    }
}

fn in_topic(message: &BorrowedMessage<'_>) -> InTopic {
    if may_be_in_topic(message) {
        InTopic::Perhaps
    } else {
        InTopic::No
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "FAIL" {
            // A connection that breaks is not always an error to librdkafka; when it is, `error`
            // follows and knows more.
            let reason = text
                .split_once("]: ")
                .map_or(text, |(_thread, reason)| reason);
            self.note(RDKafkaErrorCode::BrokerTransportFailure, reason);
        }
        match level {
            // A young broker that is not ready to number producers: librdkafka asks again.
            _ if facility == "GETPID" => tracing::debug!(facility, text, "librdkafka"),
            RDKafkaLogLevel::Debug => tracing::debug!(facility, text, "librdkafka"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::info!(facility, text, "librdkafka")
            }
            _ => tracing::warn!(facility, text, "librdkafka"),
        }
    }

    /// Keeps the error as the reason why the brokers do not answer; librdkafka has logged it.
    fn error(&self, error: KafkaError, reason: &str) {
        let code = code_of(&error);
        // It follows the trouble with the last of them, and says less.
        if code != RDKafkaErrorCode::AllBrokersDown {
            self.note(code, reason);
        }
    }
}
