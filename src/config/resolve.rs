//! From text to meaning: [`Raw`] to [`Config`], all faults at once.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use super::value::{self, Parsed};
use super::variables::VARIABLES;
use super::*;

const WORKERS_MAX: usize = 256;
const BODY_BYTES_LIMIT: usize = 10 << 20;

/// The memory budget must hold one largest body and what goes with it.
const MEMORY_HEADROOM_BYTES: usize = 4096;

/// Reads values one by one and keeps the faults.
struct Reader<'a> {
    raw: &'a Raw,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn fault(&mut self, name: &str, fault: &str) {
        let example = VARIABLES.iter().find(|variable| variable.name == name).map_or("", |variable| variable.example);
        let value = self.raw.get(name).map_or(String::new(), |(value, _)| format!("\"{}\" ", value.escape_debug()));
        self.errors.push(format!("{name}: {value}{fault}; write it like {name}={example}"));
    }

    /// The value or its default; `fallback` where it is faulty, so that reading goes on.
    fn value<T>(&mut self, name: &str, parse: impl Fn(&str) -> Parsed<T>, fallback: T) -> T {
        self.optional(name, parse).unwrap_or(fallback)
    }

    fn optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let raw = self.raw;
        let (text, _) = raw.get(name)?;
        parse(text).map_err(|fault| self.fault(name, &fault)).ok()
    }

    fn required_file(&mut self, name: &str) -> PathBuf {
        match self.raw.get(name) {
            Some((path, _)) if !path.is_empty() => path.into(),
            _ => {
                self.fault(name, "must be set");
                PathBuf::new()
            }
        }
    }

    fn timeout(&mut self, name: &str) -> Duration {
        self.value(name, value::timeout, Duration::from_secs(1))
    }

    fn count(&mut self, name: &str) -> usize {
        self.value(name, value::count, 1)
    }

    fn size(&mut self, name: &str) -> usize {
        self.value(name, value::size, 1)
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
    /// What the values mean, or everything that is wrong with them.
    pub fn resolve(raw: &Raw) -> Result<Self, ConfigErrors> {
        let mut reader = Reader { raw, errors: Vec::new() };
        let config = reader.config();
        if reader.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(reader.errors)) }
    }

    /// The environment and the flags, read and resolved. Flags are pairs of variable name and value.
    pub fn load(
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Self::load_over([], environment, flags)
    }

    /// The same, with other defaults in the place of some.
    pub fn load_over(
        presets: impl IntoIterator<Item = (&'static str, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let (mut raw, unknown) = Raw::new(environment, flags);
        raw.preset(presets);
        match (Self::resolve(&raw), unknown.is_empty()) {
            (Ok(config), true) => Ok(config),
            (Ok(_), false) => Err(ConfigErrors(unknown)),
            (Err(ConfigErrors(faults)), _) => Err(ConfigErrors(unknown.into_iter().chain(faults).collect())),
        }
    }
}

impl Reader<'_> {
    fn config(&mut self) -> Config {
        let streams = self.value("FOREBAY_STREAMS", value::streams, Vec::new());
        let access = |text: &str| value::stream_access(text, &streams);
        let config = Config {
            listen: self.listen(),
            admin_listen: self.value("FOREBAY_ADMIN_LISTEN", address, ([127, 0, 0, 1], 0).into()),
            tls: self.tls(),
            device_id_sources: self.value("FOREBAY_DEVICE_ID", value::id_sources, Vec::new()),
            stream_access: self.value("FOREBAY_STREAM_ACCESS", access, Vec::new()),
            streams,
            sink: self.sink(),
            batch: self.batch(),
            limits: self.limits(),
            http: self.http(),
            ack: self.ack(),
            memory_bytes_max: self.optional("FOREBAY_MEMORY_MAX", value::size).unwrap_or_else(default_memory_bytes),
            drain_timeout: self.timeout("FOREBAY_DRAIN_TIMEOUT"),
            log: self.log(),
        };
        self.check_globs(&config);
        if config.memory_bytes_max < config.http.body_bytes_max + MEMORY_HEADROOM_BYTES {
            self.fault("FOREBAY_MEMORY_MAX", "holds not even one body of FOREBAY_BODY_BYTES_MAX");
        }
        config
    }

    fn listen(&mut self) -> ListenConfig {
        let workers = self.optional("FOREBAY_WORKERS", |text| match value::count(text)? {
            workers if workers > WORKERS_MAX => Err("is more than 256".into()),
            workers => Ok(NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN)),
        });
        let cores = || {
            available_parallelism().unwrap_or(NonZeroUsize::MIN).min(NonZeroUsize::MIN.saturating_add(WORKERS_MAX - 1))
        };
        ListenConfig {
            address: self.value("FOREBAY_LISTEN", address, ([127, 0, 0, 1], 0).into()),
            http3: self.value("FOREBAY_HTTP3", value::switch, true),
            workers: workers.unwrap_or_else(cores),
            reuse_port: self.value("FOREBAY_REUSE_PORT", value::switch, false),
            connections_max: self
                .optional("FOREBAY_CONNECTIONS_MAX", value::count)
                .unwrap_or_else(host::connections_max),
            handshake_timeout: self.timeout("FOREBAY_HANDSHAKE_TIMEOUT"),
        }
    }

    fn tls(&mut self) -> TlsConfig {
        let files = |text: &str| Ok(value::list(text).map(PathBuf::from).collect());
        TlsConfig {
            cert: self.required_file("FOREBAY_TLS_CERT"),
            key: self.required_file("FOREBAY_TLS_KEY"),
            client_ca: self.required_file("FOREBAY_TLS_CLIENT_CA"),
            crl: self.value("FOREBAY_TLS_CRL", files, Vec::new()),
            crl_strict: self.value("FOREBAY_TLS_CRL_STRICT", value::switch, true),
            min_version: self.value("FOREBAY_TLS_MIN_VERSION", value::tls_version, TlsVersion::Tls12),
        }
    }

    fn sink(&mut self) -> SinkConfig {
        let file =
            SinkConfig::File(FileConfig { dir: self.value("FOREBAY_FILE_DIR", |dir| Ok(dir.into()), PathBuf::new()) });
        let raw = self.raw;
        let properties: Vec<(String, String)> =
            raw.kafka_properties().map(|(name, value)| (name, value.into())).collect();
        match raw.get("FOREBAY_SINK").map_or("", |(sink, _)| sink) {
            "null" => SinkConfig::Null,
            "file" => file,
            #[cfg(feature = "kafka")]
            "kafka" => {
                if !properties.iter().any(|(name, value)| name == "bootstrap.servers" && !value.is_empty()) {
                    let fault = "FOREBAY_KAFKA_BOOTSTRAP_SERVERS: must be set for the Kafka sink; write it like FOREBAY_KAFKA_BOOTSTRAP_SERVERS=broker-1:9093,broker-2:9093";
                    self.errors.push(fault.into());
                }
                SinkConfig::Kafka(KafkaConfig { properties })
            }
            #[cfg(feature = "kinesis")]
            "kinesis" => SinkConfig::Kinesis(KinesisConfig {}),
            #[allow(unreachable_patterns)] // reached where a feature is off
            "kafka" | "kinesis" => {
                self.fault("FOREBAY_SINK", "is a sink that this binary was built without");
                file
            }
            _ => {
                self.fault("FOREBAY_SINK", "is none of file, kafka, kinesis, null");
                file
            }
        }
    }

    fn batch(&mut self) -> BatchConfig {
        BatchConfig {
            bytes_max: self.size("FOREBAY_BATCH_BYTES"),
            records_max: self.count("FOREBAY_BATCH_RECORDS"),
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
            address_handshakes: self.requests_quota("FOREBAY_HANDSHAKE_RATE", "FOREBAY_HANDSHAKE_BURST"),
            gateway_requests: self.requests_quota("FOREBAY_GATEWAY_RATE", "FOREBAY_GATEWAY_BURST"),
            devices_max: self.count("FOREBAY_DEVICES_MAX"),
        }
    }

    fn http(&mut self) -> HttpConfig {
        let body = |text: &str| match value::size(text)? {
            size if size > BODY_BYTES_LIMIT => Err("is more than 10MiB".into()),
            size => Ok(size),
        };
        HttpConfig {
            body_bytes_max: self.value("FOREBAY_BODY_BYTES_MAX", body, 1),
            authorities: self.value("FOREBAY_AUTHORITIES", value::authorities, Vec::new()),
            header_timeout: self.timeout("FOREBAY_HEADER_TIMEOUT"),
            body_timeout: self.timeout("FOREBAY_BODY_TIMEOUT"),
            idle_timeout: self.timeout("FOREBAY_IDLE_TIMEOUT"),
        }
    }

    fn ack(&mut self) -> AckConfig {
        let mode = |text: &str| match text {
            "durable" => Ok(AckMode::Durable),
            "queued" => Ok(AckMode::Queued),
            _ => Err("is neither durable nor queued".into()),
        };
        AckConfig {
            mode: self.value("FOREBAY_ACK", mode, AckMode::Durable),
            timeout: self.timeout("FOREBAY_ACK_TIMEOUT"),
        }
    }

    fn log(&mut self) -> LogConfig {
        let format = |text: &str| match text {
            "json" => Ok(true),
            "text" => Ok(false),
            _ => Err("is neither text nor json".into()),
        };
        LogConfig {
            filter: self.value("FOREBAY_LOG", |text| Ok(text.to_owned()), String::new()),
            json: self.optional("FOREBAY_LOG_FORMAT", format).unwrap_or_else(|| !std::io::stderr().is_terminal()),
        }
    }

    fn check_globs(&mut self, config: &Config) {
        let fault = "has a glob that can match no device id (A-Za-z0-9._:/@- with * and ?)";
        if !config.limits.device_classes.iter().all(|class| value::is_device_glob(&class.devices)) {
            self.fault("FOREBAY_DEVICE_CLASSES", fault);
        }
        let mut globs = config.stream_access.iter().flat_map(|access| &access.devices);
        if !globs.all(|glob| value::is_device_glob(glob)) {
            self.fault("FOREBAY_STREAM_ACCESS", fault);
        }
    }
}

fn address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| "is not an IP address and port".into())
}

fn default_memory_bytes() -> usize {
    const UNKNOWN_MACHINE_BYTES: u64 = 1 << 30;
    usize::try_from(host::memory_bytes().unwrap_or(UNKNOWN_MACHINE_BYTES) / 4).unwrap_or(usize::MAX)
}
