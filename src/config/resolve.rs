//! From text to meaning: [`Raw`] to [`Config`], all faults at once.

use super::host::{self, WORKERS_MAX};
use super::raw;
use super::value::{self, Parsed, file};
use super::variables::{Default, Variable};
use super::*;

mod doors;
mod events;
mod http;
mod listen;

pub(crate) const BODY_BYTES_LIMIT: usize = 10 << 20;

/// The most devices: their buckets fit into 8 GiB.
const DEVICES_LIMIT: usize = 100_000_000;

/// Bytes that go with a body in the memory budget, which must hold one of the largest.
pub(crate) const MEMORY_HEADROOM_BYTES: usize = 4096;

/// Reads values one by one and keeps the faults.
struct Reader<'a> {
    raw: &'a Raw,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn fault(&mut self, name: &str, fault: &str) {
        let variable = Variable::find(name).expect("each variable that is read is in the table");
        let value = self.shown(name);
        let example = variable.example;
        self.errors.push(format!(
            "{name}: {value}{fault}; write it like {name}={example}"
        ));
    }

    /// A value as an error shows it, with a blank behind it; nothing where there is none.
    fn shown(&self, name: &str) -> String {
        match self.raw.get(name) {
            Some((value, _)) if raw::is_hidden(name, &value) => "(not shown) ".to_owned(),
            Some((value, _)) => format!("\"{}\" ", value.escape_debug()),
            None => String::new(),
        }
    }

    /// Whether a variable has a value that is not empty.
    fn is_given(&self, name: &str) -> bool {
        self.raw
            .get(name)
            .is_some_and(|(value, _)| !value.is_empty())
    }

    /// The value or its default; `fallback` where it is faulty, so that reading goes on.
    fn value<T>(&mut self, name: &str, parse: impl Fn(&str) -> Parsed<T>, fallback: T) -> T {
        self.optional(name, parse).unwrap_or(fallback)
    }

    fn optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let raw = self.raw;
        let (text, _) = raw.get(name)?;
        let parsed = match &*text {
            // A template's mistake, and for a list of what is allowed a dangerous one.
            "" => Err("is empty".into()),
            text => parse(text),
        };
        parsed.map_err(|fault| self.fault(name, &fault)).ok()
    }

    fn required<T: std::default::Default>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> T {
        if self.raw.get(name).is_none() {
            self.fault(name, "must be set");
        }
        self.value(name, parse, T::default())
    }

    fn timeout(&mut self, name: &str) -> Duration {
        self.value(name, value::timeout, Duration::MAX)
    }

    fn count(&mut self, name: &str, max: usize) -> usize {
        self.value(name, |text| value::count(text, max), 1)
    }

    fn size(&mut self, name: &str, max: usize) -> usize {
        self.value(name, |text| value::size(text, max), 1)
    }

    fn requests_quota(&mut self, rate: &str, burst: &str) -> Quota {
        let per_second = self.value(rate, value::rate, 0.0);
        let tokens = self.value(burst, value::burst, 1);
        self.quota(burst, per_second, tokens)
    }

    fn quota(&mut self, burst_name: &str, rate: f64, burst: u64) -> Quota {
        value::quota(rate, burst).unwrap_or_else(|fault| {
            self.fault(burst_name, &fault);
            Quota { rate, burst: 1 }
        })
    }
}

impl Config {
    /// Resolves the values, or says everything that is wrong with them.
    pub(crate) fn resolve(raw: &Raw) -> Result<Self, ConfigErrors> {
        let mut reader = Reader {
            raw,
            errors: Vec::new(),
        };
        let config = reader.config();
        if reader.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(reader.errors))
        }
    }

    /// The environment and the flags, read and resolved. Flags are pairs of variable name and
    /// value.
    pub(crate) fn load(
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Self::load_over([], environment, flags)
    }

    /// The environment and the flags, with other defaults in the place of some.
    pub(crate) fn load_over(
        presets: impl IntoIterator<Item = (&'static str, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let (mut raw, mut faults) = Raw::new(environment, flags);
        raw.preset(presets);
        match Self::resolve(&raw) {
            Ok(config) if faults.is_empty() => return Ok(config),
            Ok(_) => {}
            Err(ConfigErrors(others)) => faults.extend(others),
        }
        Err(ConfigErrors(faults))
    }
}

impl Reader<'_> {
    fn config(&mut self) -> Config {
        let streams = self.optional("FOREBAY_STREAMS", value::streams);
        let access = |text: &str| value::stream_access(text, streams.as_deref());
        let rules = |text: &str| value::stream_rules(text, streams.as_deref());
        let events = self.events(streams.as_deref());
        let mut config = Config {
            events,
            listen: self.listen(),
            admin_listen: self.value("FOREBAY_ADMIN_LISTEN", address, ([127, 0, 0, 1], 0).into()),
            tls: self.tls(),
            device_id_sources: self.value("FOREBAY_DEVICE_ID", value::id_sources, Vec::new()),
            devices_file: self.optional("FOREBAY_DEVICES_FILE", file),
            expiry_notice: self.value("FOREBAY_EXPIRY_NOTICE", value::duration, Duration::ZERO),
            stream_access: self.value("FOREBAY_STREAM_ACCESS", access, Vec::new()),
            stream_rules: self.value("FOREBAY_STREAM_RULES", rules, Vec::new()),
            doors: self.doors(streams.as_deref()),
            streams: streams.unwrap_or_default(),
            sink: self.sink(),
            batch: self.batch(),
            limits: self.limits(),
            http: self.http(),
            ack: self.ack(),
            spool: self.spool(),
            memory_bytes_max: self.memory_bytes_max(),
            drain_timeout: self.timeout("FOREBAY_DRAIN_TIMEOUT"),
            log: self.log(),
            audit_log: self.optional("FOREBAY_AUDIT_LOG", journal_target),
            access_log: self.access_log(),
            described: self.raw.describe(),
        };
        config.tls.amazon_alpn = config.doors.open.iot_core;
        self.check_together(&config);
        self.fit_records(&mut config);
        config
    }

    /// Values that are right alone, but not beside each other.
    fn check_together(&mut self, config: &Config) {
        if config.memory_bytes_max < config.http.body_bytes_max + MEMORY_HEADROOM_BYTES {
            let fault = "holds not even one body of FOREBAY_BODY_BYTES_MAX";
            self.fault("FOREBAY_MEMORY_MAX", fault);
        }
        if !config.listen.http3 {
            self.check_tcp_connections(&config.listen.connections);
        }
        self.check_addresses(config.listen.address, config.admin_listen);
        self.check_keys(&config.tls);
        let spool = config.spool.as_ref();
        if let Some((name, fault)) = spool.and_then(|spool| spooled::fault(spool, &config.batch)) {
            self.fault(name, &fault);
        }
        if config.batch.linger >= config.ack.timeout {
            let fault = "is not less than FOREBAY_ACK_TIMEOUT";
            self.fault("FOREBAY_BATCH_LINGER", fault);
        }
    }

    fn memory_bytes_max(&mut self) -> usize {
        let size = |text: &str| value::size(text, usize::MAX);
        // A faulty one is one fault: it is not held against a body as well.
        self.value("FOREBAY_MEMORY_MAX", size, usize::MAX)
    }

    fn check_tcp_connections(&mut self, connections: &ConnectionsConfig) {
        let tcp_max = connections.tcp_max;
        if connections.all_max > tcp_max {
            let fault = format!(
                "is more than the {tcp_max} TCP connections that the limit of open files allows, and only QUIC needs \
                 none; raise that limit (ulimit -n, LimitNOFILE=)"
            );
            self.fault("FOREBAY_CONNECTIONS_MAX", &fault);
        }
    }

    fn check_keys(&mut self, tls: &TlsConfig) {
        let (chains, keys) = (tls.cert.len(), tls.key.len());
        if chains > 0 && keys > 0 && chains != keys {
            let fault = format!(
                "does not have one key for each chain of FOREBAY_TLS_CERT: {keys} for {chains}"
            );
            self.fault("FOREBAY_TLS_KEY", &fault);
        }
    }

    /// The spool; `None` without `FOREBAY_SPOOL_DIR`.
    fn spool(&mut self) -> Option<SpoolConfig> {
        let dir = self.optional("FOREBAY_SPOOL_DIR", file);
        let mode = self.value("FOREBAY_SPOOL_MODE", value::spool_mode, SpoolMode::Overflow);
        let when_full = self.value("FOREBAY_SPOOL_FULL", value::when_full, WhenFull::Reject);
        let bytes_max = self.value("FOREBAY_SPOOL_BYTES_MAX", spooled::bytes, SPOOL_BYTES_MIN);
        let key_file = self.optional("FOREBAY_SPOOL_KEY_FILE", file);
        if self.raw.get("FOREBAY_SPOOL_DIR").is_none() {
            self.faults_without_spool();
        }
        Some(SpoolConfig {
            dir: dir?,
            mode,
            bytes_max,
            when_full,
            key_file,
        })
    }

    /// Refuses what shapes a spool: whoever sets it believes that there is one.
    fn faults_without_spool(&mut self) {
        const SHAPES: [&str; 4] = [
            "FOREBAY_SPOOL_MODE",
            "FOREBAY_SPOOL_FULL",
            "FOREBAY_SPOOL_BYTES_MAX",
            "FOREBAY_SPOOL_KEY_FILE",
        ];
        for name in SHAPES {
            if self.is_given(name) && !self.is_default(name) {
                self.fault(name, "does nothing without FOREBAY_SPOOL_DIR");
            }
        }
    }

    fn is_default(&self, name: &str) -> bool {
        let default = Variable::find(name).map(|variable| variable.default);
        let (Some(Default::Value(default)), Some((value, _))) = (default, self.raw.get(name))
        else {
            return false;
        };
        value == default
    }

    fn sink(&mut self) -> SinkConfig {
        let dir = self.value("FOREBAY_FILE_DIR", file, PathBuf::new());
        #[allow(unused_variables)] // used where the feature is on
        let aggregate = self.value("FOREBAY_KINESIS_AGGREGATE", value::switch, false);
        self.one_kafka_password();
        // The Kafka sink reads it.
        self.optional(
            "FOREBAY_KAFKA_FURTHER_PRODUCERS",
            |text| Ok(text.to_owned()),
        );
        let sink = self.value("FOREBAY_SINK", |text| Ok(text.to_owned()), "null".into());
        match sink.as_str() {
            "null" => SinkConfig::Null,
            "file" => SinkConfig::File(FileConfig { dir }),
            #[cfg(feature = "kafka")]
            "kafka" => SinkConfig::Kafka(self.kafka()),
            #[cfg(feature = "kinesis")]
            "kinesis" => SinkConfig::Kinesis(KinesisConfig { aggregate }),
            #[allow(unreachable_patterns)] // reached where a feature is off
            "kafka" | "kinesis" => self.no_sink("is a sink that this binary was built without"),
            _ => self.no_sink("is none of file, kafka, kinesis, null"),
        }
    }

    fn no_sink(&mut self, fault: &str) -> SinkConfig {
        self.fault("FOREBAY_SINK", fault);
        SinkConfig::Null
    }

    #[cfg(feature = "kafka")]
    fn kafka(&mut self) -> KafkaConfig {
        const BROKERS: &str = "FOREBAY_KAFKA_BOOTSTRAP_SERVERS";
        if !self.is_given(BROKERS) {
            self.fault(BROKERS, "must be set for the Kafka sink");
        }
        let properties = self.raw.kafka_properties();
        let properties = properties.map(|(name, value)| (name, value.into()));
        KafkaConfig {
            properties: properties.collect(),
        }
    }

    /// The password stands in a variable or in a file; the Kafka sink reads the file.
    fn one_kafka_password(&mut self) {
        const PASSWORD: &str = "FOREBAY_KAFKA_SASL_PASSWORD";
        const FILE: &str = "FOREBAY_KAFKA_SASL_PASSWORD_FILE";
        let path = self.optional(FILE, file);
        if path.is_some() && self.raw.get(PASSWORD).is_some() {
            self.fault(
                FILE,
                "is set beside FOREBAY_KAFKA_SASL_PASSWORD: remove FOREBAY_KAFKA_SASL_PASSWORD",
            );
        }
    }

    fn batch(&mut self) -> BatchConfig {
        BatchConfig {
            bytes_max: self.size("FOREBAY_BATCH_BYTES", usize::MAX),
            records_max: self.count("FOREBAY_BATCH_RECORDS", usize::MAX),
            linger: self.value("FOREBAY_BATCH_LINGER", value::duration, Duration::ZERO),
        }
    }

    fn limits(&mut self) -> LimitsConfig {
        let byte_rate = self.value("FOREBAY_DEVICE_BYTE_RATE", value::bytes, 0);
        let byte_burst = self.value("FOREBAY_DEVICE_BYTE_BURST", value::bytes, 1);
        LimitsConfig {
            device_requests: self.requests_quota("FOREBAY_DEVICE_RATE", "FOREBAY_DEVICE_BURST"),
            device_bytes: self.quota("FOREBAY_DEVICE_BYTE_BURST", byte_rate as f64, byte_burst),
            device_classes: self.value("FOREBAY_DEVICE_CLASSES", value::device_classes, Vec::new()),
            address_requests: self.requests_quota("FOREBAY_ADDRESS_RATE", "FOREBAY_ADDRESS_BURST"),
            address_handshakes: self
                .requests_quota("FOREBAY_HANDSHAKE_RATE", "FOREBAY_HANDSHAKE_BURST"),
            gateway_requests: self.requests_quota("FOREBAY_GATEWAY_RATE", "FOREBAY_GATEWAY_BURST"),
            devices_max: self.count("FOREBAY_DEVICES_MAX", DEVICES_LIMIT),
        }
    }

    fn ack(&mut self) -> AckConfig {
        let mode = |text: &str| {
            let mut modes = [AckMode::Durable, AckMode::Queued].into_iter();
            let named = modes.find(|mode| mode.name() == text);
            named.ok_or_else(|| "is neither durable nor queued".into())
        };
        AckConfig {
            mode: self.value("FOREBAY_ACK", mode, AckMode::Durable),
            timeout: self.timeout("FOREBAY_ACK_TIMEOUT"),
        }
    }

    fn access_log(&mut self) -> Option<AccessLogConfig> {
        let share = self.value("FOREBAY_ACCESS_LOG_SAMPLE", value::share, 1.0);
        let target = self.optional("FOREBAY_ACCESS_LOG", journal_target)?;
        Some(AccessLogConfig { target, share })
    }

    fn log(&mut self) -> LogConfig {
        let format = |text: &str| match text {
            "json" => Ok(true),
            "text" => Ok(false),
            _ => Err("is neither text nor json".into()),
        };
        LogConfig {
            filter: self.value("FOREBAY_LOG", |text| Ok(text.to_owned()), String::new()),
            json: self.value("FOREBAY_LOG_FORMAT", format, true),
        }
    }
}

fn journal_target(text: &str) -> Parsed<JournalTarget> {
    match text {
        "stdout" => Ok(JournalTarget::Stdout),
        file => Ok(JournalTarget::File(file.into())),
    }
}

fn address(text: &str) -> Parsed<SocketAddr> {
    let address = text.parse();
    address.map_err(|_| "is not an IP address and port".into())
}
