//! The sink's reading of `FOREBAY_KAFKA_*`, before it has spoken to any broker.

use super::*;

/// Returns the sink's error about these properties; `None` when it takes them.
fn fault(properties: &[(&str, &str)]) -> Option<String> {
    let mut all: Properties = vec![("bootstrap.servers".into(), "127.0.0.1:1".into())];
    properties
        .iter()
        .for_each(|(name, value)| kafka::set(&mut all, name, value));
    match open(all, "readings", Duration::from_secs(10)) {
        Ok(_) => None,
        Err(SinkError::Misconfigured(text)) => Some(text),
        Err(SinkError::Closed(text) | SinkError::Away(text)) => panic!("{text}"),
    }
}

#[test]
fn a_fault_names_the_variable_to_correct() {
    for (properties, variable) in [
        (
            &[("bootstrap.server", "x:1")][..],
            "FOREBAY_KAFKA_BOOTSTRAP_SERVER:",
        ),
        (
            &[("compression.type", "brotli")],
            "FOREBAY_KAFKA_COMPRESSION_TYPE:",
        ),
        (&[("linger.ms", "soon")], "FOREBAY_KAFKA_LINGER_MS:"),
        (
            &[
                ("security.protocol", "ssl"),
                ("ssl.ca.location", "/no/such/file"),
            ],
            "FOREBAY_KAFKA_SSL_CA_LOCATION:",
        ),
        (&[("max.in.flight", "6")], "FOREBAY_KAFKA_MAX_IN_FLIGHT:"),
        (&[("linger.ms", "20000")], "FOREBAY_KAFKA_LINGER_MS:"),
        (
            &[("further.producers", "65")],
            "FOREBAY_KAFKA_FURTHER_PRODUCERS:",
        ),
        (
            &[("further.producers", "many")],
            "FOREBAY_KAFKA_FURTHER_PRODUCERS:",
        ),
        (&[("acks", "1")], "FOREBAY_KAFKA_ACKS:"),
        (&[("acks", "0")], "FOREBAY_KAFKA_ACKS:"),
        (
            &[("request.required.acks", "1")],
            "FOREBAY_KAFKA_REQUEST_REQUIRED_ACKS:",
        ),
        (
            &[("message.timeout.ms", "0")],
            "FOREBAY_KAFKA_MESSAGE_TIMEOUT_MS:",
        ),
        (
            &[("delivery.timeout.ms", "0")],
            "FOREBAY_KAFKA_DELIVERY_TIMEOUT_MS:",
        ),
        (
            &[("message.max.bytes", "266239")],
            "FOREBAY_KAFKA_MESSAGE_MAX_BYTES:",
        ),
        (
            &[("transactional.id", "x")],
            "FOREBAY_KAFKA_TRANSACTIONAL_ID:",
        ),
        (
            &[("delivery.report.only.error", "true")],
            "FOREBAY_KAFKA_DELIVERY_REPORT_ONLY_ERROR:",
        ),
        (&[("log.level", "7")], "FOREBAY_KAFKA_LOG_LEVEL:"),
        (&[("partitioner", "random")], "FOREBAY_KAFKA_PARTITIONER:"),
        (&[("partitioner", "sticky")], "FOREBAY_KAFKA_PARTITIONER:"),
        (
            &[
                ("enable.idempotence", "false"),
                ("queuing.strategy", "lifo"),
            ],
            "FOREBAY_KAFKA_QUEUING_STRATEGY:",
        ),
        (
            &[("queue.buffering.max.kbytes", "259")],
            "FOREBAY_KAFKA_QUEUE_BUFFERING_MAX_KBYTES:",
        ),
        (
            &[("api.version.request", "false")],
            "FOREBAY_KAFKA_API_VERSION_REQUEST:",
        ),
        (
            &[("test.mock.num.brokers", "1")],
            "FOREBAY_KAFKA_TEST_MOCK_NUM_BROKERS:",
        ),
        (&[("retries", "0")], "FOREBAY_KAFKA_RETRIES:"),
        (&[("linger.ms", "10000")], "FOREBAY_KAFKA_LINGER_MS:"),
        (
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanism", "GSSAPI"),
            ],
            "FOREBAY_KAFKA_SASL_MECHANISM:",
        ),
        (
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanism", "OAUTHBEARER"),
            ],
            "FOREBAY_KAFKA_SASL_OAUTHBEARER_METHOD:",
        ),
        (
            &[
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
            ],
            "FOREBAY_KAFKA_SECURITY_PROTOCOL:",
        ),
        (
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
            ],
            "FOREBAY_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL:",
        ),
        (
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
                (
                    "sasl.oauthbearer.token.endpoint.url",
                    "https://idp.example/token",
                ),
            ],
            "FOREBAY_KAFKA_SASL_OAUTHBEARER_CLIENT_ID:",
        ),
        (
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
                (
                    "sasl.oauthbearer.token.endpoint.url",
                    "https://idp.example/token",
                ),
                ("sasl.oauthbearer.client.credentials.client.id", "plant-7"),
                ("sasl.oauthbearer.client.secret", "hunter2"),
                ("sasl.oauthbearer.assertion.private.key.file", "/key.pem"),
            ],
            "FOREBAY_KAFKA_SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE:",
        ),
        (
            &[
                ("security.protocol", "sasl_plaintext"),
                ("sasl.mechanism", "AWS_MSK_IAM"),
            ],
            "FOREBAY_KAFKA_SECURITY_PROTOCOL:",
        ),
        (
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanism", "PLAIN"),
                ("sasl.username", "forebay"),
                ("sasl.password.file", "/no/such/file"),
            ],
            "FOREBAY_KAFKA_SASL_PASSWORD_FILE:",
        ),
        (
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.password.file", "/no/such/file"),
            ],
            "FOREBAY_KAFKA_SASL_PASSWORD_FILE:",
        ),
        (
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanism", "PLAIN"),
            ],
            "FOREBAY_KAFKA_SASL_USERNAME:",
        ),
        (
            &[
                ("ssl.certificate.location", "x"),
                ("security.protocol", "tls"),
            ],
            "FOREBAY_KAFKA_SECURITY_PROTOCOL:",
        ),
        (
            &[("linger.ms", "5"), ("queue.buffering.max.ms", "6")],
            "FOREBAY_KAFKA_QUEUE_BUFFERING_MAX_MS:",
        ),
        (
            &[("enable.idempotence", "false"), ("max.in.flight", "5")],
            "FOREBAY_KAFKA_MAX_IN_FLIGHT:",
        ),
    ] {
        let fault = fault(properties).unwrap_or_else(|| panic!("{properties:?} is taken"));
        assert!(fault.starts_with(variable), "{properties:?}: {fault}");
    }
}

#[tokio::test]
async fn what_keeps_the_promise_is_taken_under_either_name() {
    for properties in [
        &[("acks", "all")][..],
        &[("acks", "-1")],
        &[("request.required.acks", "all")],
        &[("linger.ms", "50")],
        &[("queue.buffering.max.ms", "50")],
        &[("delivery.timeout.ms", "20000")],
        &[("message.timeout.ms", "20000")],
        &[("compression.type", "zstd")],
        &[("compression.codec", "gzip")],
        &[("max.in.flight", "1")],
        &[("retries", "3")],
        &[("enable.idempotence", "true")],
        &[("enable.idempotence", "false")],
        &[("message.max.bytes", "266240")],
        &[("batch.size", "1000")],
        &[("partitioner", "murmur2")],
        &[("partitioner", "consistent_random")],
        &[("partitioner", "fnv1a_random")],
        &[("queuing.strategy", "fifo")],
        &[("queue.buffering.max.kbytes", "260")],
        &[("compression.type", "snappy")],
        &[("compression.type", "lz4")],
    ] {
        assert_eq!(fault(properties), None, "{properties:?}");
    }
}

#[test]
fn a_fault_does_not_tell_a_secret() {
    let secret = "hunter2";
    for property in [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    ] {
        let told = fault(&[
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "PLAIN"),
            (property, secret),
        ])
        .unwrap();
        assert!(!told.contains(secret), "{told}");
    }
}

#[tokio::test]
async fn any_ack_timeout_is_legal() {
    let broker = || vec![("bootstrap.servers".into(), "127.0.0.1:1".into())];
    for ack_timeout in [
        Duration::from_millis(1),
        Duration::from_millis(100),
        Duration::from_secs(60 * 60 * 24 * 90),
    ] {
        open(broker(), "readings", ack_timeout).unwrap();
    }
}

/// The operator's timeout holds under either name; ours would have been ten seconds.
#[tokio::test]
async fn the_operators_alias_is_not_fought_by_our_default() {
    join_all(
        ["delivery.timeout.ms", "message.timeout.ms"].map(async |name| {
            let properties = vec![
                ("bootstrap.servers".into(), "127.0.0.1:1".into()),
                (name.into(), "300".into()),
            ];
            let sink = open(properties, "readings", Duration::from_secs(10)).unwrap();
            let started = Instant::now();
            let outcomes = sink.deliver(STREAM, &[record("device", "x")]).await;
            assert!(
                matches!(outcomes.get(0), Outcome::Retryable(_)),
                "{outcomes:?}"
            );
            assert!(
                started.elapsed() < Duration::from_secs(3),
                "{name}: {:?}",
                started.elapsed()
            );
        }),
    )
    .await;
}
