//! The configuration as a whole: precedence, faults and their words, what `forebay check` shows.

use super::variables::{Default, VARIABLES, Variable, flag_of, kafka_variable};
use super::*;

const REQUIRED: [(&str, &str); 3] = [
    ("FOREBAY_TLS_CERT", "a.pem"),
    ("FOREBAY_TLS_KEY", "b.pem"),
    ("FOREBAY_TLS_CLIENT_CA", "c.pem"),
];

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn load(environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::load(owned(&[&REQUIRED, environment].concat()), owned(flags))
}

fn faults(environment: &[(&str, &str)]) -> Vec<String> {
    load(environment, &[]).expect_err("a fault").0
}

fn describe(environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
    let (raw, _) = Raw::new(owned(environment), owned(flags));
    raw.describe().lines().map(Into::into).collect()
}

#[test]
fn three_files_are_all_that_must_be_set() {
    let config = load(&[], &[]).unwrap();
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:8443");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9444");
    assert!(config.listen.http3 && config.tls.crl_strict && config.stream_access.is_empty());
    assert_eq!(config.http.body_bytes_max, 256 << 10);
    assert_eq!(
        config.limits.device_requests,
        Quota {
            rate: 50.0,
            burst: 100
        }
    );
    assert_eq!(config.ack.mode, AckMode::Durable);
    assert!(matches!(config.sink, SinkConfig::File(_)));
    let missing = Config::load([], []).unwrap_err().0;
    let expected = REQUIRED.map(|(name, _)| {
        format!(
            "{name}: must be set; write it like {name}={}",
            Variable::find(name).unwrap().example
        )
    });
    assert_eq!(missing, expected);
}

#[test]
fn every_example_is_taken_and_every_default_is_what_it_says() {
    for variable in VARIABLES
        .iter()
        .filter(|variable| variable.name != "FOREBAY_STREAM_ACCESS")
    {
        let mut environment = vec![(variable.name, variable.example)];
        if variable.name == "FOREBAY_GATEWAY_RATE" {
            environment.push(("FOREBAY_GATEWAY_BURST", "1"));
        }
        if variable.example == "kafka" {
            environment.push(("FOREBAY_KAFKA_BOOTSTRAP_SERVERS", "broker-1:9093"));
        }
        if variable.name.starts_with("FOREBAY_SPOOL_") && variable.name != "FOREBAY_SPOOL_DIR" {
            environment.push(("FOREBAY_SPOOL_DIR", "spool"));
        }
        if variable.name == "FOREBAY_EVENTS_STREAM" || variable.name == "FOREBAY_USAGE_INTERVAL" {
            environment.push(("FOREBAY_STREAMS", "telemetry,fleet-events"));
        }
        if variable.name == "FOREBAY_USAGE_INTERVAL" {
            environment.push(("FOREBAY_EVENTS_STREAM", "fleet-events"));
        }
        if cfg!(feature = "kafka") || variable.example != "kafka" {
            assert!(load(&environment, &[]).is_ok(), "{}", variable.name);
        }
        if let Default::Value(default) = variable.default {
            assert!(
                load(&[(variable.name, default)], &[]).is_ok(),
                "{}",
                variable.name
            );
        }
    }
    let access = (
        "FOREBAY_STREAM_ACCESS",
        Variable::find("FOREBAY_STREAM_ACCESS").unwrap().example,
    );
    assert!(load(&[access, ("FOREBAY_STREAMS", "telemetry,alarms")], &[]).is_ok());
}

#[test]
fn a_fault_names_the_variable_the_value_and_an_example() {
    for (name, value, fault) in [
        (
            "FOREBAY_BATCH_LINGER",
            "20",
            "has no unit: ms, s, m, h or d",
        ),
        ("FOREBAY_BATCH_BYTES", "0", "is 0, which is no bound"),
        ("FOREBAY_BODY_BYTES_MAX", "11MiB", "is more than 10MiB"),
        ("FOREBAY_WORKERS", "257", "is more than 256"),
        ("FOREBAY_DEVICES_MAX", "0", "is 0, which is no bound"),
        (
            "FOREBAY_DEVICE_BURST",
            "0",
            "is a burst of 0, which lets nothing pass",
        ),
        ("FOREBAY_IDLE_TIMEOUT", "0", "is 0, which is no bound"),
        ("FOREBAY_DEVICE_RATE", "fast", "is not a number"),
        (
            "FOREBAY_LISTEN",
            "localhost:8443",
            "is not an IP address and port",
        ),
        (
            "FOREBAY_ADMIN_LISTEN",
            ":9444",
            "is not an IP address and port",
        ),
        (
            "FOREBAY_SINK",
            "nats",
            "is none of file, kafka, kinesis, null",
        ),
        ("FOREBAY_ACK", "safe", "is neither durable nor queued"),
        (
            "FOREBAY_SPOOL_MODE",
            "always",
            "does nothing without FOREBAY_SPOOL_DIR",
        ),
        ("FOREBAY_LOG_FORMAT", "xml", "is neither text nor json"),
        (
            "FOREBAY_MEMORY_MAX",
            "256KiB",
            "holds not even one body of FOREBAY_BODY_BYTES_MAX",
        ),
        (
            "FOREBAY_BATCH_LINGER",
            "10s",
            "is not less than FOREBAY_ACK_TIMEOUT",
        ),
        (
            "FOREBAY_STREAM_ACCESS",
            "alarms:*",
            "names a stream that FOREBAY_STREAMS does not",
        ),
        ("FOREBAY_HTTP3", "a\n\u{1b}b", "is neither true nor false"),
    ] {
        let example = Variable::find(name).unwrap().example;
        let value_shown = value.escape_debug();
        let expected = format!("{name}: \"{value_shown}\" {fault}; write it like {name}={example}");
        assert_eq!(faults(&[(name, value)]), [expected]);
    }
    let files = faults(&[
        ("FOREBAY_CONNECTIONS_MAX", "16777216"),
        ("FOREBAY_HTTP3", "false"),
    ]);
    assert!(
        files[0].contains("TCP connections that the limit of open files allows"),
        "{files:?}"
    );
    let keys = faults(&[("FOREBAY_TLS_CERT", "a.pem, b.pem")]);
    assert_eq!(
        keys,
        [
            "FOREBAY_TLS_KEY: \"b.pem\" does not have one key for each chain of FOREBAY_TLS_CERT: 1 for 2; write it like \
             FOREBAY_TLS_KEY=/etc/forebay/server.key"
        ]
    );
}

/// A batch that the spool would refuse for ever is refused at the start; without a spool there is
/// no such bound.
#[test]
fn batches_that_no_spool_takes_are_a_fault() {
    let spool = ("FOREBAY_SPOOL_DIR", "/var/spool/forebay");
    let large = ("FOREBAY_BATCH_BYTES", "65MiB");
    let many = ("FOREBAY_BATCH_RECORDS", "65537");
    assert!(load(&[large, many], &[]).is_ok());
    let said = &faults(&[large, spool])[0];
    assert!(
        said.starts_with("FOREBAY_BATCH_BYTES: \"65MiB\" is more than 32MiB"),
        "{said}"
    );
    let said = &faults(&[many, spool])[0];
    assert!(
        said.starts_with("FOREBAY_BATCH_RECORDS: \"65537\" is more than 65536"),
        "{said}"
    );
    let small = ("FOREBAY_SPOOL_BYTES_MAX", "32MiB");
    let batch = |bytes| ("FOREBAY_BATCH_BYTES", bytes);
    assert!(load(&[batch("8MiB"), small, spool], &[]).is_ok());
    let said = &faults(&[batch("9MiB"), small, spool])[0];
    assert!(said.contains("is more than 8MiB"), "{said}");
}

#[test]
fn a_spool_has_32_mib_at_least() {
    let spool = ("FOREBAY_SPOOL_DIR", "/var/spool/forebay");
    let config = load(&[spool, ("FOREBAY_SPOOL_BYTES_MAX", "32MiB")], &[]).unwrap();
    assert_eq!(config.spool.unwrap().bytes_max, 32 << 20);
    let said = &faults(&[spool, ("FOREBAY_SPOOL_BYTES_MAX", "33554431B")])[0];
    assert!(
        said.contains("is too little for a spool: 32MiB at least"),
        "{said}"
    );
}

/// QUIC connections are no open files.
#[test]
fn connections_are_bounded_by_descriptors_on_tcp_only() {
    let config = load(&[("FOREBAY_CONNECTIONS_MAX", "16000000")], &[])
        .unwrap()
        .listen
        .connections;
    assert_eq!(
        (config.all_max, config.tcp_max),
        (16_000_000, host::tcp_connections_max())
    );
    assert_eq!(config.address_max, 12_000_000);
}

#[test]
fn an_empty_value_is_a_fault_of_every_variable() {
    for variable in VARIABLES {
        let environment = [(variable.name, ""), ("FOREBAY_SINK", "kafka")];
        let relevant = if variable.name == "FOREBAY_KAFKA_BOOTSTRAP_SERVERS" {
            &environment[..]
        } else {
            &environment[..1]
        };
        if cfg!(feature = "kafka") || relevant.len() == 1 {
            let faults = faults(relevant);
            assert_eq!(faults.len(), 1, "{faults:?}");
            let begins = [": \"\" is empty; write", ": \"\" must be set"];
            assert!(
                begins
                    .iter()
                    .any(|begin| faults[0].starts_with(&format!("{}{begin}", variable.name))),
                "{faults:?}"
            );
        }
    }
}

#[test]
fn all_faults_are_found_at_once() {
    let environment = [
        ("FOREBAY_ACK_TIMEOUT", "5"),
        ("FOREBAY_STREAMS", "a b"),
        ("FOREBAY_STREAM_ACCESS", "alarms:*"),
        ("FOREBAY_BODY_BYTES_MAX", "much"),
        ("FOREBAY_LINGER", "1s"),
        ("FOREBAY_DEVICE_CLASSES", "x"),
    ];
    let faults = faults(&environment);
    let names: Vec<&str> = faults
        .iter()
        .filter_map(|fault| fault.split(':').next())
        .collect();
    // The access list is not blamed for streams that could not be read.
    let expected = [
        "LINGER",
        "STREAMS",
        "DEVICE_CLASSES",
        "BODY_BYTES_MAX",
        "ACK_TIMEOUT",
    ];
    assert_eq!(names, expected.map(|name| format!("FOREBAY_{name}")));
}

#[test]
fn a_rate_of_0_takes_any_burst() {
    let config = load(
        &[("FOREBAY_DEVICE_RATE", "0"), ("FOREBAY_DEVICE_BURST", "0")],
        &[],
    )
    .unwrap();
    assert_eq!(
        config.limits.device_requests,
        Quota {
            rate: 0.0,
            burst: 0
        }
    );
    let bytes = load(
        &[
            ("FOREBAY_DEVICE_BYTE_RATE", "0"),
            ("FOREBAY_DEVICE_BYTE_BURST", "0"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(
        bytes.limits.device_bytes,
        Quota {
            rate: 0.0,
            burst: 0
        }
    );
}

#[test]
fn unknown_names_are_faults_with_the_nearest_known_one() {
    for (name, nearest) in [
        ("FOREBAY_BATCH_LINGR", "FOREBAY_BATCH_LINGER"),
        ("FOREBAY_TLS_CERTS", "FOREBAY_TLS_CERT"),
        (
            "FOREBAY_KAFAK_BOOTSTRAP_SERVERS",
            "FOREBAY_KAFKA_BOOTSTRAP_SERVERS",
        ),
        (
            "FOREBAY_KAFKA_bootstrap_servers",
            "FOREBAY_KAFKA_BOOTSTRAP_SERVERS",
        ),
        ("FOREBAY_listen", "FOREBAY_LISTEN"),
    ] {
        let expected = format!("{name}: unknown variable; did you mean {nearest}?");
        assert_eq!(faults(&[(name, "s3cret")]), [expected]);
    }
    assert!(
        load(
            &[
                ("FOREBA_LISTEN", "x"),
                ("XFOREBAY_LISTEN", "x"),
                ("PATH", "/bin")
            ],
            &[]
        )
        .is_ok()
    );
    assert_eq!(faults(&[("FOREBAY_KAFKA_", "x")]).len(), 1);
}

#[test]
fn what_kubernetes_sets_for_a_service_is_named_for_what_it_is() {
    for (name, value) in [
        ("FOREBAY_SERVICE_HOST", "10.0.0.1"),
        ("FOREBAY_SERVICE_PORT_HTTPS", "8443"),
        ("FOREBAY_PORT", "tcp://10.0.0.1:8443"),
        ("FOREBAY_PORT_8443_TCP_ADDR", "10.0.0.1"),
    ] {
        let faults = faults(&[(name, value)]);
        assert!(
            faults[0].starts_with(name) && faults[0].contains("enableServiceLinks: false"),
            "{faults:?}"
        );
    }
    assert!(faults(&[("FOREBAY_PORT", "8443")])[0].contains("did you mean"));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_a_preset() {
    let config = load(
        &[("FOREBAY_WORKERS", "3"), ("FOREBAY_ACK", "queued")],
        &[("FOREBAY_WORKERS", "5")],
    )
    .unwrap();
    assert_eq!(
        (config.listen.workers.get(), config.ack.mode),
        (5, AckMode::Queued)
    );
    let presets = [
        ("FOREBAY_WORKERS", "7".to_owned()),
        ("FOREBAY_STREAMS", "dev".to_owned()),
    ];
    let environment = owned(&[&REQUIRED[..], &[("FOREBAY_WORKERS", "3")]].concat());
    let config = Config::load_over(presets, environment, []).unwrap();
    assert_eq!(
        (config.listen.workers.get(), config.streams[0].name.as_str()),
        (3, "dev")
    );
}

#[test]
fn check_shows_every_variable_and_where_its_value_is_from() {
    let lines = describe(
        &[
            ("FOREBAY_HTTP3", "false"),
            ("FOREBAY_KAFKA_CLIENT_ID", "edge\n1"),
        ],
        &[("FOREBAY_ACK", "queued"), ("FOREBAY_KAFKA_LINGER_MS", "5")],
    );
    assert_eq!(lines.len(), VARIABLES.len() + 2, "each once");
    for line in [
        "FOREBAY_HTTP3=false # environment",
        "FOREBAY_ACK=queued # flag",
        "FOREBAY_SINK=file # default",
        "FOREBAY_TLS_CRL= # unset: none",
        "FOREBAY_TLS_CERT= # unset: required",
        "FOREBAY_KAFKA_CLIENT_ID=edge\\n1 # environment",
        "FOREBAY_KAFKA_LINGER_MS=5 # flag",
    ] {
        assert!(
            lines.iter().any(|shown| shown == line),
            "{line} is not in {lines:#?}"
        );
    }
    let workers = lines
        .iter()
        .find(|line| line.starts_with("FOREBAY_WORKERS="))
        .unwrap();
    let config = load(&[], &[]).unwrap();
    assert_eq!(
        *workers,
        format!(
            "FOREBAY_WORKERS={} # default: the cores it may use",
            config.listen.workers
        )
    );
}

#[test]
fn what_check_shows_can_be_set() {
    let lines = describe(&REQUIRED, &[]);
    let set = lines.iter().filter_map(|line| {
        let (name, rest) = line.split_once('=')?;
        let value = rest.split(" # ").next().filter(|value| !value.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    });
    let (mut again, config) = (Config::load(set, []).unwrap(), load(&[], &[]).unwrap());
    // The sources of the values differ.
    again.described.clone_from(&config.described);
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
}

/// A template that puts a file's content, or a key, in the place of the file's name.
#[test]
fn what_may_be_a_key_is_no_path_and_is_not_shown() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----\n";
    let base64 = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1JR0hBZ0VBCg==";
    let digits = "0123456789abcdef".repeat(4);
    for name in [
        "FOREBAY_TLS_KEY",
        "FOREBAY_TLS_CRL",
        "FOREBAY_SPOOL_KEY_FILE",
        "FOREBAY_KAFKA_SASL_PASSWORD_FILE",
    ] {
        for content in [
            pem,
            base64,
            &digits,
            &format!("{pem},/crl.pem"),
            &"x/".repeat(4000),
        ] {
            let set = [("FOREBAY_SPOOL_DIR", "spool"), (name, content)];
            let errors = load(&set, &[]).unwrap_err().to_string();
            assert!(
                errors.contains(&format!("{name}: (not shown) is what stands in a file")),
                "{errors}"
            );
            let shown = describe(&set, &[]).join("\n") + &errors;
            assert!(
                shown.contains(&format!("{name}=(redacted) # environment")),
                "{shown}"
            );
            for part in ["MIGHAgEA", "TUlHSEFnRU", "0123456789abcdef0", "x/x/x"] {
                assert!(!shown.contains(part), "{shown}");
            }
        }
    }
}

#[test]
fn secrets_are_not_shown() {
    let secrets = [
        "SASL_PASSWORD",
        "SSL_KEY_PASSWORD",
        "SSL_KEYSTORE_PASSWORD",
        "SSL_KEY_PEM",
        "SASL_OAUTHBEARER_CONFIG",
        "SASL_OAUTHBEARER_CLIENT_SECRET",
        "SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_PASSPHRASE",
        "SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_PEM",
    ];
    for name in secrets.map(|property| format!("FOREBAY_KAFKA_{property}")) {
        for shown in [
            describe(&[(&name, "hunter2")], &[]),
            describe(&[], &[(&name, "hunter2")]),
        ] {
            let shown = shown.join("\n");
            assert!(
                shown.contains(&format!("{name}=(redacted) # ")) && !shown.contains("hunter2"),
                "{shown}"
            );
        }
    }
    let shown = describe(
        &[
            ("FOREBAY_KAFKA_SSL_KEY_LOCATION", "/key.pem"),
            ("FOREBAY_TLS_KEY", "/tls.pem"),
            ("FOREBAY_KAFKA_SASL_PASSWORD_FILE", "/password"),
        ],
        &[],
    );
    assert!(shown.contains(&"FOREBAY_KAFKA_SASL_PASSWORD_FILE=/password # environment".to_owned()));
    assert!(shown.contains(&"FOREBAY_KAFKA_SSL_KEY_LOCATION=/key.pem # environment".to_owned()));
    assert!(shown.contains(&"FOREBAY_TLS_KEY=/tls.pem # environment".to_owned()));
}

#[cfg(feature = "kafka")]
#[test]
fn kafka_takes_any_property_as_variable_and_as_flag() {
    let environment = [
        ("FOREBAY_SINK", "kafka"),
        ("FOREBAY_KAFKA_BOOTSTRAP_SERVERS", "broker:9092"),
        ("FOREBAY_KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
    ];
    let config = load(&environment, &[("FOREBAY_KAFKA_SECURITY_PROTOCOL", "ssl")]).unwrap();
    let SinkConfig::Kafka(KafkaConfig { properties }) = config.sink else {
        panic!("{:?}", config.sink)
    };
    assert_eq!(
        properties,
        owned(&[
            ("bootstrap.servers", "broker:9092"),
            ("security.protocol", "ssl")
        ])
    );
    assert_eq!(
        faults(&environment[..1]),
        [
            "FOREBAY_KAFKA_BOOTSTRAP_SERVERS: must be set for the Kafka sink; \
          write it like FOREBAY_KAFKA_BOOTSTRAP_SERVERS=broker-1:9093,broker-2:9093"
        ]
    );
}

#[cfg(feature = "kafka")]
#[test]
fn a_password_beside_its_file_is_a_fault_that_says_which_to_remove() {
    let environment = [
        ("FOREBAY_SINK", "kafka"),
        ("FOREBAY_KAFKA_BOOTSTRAP_SERVERS", "broker:9092"),
        ("FOREBAY_KAFKA_SASL_PASSWORD", "hunter2"),
        ("FOREBAY_KAFKA_SASL_PASSWORD_FILE", "/password"),
    ];
    assert_eq!(
        faults(&environment),
        [
            "FOREBAY_KAFKA_SASL_PASSWORD_FILE: \"/password\" is set beside FOREBAY_KAFKA_SASL_PASSWORD: remove \
             FOREBAY_KAFKA_SASL_PASSWORD; write it like FOREBAY_KAFKA_SASL_PASSWORD_FILE=/etc/forebay/kafka-password"
        ]
    );
}

#[test]
fn flags_and_variables_lead_to_each_other() {
    assert_eq!(flag_of("FOREBAY_BATCH_LINGER"), "batch-linger");
    for argument in ["--kafka-sasl-password", "--kafka-sasl-password=a=b"] {
        assert_eq!(
            kafka_variable(argument).as_deref(),
            Some("FOREBAY_KAFKA_SASL_PASSWORD")
        );
    }
    for argument in ["--listen", "kafka-x", "-k", "--kafka", "serve"] {
        assert_eq!(kafka_variable(argument), None, "{argument}");
    }
    let mut flags: Vec<String> = VARIABLES.iter().map(Variable::flag).collect();
    flags.sort();
    flags.dedup();
    assert_eq!(flags.len(), VARIABLES.len());
}

#[test]
fn events_have_a_stream_of_those_that_there_are() {
    const STREAMS: (&str, &str) = ("FOREBAY_STREAMS", "telemetry,fleet");
    const STREAM: (&str, &str) = ("FOREBAY_EVENTS_STREAM", "fleet");
    assert!(load(&[STREAMS], &[]).unwrap().events.is_none());
    let config = load(&[STREAMS, STREAM], &[]).unwrap();
    let events = config.events.unwrap();
    assert_eq!(events.stream, StreamIndex(1));
    assert!(events.usage_interval.is_none() && !events.replica.is_empty());
    let interval = ("FOREBAY_USAGE_INTERVAL", "90s");
    let replica = ("FOREBAY_REPLICA", "gw-1");
    let config = load(&[STREAMS, STREAM, interval, replica], &[]).unwrap();
    let events = config.events.unwrap();
    assert_eq!(events.usage_interval, Some(Duration::from_secs(90)));
    assert_eq!(events.replica, "gw-1");
    for (environment, fault) in [
        (&[STREAM][..], "is not one of FOREBAY_STREAMS"),
        (&[interval], "does nothing without FOREBAY_EVENTS_STREAM"),
        (
            &[STREAMS, STREAM, ("FOREBAY_REPLICA", "a b")],
            "A-Za-z0-9._~-",
        ),
    ] {
        let faults = faults(environment);
        assert!(faults.len() == 1 && faults[0].contains(fault), "{faults:?}");
    }
}
