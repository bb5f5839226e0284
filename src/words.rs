//! The words of the domain: closed sets of values that have one name on the wire, in metrics and in
//! logs.
//!
//! Any room may use them: `limits` names a bucket, `http` a protocol, `accept` how a handshake
//! ended. `telemetry` knows a word by its place and its label only, and counts it in an array of as
//! many cells as there are labels.
//!
//! Invariant: a word's labels stand in the order of its variants. Labels are a contract, like the
//! names of metrics.

/// Defines a word: its values and, in the same order, their labels.
macro_rules! word {
    ($(#[$doc:meta])* $vis:vis $name:ident { $($variant:ident = $label:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name { $($variant),* }

        impl $name {
            /// Every label, in the order of the values.
            pub(crate) const LABELS: [&str; [$($label),*].len()] = [$($label),*];

            /// The value's place in [`Self::LABELS`].
            pub(crate) fn index(self) -> usize {
                self as usize
            }

            /// The value's name in metrics, logs and header fields.
            #[allow(dead_code, reason = "a word may be one that is only counted")]
            pub(crate) fn label(self) -> &'static str {
                Self::LABELS[self.index()]
            }
        }
    };
}

word! {
    /// The HTTP version that a connection speaks.
    pub Protocol { H1 = "h1", H2 = "h2", H3 = "h3" }
}

word! {
    /// Whose bucket it is: its name in `RateLimit` and in the metric.
    pub(crate) Scope {
        Device = "device",
        DeviceBytes = "device-bytes",
        Address = "address",
        Handshake = "handshake",
        Gateway = "gateway",
    }
}

word! {
    /// Why a batch was sealed.
    pub SealReason {
        Bytes = "bytes",
        Records = "records",
        Linger = "linger",
        Idle = "idle",
        Drain = "drain",
    }
}

word! {
    /// Kind of a file that could not be reloaded.
    pub(crate) Reload {
        Certificate = "certificate",
        ClientCa = "client_ca",
        Crl = "crl",
        Devices = "devices",
        Password = "password",
        Rules = "rules",
    }
}

word! {
    /// Why a record is not what its stream takes.
    pub(crate) Rejection {
        NotJson = "not-json",
        SchemaViolation = "schema-violation",
        DeviceMismatch = "device-mismatch",
        RecordTooLarge = "record-too-large",
    }
}

word! {
    /// Result of a handshake: accepted or resumed, or the reason of its failure.
    pub(crate) Handshake {
        Accepted = "accepted",
        Resumed = "resumed",
        Timeout = "timeout",
        NoCertificate = "no_certificate",
        BadCertificate = "bad_certificate",
        UnknownIssuer = "unknown_issuer",
        Expired = "expired",
        NotYetValid = "not_yet_valid",
        Revoked = "revoked",
        CrlExpired = "crl_expired",
        CrlMissing = "crl_missing",
        ServerUntrusted = "server_untrusted",
        PlainHttp = "plain_http",
        RateLimited = "rate_limited",
        AddressFull = "address_full",
        Full = "full",
        DeviceFull = "device_full",
        Retry = "retry",
        Protocol = "protocol",
        Io = "io",
        Unused = "unused",
    }
}

word! {
    /// Why a connection has ended.
    pub(crate) Disconnect {
        Closed = "closed",
        Idle = "idle",
        Lost = "lost",
        Revoked = "revoked",
        Denied = "denied",
        Expired = "expired",
        Flood = "flood",
        Drain = "drain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stands_in_the_place_of_its_value() {
        assert_eq!(Protocol::H3.label(), "h3");
        assert_eq!(Scope::Gateway.index(), Scope::LABELS.len() - 1);
        assert_eq!(Handshake::Unused.label(), "unused");
        assert_eq!(Reload::LABELS[Reload::ClientCa.index()], "client_ca");
    }
}
