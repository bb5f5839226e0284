//! The login to the brokers.
//!
//! Certificates, and a password that does not change, are librdkafka's own affair once it is
//! configured. A password in a file, and the tokens of `OAUTHBEARER`, change while the sink runs:
//! [`Login::keep`] is the task that puts each new one in force, on delivery's runtime. It ends with
//! the sink.
//!
//! librdkafka's own OIDC needs libcurl, which is not built in; its properties take effect here
//! instead. On the wire a token of any source is `OAUTHBEARER`. While no new secret can be had, the
//! last one stays in force, the log tells of it, and `/readyz` has it as the reason why brokers do
//! not answer.

#[cfg(feature = "msk")]
mod msk;
mod oidc;
mod password;
mod token;

use std::sync::Arc;

use super::SinkError;
use super::keyring::Keyring;
use super::properties::{Properties, Property, fault};
use super::reports::Reports;
use crate::config::KafkaConfig;
use oidc::Oidc;
use password::PasswordFile;
use token::Source;

const PASSWORD_MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
const OAUTHBEARER: &str = "OAUTHBEARER";

/// Amazon's name for `OAUTHBEARER` with a token of its own.
const AWS_MSK_IAM: &str = "AWS_MSK_IAM";

/// The source of the secret.
#[derive(Clone)]
pub(crate) enum Login {
    /// librdkafka has it, or needs none.
    AsConfigured,
    PasswordFile(PasswordFile),
    Token(Arc<Source>),
}

/// A mechanism of SASL that the sink knows.
enum Mechanism {
    Password,
    /// librdkafka's own tokens, without a signature: for development.
    Unsecured,
    Oidc,
    MskIam,
}

/// Returns the same settings with any password in the place of one that stands in a file, which
/// need not be there for a check of the other settings.
pub(crate) fn with_any_password(config: &KafkaConfig) -> KafkaConfig {
    let mut config = config.clone();
    let is_mechanism = |name: &str| matches!(name, "sasl.mechanisms" | "sasl.mechanism");
    let takes_password = config
        .properties
        .iter()
        .any(|(name, value)| is_mechanism(name) && PASSWORD_MECHANISMS.contains(&value.as_str()));
    for (name, value) in &mut config.properties {
        if takes_password && name == "sasl.password.file" {
            *name = "sasl.password".into();
            *value = "any".into();
        }
    }
    config
}

impl Login {
    /// Takes out the properties that librdkafka must not see, and returns the login that they ask
    /// for.
    pub(crate) fn take(properties: &mut Properties) -> Result<Self, SinkError> {
        let file = properties.take("sasl.password.file");
        let mechanism = match properties.get("sasl.mechanisms") {
            Some(mechanism) => Some(Mechanism::of(mechanism, properties)?),
            None => None,
        };
        if let Some(file) = file {
            return match mechanism {
                Some(Mechanism::Password) => Self::of_file(&file, properties),
                _ => Err(needs_a_password_mechanism(&file)),
            };
        }
        match mechanism {
            Some(Mechanism::Oidc) => {
                properties.take("sasl.oauthbearer.method");
                check_protocol(properties, &["sasl_ssl", "sasl_plaintext"])?;
                Ok(Self::of_source(Source::Oidc(Oidc::take(properties)?)))
            }
            Some(Mechanism::MskIam) => Self::of_msk(properties),
            _ => Ok(Self::AsConfigured),
        }
    }

    fn of_file(file: &Property, properties: &Properties) -> Result<Self, SinkError> {
        let file = PasswordFile::open(file, properties)?;
        Ok(Self::PasswordFile(file))
    }

    fn of_source(source: Source) -> Self {
        Self::Token(Arc::new(source))
    }

    #[cfg(feature = "msk")]
    fn of_msk(properties: &mut Properties) -> Result<Self, SinkError> {
        let mechanism = properties.take("sasl.mechanisms");
        debug_assert!(mechanism.is_some(), "it is what the mechanism was read of");
        properties.add("sasl.mechanisms", OAUTHBEARER);
        if properties.get("security.protocol").is_none() {
            properties.add("security.protocol", "sasl_ssl");
        }
        check_protocol(properties, &["sasl_ssl"])?;
        Ok(Self::of_source(Source::Msk(Box::default())))
    }

    #[cfg(not(feature = "msk"))]
    fn of_msk(_: &mut Properties) -> Result<Self, SinkError> {
        let why = "is AWS_MSK_IAM, which this binary was built without (feature msk)";
        Err(fault("sasl.mechanisms", why))
    }

    /// Puts the first secret in force, if there is one yet.
    pub(crate) fn begin(&self, keyring: &Keyring) {
        if let Self::PasswordFile(file) = self {
            let taken = keyring.change(file.secret());
            debug_assert!(taken.is_ok(), "no client has entered yet");
        }
    }

    /// Puts every new secret in force, until it is dropped. `on_change` is called when a password
    /// file has changed, with whether it is of use.
    pub(crate) async fn keep(
        self,
        keyring: Arc<Keyring>,
        reports: Reports,
        on_change: impl Fn(bool),
    ) {
        match self {
            Self::AsConfigured => {}
            Self::PasswordFile(file) => file.keep(&keyring, on_change).await,
            Self::Token(source) => token::keep(&source, &keyring, &reports).await,
        }
    }
}

impl Mechanism {
    fn of(mechanism: &Property, properties: &Properties) -> Result<Self, SinkError> {
        if mechanism.is_one_of(&PASSWORD_MECHANISMS) {
            Ok(Self::Password)
        } else if mechanism.is_one_of(&[AWS_MSK_IAM]) {
            Ok(Self::MskIam)
        } else if mechanism.is_one_of(&[OAUTHBEARER]) {
            Self::of_tokens(properties)
        } else {
            let passwords = PASSWORD_MECHANISMS.join(", ");
            Err(mechanism.fault(&format!(
                "must be one of {passwords}, {OAUTHBEARER}, {AWS_MSK_IAM}"
            )))
        }
    }

    fn of_tokens(properties: &Properties) -> Result<Self, SinkError> {
        const METHOD: &str = "sasl.oauthbearer.method";
        let unsecured = properties.get("enable.sasl.oauthbearer.unsecure.jwt");
        match properties.get(METHOD) {
            Some(method) if method.is_one_of(&["oidc"]) => Ok(Self::Oidc),
            _ if unsecured.is_some_and(|property| !property.is_off()) => Ok(Self::Unsecured),
            _ => Err(fault(METHOD, "must be oidc for OAUTHBEARER")),
        }
    }
}

/// Tokens are for connections that ask for them.
fn check_protocol(properties: &Properties, protocols: &[&str]) -> Result<(), SinkError> {
    const PROTOCOL: &str = "security.protocol";
    match properties.get(PROTOCOL) {
        Some(protocol) if protocol.is_one_of(protocols) => Ok(()),
        _ => Err(fault(
            PROTOCOL,
            &format!("must be {} to log in by token", protocols.join(" or ")),
        )),
    }
}

fn needs_a_password_mechanism(file: &Property) -> SinkError {
    let mechanisms = PASSWORD_MECHANISMS.join(", ");
    file.fault(&format!(
        "does nothing without FOREBAY_KAFKA_SASL_MECHANISMS, one of {mechanisms}"
    ))
}
