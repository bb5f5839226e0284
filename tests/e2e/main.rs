//! The real program against real brokers and real clients: what a device sees, and what the stream has.
//!
//! Each test starts gateways of its own, on free ports, and the Kafka brokers and the Python clients are shared. One
//! test, one promise; a promise that holds for each protocol is asked of h1, h2 and h3.

#[path = "../support/deaggregate.rs"]
mod deaggregate;
#[path = "../support/encoded.rs"]
mod encoded;
#[allow(dead_code)] // the tests of the sink need all of it
#[path = "../support/ferrokinesis.rs"]
mod ferrokinesis;
#[path = "../support/idp.rs"]
mod idp;
#[path = "../support/kafka.rs"]
mod kafka;
#[path = "../support/kinesis_proxy.rs"]
mod kinesis_proxy;
#[path = "../support/pki.rs"]
mod pki;
#[path = "../support/sasl.rs"]
mod sasl;
#[path = "../support/tools.rs"]
mod tools;

mod brokers;
mod harness;

mod admin;
mod arrival;
mod attacks_h2;
mod attacks_handshake;
mod attacks_quic;
mod attacks_refused;
mod attacks_slow;
mod attacks_tls;
mod audit;
mod authorities;
mod configuration;
mod conformance;
mod descriptors;
mod devices;
mod doors;
mod elsewhere;
mod events;
mod fields_h2;
mod figures;
mod files;
mod framing;
mod h3_attacks;
mod h3_faults;
mod h3_leave;
mod h3_streams;
mod handshakes;
mod hygiene;
mod idle;
mod kafka_faults;
mod kafka_logins;
mod kinesis;
mod kinesis_faults;
mod limits;
mod memory;
mod observed;
mod otlp;
mod page;
mod queued;
mod quic;
mod records;
mod restart;
mod revocation;
mod rules;
mod shutdown;
mod spool;
mod spool_disk;
mod spool_faults;
mod spool_figures;
mod spool_kills;
mod started;
mod status;
mod stream_health;
mod tls;
mod told;
mod upgrades;
