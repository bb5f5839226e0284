//! librdkafka's properties as the operator wrote them, and the faults that name them.
//!
//! A property may have two names (`linger.ms` is `queue.buffering.max.ms`). A look-up is by
//! librdkafka's first name for it and finds the operator's value under either; a fault names the
//! variable that the operator used.

use super::SinkError;

/// Other names of a producer's properties, from librdkafka's CONFIGURATION.md.
const ALIASES: [(&str, &str); 10] = [
    ("bootstrap.servers", "metadata.broker.list"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanism", "sasl.mechanisms"),
    (
        "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.client.id",
    ),
    (
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.client.secret",
    ),
    ("linger.ms", "queue.buffering.max.ms"),
    ("retries", "message.send.max.retries"),
    ("compression.type", "compression.codec"),
    ("acks", "request.required.acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
];

/// One property, under the name that the operator used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Property {
    pub name: String,
    pub value: String,
}

impl Property {
    /// Returns librdkafka's first name for it.
    pub(crate) fn canonical(&self) -> &str {
        canonical(&self.name)
    }

    /// Says what is wrong with its value.
    pub(crate) fn fault(&self, why: &str) -> SinkError {
        fault(&self.name, why)
    }

    /// Whether the value is one of these, in any case.
    pub(crate) fn is_one_of(&self, known: &[&str]) -> bool {
        known
            .iter()
            .any(|known| self.value.eq_ignore_ascii_case(known))
    }

    /// Whether the value switches the property off, as librdkafka reads a switch.
    pub(crate) fn is_off(&self) -> bool {
        self.is_one_of(&["false", "f", "0"])
    }
}

/// The operator's properties; no two of them mean the same.
#[derive(Clone, Debug)]
pub(crate) struct Properties(Vec<Property>);

impl Properties {
    /// Refuses a property that is set under both of its names.
    pub(crate) fn new(written: &[(String, String)]) -> Result<Self, SinkError> {
        let mut properties: Vec<Property> = Vec::with_capacity(written.len());
        for (name, value) in written {
            let property = Property {
                name: name.clone(),
                value: value.clone(),
            };
            let twin = properties
                .iter()
                .find(|other| other.canonical() == property.canonical());
            if let Some(twin) = twin {
                let other = variable(&twin.name);
                let why = format!("is {other} under another name; set one of them");
                return Err(property.fault(&why));
            }
            properties.push(property);
        }
        Ok(Self(properties))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Property> {
        self.0.iter()
    }

    /// Finds a property by librdkafka's first name for it.
    pub(crate) fn get(&self, property: &str) -> Option<&Property> {
        debug_assert_eq!(canonical(property), property, "asked for by its first name");
        self.0.iter().find(|other| other.canonical() == property)
    }

    /// Takes a property out that is not for librdkafka.
    pub(crate) fn take(&mut self, property: &str) -> Option<Property> {
        debug_assert_eq!(canonical(property), property, "asked for by its first name");
        let place = self
            .0
            .iter()
            .position(|other| other.canonical() == property)?;
        Some(self.0.remove(place))
    }

    /// Sets a property that the operator has not set.
    #[cfg(feature = "msk")]
    pub(crate) fn add(&mut self, property: &str, value: &str) {
        debug_assert!(self.get(property).is_none(), "{property} is set already");
        self.0.push(Property {
            name: property.to_owned(),
            value: value.to_owned(),
        });
    }
}

/// Says what is wrong with a property, by the name of its variable.
pub(crate) fn fault(property: &str, why: &str) -> SinkError {
    SinkError::Misconfigured(format!("{}: {why}", variable(property)))
}

/// Spells a property as a variable: `linger.ms` is `FOREBAY_KAFKA_LINGER_MS`.
pub(crate) fn variable(property: &str) -> String {
    format!(
        "FOREBAY_KAFKA_{}",
        property.to_ascii_uppercase().replace('.', "_")
    )
}

fn canonical(name: &str) -> &str {
    ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, property)| property)
}
