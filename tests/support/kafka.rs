//! A real Kafka broker as a process: one KRaft node on free loopback ports, in a folder of its own.
//!
//! For tests that need a broker: `#[path = "support/kafka.rs"] mod kafka;`. It depends on `tools.rs`. Its
//! listeners: plain, for tests to create and read topics by; mutual TLS; and SASL over TLS with PLAIN, SCRAM-SHA-256
//! and SCRAM-SHA-512; OAUTHBEARER over TLS, by the tokens of `idp.rs`; and one that clients are told to reach by way of
//! another port, which is a test's to serve. Topics are open to all until [`Kafka::allow`] says otherwise. Each has a method that gives the librdkafka properties which lead to it, and [`variables`] spells
//! them as `FOREBAY_KAFKA_*`. Certificates are made for each broker, as PEM files.
//!
//! [`Kafka::shared`] is one broker for a whole test binary: a test names its topics for itself, and does not pause it.
//! [`Kafka::start`] is a broker of one's own. Either is up after some 5 s, and ends when it is dropped or, however the
//! test binary ends, by a shell that waits for that. As by Kafka's own defaults, it makes topics that a producer asks
//! for. Kafka's jars are in `$TOOLS/kafka/lib` (`target/tools` unless set), where `make tools` puts them; Java is on
//! the PATH.
#![allow(dead_code)] // no test needs all of it

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose as Usage, KeyPair,
};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::tools::tools;

/// The user that the SASL listener knows, by PLAIN and by SCRAM.
pub const USER: &str = "forebay";
pub const PASSWORD: &str = "a-password";

/// Whom a token must name as its issuer and its audience.
pub const ISSUER: &str = "https://idp.example";
pub const AUDIENCE: &str = "kafka";

/// The most that a session lasts that a token has begun, before the client has to show another one.
const SESSION_MILLIS: u64 = 600_000;

/// Main classes of `kafka-acls.sh` and `kafka-configs.sh`.
const ACL_COMMAND: &str = "org.apache.kafka.tools.AclCommand";
const CONFIG_COMMAND: &str = "kafka.admin.ConfigCommand";

const START_TIMEOUT: Duration = Duration::from_secs(60);
const READ_TIMEOUT: Duration = Duration::from_secs(20);
const START_ATTEMPTS: usize = 3;

/// librdkafka properties, in its own spelling.
pub type Properties = Vec<(String, String)>;

pub struct Kafka {
    broker: Child,
    /// Kills the broker and removes its folder when its standard input ends: with the test binary, if not before.
    guard: Child,
    dir: TempDir,
    ports: Ports,
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    tls: u16,
    sasl: u16,
    tokens: u16,
    far: u16,
    way: u16,
    controller: u16,
}

/// A record as a topic holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// In their order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Kafka {
    /// The broker of this test binary.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A broker that answers.
    pub fn start() -> Self {
        let lib = jars();
        // Somebody else may take a port between its choice and its use.
        let started = (0..START_ATTEMPTS).find_map(|_| Self::launch(&lib).wait_until_it_answers());
        started.expect("Kafka answers")
    }

    fn launch(lib: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-kafka-")
            .tempdir()
            .expect("a folder");
        let ports = Ports::free();
        make_certificates(dir.path());
        write_configuration(dir.path(), ports);
        format_storage(lib, dir.path());
        let broker = spawn(lib, dir.path());
        let guard = guard(dir.path());
        Self {
            broker,
            guard,
            dir,
            ports,
        }
    }

    /// `None` when the broker has ended.
    fn wait_until_it_answers(mut self) -> Option<Self> {
        let client: BaseConsumer = config(&self.plain()).create().expect("a client");
        let started = Instant::now();
        while client
            .fetch_metadata(None, Duration::from_millis(500))
            .is_err()
        {
            assert!(
                started.elapsed() < START_TIMEOUT,
                "Kafka does not answer:\n{}",
                self.log()
            );
            if self.broker.try_wait().expect("its state").is_some() {
                eprintln!("Kafka has ended:\n{}", self.log());
                return None;
            }
        }
        Some(self)
    }

    /// Reads the broker's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("broker.log")).unwrap_or_default()
    }

    /// The plain listener.
    pub fn plain(&self) -> Properties {
        properties(&[("bootstrap.servers", &address(self.ports.plain))])
    }

    /// The listener that asks for a client certificate, with one that it takes.
    pub fn mutual_tls(&self) -> Properties {
        properties(&[
            ("bootstrap.servers", &address(self.ports.tls)),
            ("security.protocol", "ssl"),
            ("ssl.ca.location", &self.file("ca.pem")),
            ("ssl.certificate.location", &self.file("client.pem")),
            ("ssl.key.location", &self.file("client.key")),
        ])
    }

    /// The same listener, with a certificate of another authority.
    pub fn mutual_tls_of_a_stranger(&self) -> Properties {
        let mut properties = self.mutual_tls();
        set(
            &mut properties,
            "ssl.certificate.location",
            &self.file("stranger.pem"),
        );
        set(
            &mut properties,
            "ssl.key.location",
            &self.file("stranger.key"),
        );
        properties
    }

    /// The listener that asks for a password: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub fn sasl(&self, mechanism: &str) -> Properties {
        properties(&[
            ("bootstrap.servers", &address(self.ports.sasl)),
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", &self.file("ca.pem")),
            ("sasl.mechanism", mechanism),
            ("sasl.username", USER),
            ("sasl.password", PASSWORD),
        ])
    }

    /// The listener that asks for a token. Where tokens come from is for the test to add.
    pub fn tokens(&self) -> Properties {
        properties(&[
            ("bootstrap.servers", &address(self.ports.tokens)),
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", &self.file("ca.pem")),
        ])
    }

    /// The plain listener that is reached through [`Self::way`].
    pub fn far(&self) -> Properties {
        properties(&[("bootstrap.servers", &address(self.ports.way))])
    }

    /// The port that clients of [`Self::far`] connect to, where nobody listens yet, and the broker's own.
    pub fn way(&self) -> [u16; 2] {
        [self.ports.way, self.ports.far]
    }

    /// Gives [`USER`] another password for SCRAM-SHA-512.
    pub fn change_password(&self, password: &str) {
        let secret = format!("SCRAM-SHA-512=[password={password}]");
        self.run(
            CONFIG_COMMAND,
            &[
                "--alter",
                "--entity-type",
                "users",
                "--entity-name",
                USER,
                "--add-config",
                &secret,
            ],
        );
    }

    /// Runs one of Kafka's own tools on this broker.
    fn run(&self, tool: &str, arguments: &[&str]) {
        let output = java(&jars(), self.dir.path(), tool)
            .args(["--bootstrap-server", &address(self.ports.plain)])
            .args(arguments)
            .stderr(Stdio::piped())
            .output()
            .expect("java starts");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The path of `ca.pem`, or of the `.pem` or `.key` of `client` or `stranger`.
    pub fn file(&self, name: &str) -> String {
        self.dir
            .path()
            .join(name)
            .to_str()
            .expect("a path in UTF-8")
            .into()
    }

    /// A new topic with settings such as `("max.message.bytes", "10000")`.
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> =
            config(&self.plain()).create().expect("a client");
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings
            .iter()
            .fold(topic, |topic, (name, value)| topic.set(name, value));
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
        let answers = admin
            .create_topics([&topic], &options)
            .await
            .expect("Kafka answers");
        answers[0].as_ref().expect("the topic is created");
    }

    /// Allows [`USER`] this operation, such as `Describe`, on a topic; what no call has allowed is denied to everybody who
    /// logs in, from the first one on.
    pub fn allow(&self, topic: &str, operation: &str) {
        let principal = format!("User:{USER}");
        self.run(
            ACL_COMMAND,
            &[
                "--add",
                "--topic",
                topic,
                "--allow-principal",
                &principal,
                "--operation",
                operation,
            ],
        );
    }

    /// All records of a topic up to its present end, by partition and offset.
    pub fn read_topic(&self, name: &str) -> Vec<Stored> {
        read_topic(&self.plain(), name)
    }

    /// Kills the process: what it had not written is lost, connections break. [`Self::start_again`] follows.
    pub fn kill(&mut self) {
        self.broker.kill().expect("the broker runs");
        self.broker.wait().expect("it ends");
    }

    /// Starts it on the same folder and ports.
    pub fn start_again(&mut self) {
        self.broker = spawn(&jars(), self.dir.path());
    }

    /// Stops the process without ending it: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Goes on after [`Self::pause`].
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill takes two integers; the process is our child and is not waited for before we are dropped.
        let sent = unsafe { libc::kill(self.broker.id() as i32, signal) };
        assert_eq!(sent, 0, "the broker runs");
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.broker.wait();
        let _ = self.guard.wait();
    }
}

/// All records of a topic of any cluster up to its present end, by partition and offset.
pub fn read_topic(cluster: &Properties, name: &str) -> Vec<Stored> {
    let mut config = config(cluster);
    config
        .set("group.id", "tests")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a client");
    let metadata = consumer
        .fetch_metadata(Some(name), READ_TIMEOUT)
        .expect("Kafka answers");
    let partitions = metadata.topics()[0]
        .partitions()
        .iter()
        .map(|partition| partition.id());
    let mut stored: Vec<_> = partitions
        .flat_map(|partition| read_partition(&consumer, name, partition))
        .collect();
    stored.sort_by_key(|record| (record.partition, record.offset));
    stored
}

/// `FOREBAY_KAFKA_*` and their values.
pub fn variables(properties: &Properties) -> Vec<(String, String)> {
    let variable = |name: &str| format!("FOREBAY_KAFKA_{}", name.to_uppercase().replace('.', "_"));
    properties
        .iter()
        .map(|(name, value)| (variable(name), value.clone()))
        .collect()
}

/// Adds or replaces one property.
pub fn set(properties: &mut Properties, name: &str, value: &str) {
    properties.retain(|(known, _)| known != name);
    properties.push((name.into(), value.into()));
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn config(properties: &Properties) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.extend(properties.iter().cloned());
    config
}

fn read_partition(consumer: &BaseConsumer, topic: &str, partition: i32) -> Vec<Stored> {
    let (_, end) = consumer
        .fetch_watermarks(topic, partition, READ_TIMEOUT)
        .expect("Kafka answers");
    let mut stored: Vec<Stored> = Vec::new();
    if end == 0 {
        return stored;
    }
    let mut position = TopicPartitionList::new();
    position
        .add_partition_offset(topic, partition, Offset::Beginning)
        .expect("an offset");
    consumer.assign(&position).expect("a partition");
    let started = Instant::now();
    while stored.last().is_none_or(|last| last.offset < end - 1) {
        assert!(
            started.elapsed() < READ_TIMEOUT,
            "{topic}/{partition} ends at {end}: {} records read",
            stored.len()
        );
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            stored.push(Stored::from_message(&message.expect("Kafka answers")));
        }
    }
    stored
}

impl Stored {
    fn from_message(message: &BorrowedMessage<'_>) -> Self {
        let headers = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| (header.key.into(), header.value.unwrap_or_default().into()))
                .collect(),
        }
    }
}

impl Ports {
    /// Ports that were free a moment ago.
    fn free() -> Self {
        let listeners = [(); 7].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [plain, tls, sasl, tokens, far, way, controller] = listeners
            .each_ref()
            .map(|listener| listener.local_addr().expect("its address").port());
        Self {
            plain,
            tls,
            sasl,
            tokens,
            far,
            way,
            controller,
        }
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn jars() -> PathBuf {
    let lib = tools().join("kafka/lib");
    assert!(
        lib.is_dir(),
        "{} is missing: `make tools` installs Kafka there",
        lib.display()
    );
    lib
}

fn java(lib: &Path, dir: &Path, main_class: &str) -> Command {
    java_with("-Xshare:auto", lib, dir, main_class)
}

/// With one more option of Java's.
fn java_with(option: &str, lib: &Path, dir: &Path, main_class: &str) -> Command {
    let mut command = Command::new("java");
    command.arg(option);
    command
        .args([
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
        ])
        .arg("-Dlog4j2.configurationFile=log4j2.properties")
        .arg("-cp")
        .arg(lib.join("*"))
        .arg(main_class)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Without its standard input this shell has nothing to wait for: it goes on to kill, waits for that, and cleans up.
const GUARD: &str = r#"
read -r _
broker=$(cat "$0/broker.pid")
kill -KILL "$broker"
for _ in $(seq 100); do kill -0 "$broker" 2>/dev/null || break; sleep 0.05; done
rm -rf "$0"
"#;

/// Starts a broker; its process id stands in a file, for the guard.
fn spawn(lib: &Path, dir: &Path) -> Child {
    let log = fs::File::create(dir.join("broker.log")).expect("a log");
    let allowed = "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls";
    let broker = java_with(
        &format!("{allowed}={}", jwks_url(dir)),
        lib,
        dir,
        "kafka.Kafka",
    )
    .arg("server.properties")
    .stdout(log)
    .spawn()
    .expect("java starts");
    fs::write(dir.join("broker.pid"), broker.id().to_string()).expect("a file");
    broker
}

fn guard(dir: &Path) -> Child {
    let guard = Command::new("sh")
        .args(["-c", GUARD])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    guard.expect("sh starts")
}

fn format_storage(lib: &Path, dir: &Path) {
    let mut command = java(lib, dir, "kafka.tools.StorageTool");
    command.args([
        "format",
        "--cluster-id",
        "Zm9yZWJheS10ZXN0cy1rYQ",
        "--config",
        "server.properties",
    ]);
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        command
            .arg("--add-scram")
            .arg(format!("{mechanism}=[name={USER},password={PASSWORD}]"));
    }
    let output = command
        .stderr(Stdio::piped())
        .output()
        .expect("java starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn write_configuration(dir: &Path, ports: Ports) {
    let Ports {
        plain,
        tls,
        sasl,
        tokens,
        far,
        way,
        controller,
    } = ports;
    let others = format!(
        "PLAIN://127.0.0.1:{plain},TLS://127.0.0.1:{tls},SASL://127.0.0.1:{sasl},TOKENS://127.0.0.1:{tokens}"
    );
    let module = "org.apache.kafka.common.security";
    let jwks = jwks_url(dir);
    let server = format!(
        r#"
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners={others},FAR://127.0.0.1:{far},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={others},FAR://127.0.0.1:{way}
listener.security.protocol.map=PLAIN:PLAINTEXT,FAR:PLAINTEXT,TLS:SSL,SASL:SASL_SSL,TOKENS:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
ssl.keystore.type=PEM
ssl.keystore.location=broker-keystore.pem
ssl.truststore.type=PEM
ssl.truststore.location=ca.pem
listener.name.tls.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";
listener.name.sasl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.tokens.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.tokens.oauthbearer.sasl.jaas.config={module}.oauthbearer.OAuthBearerLoginModule required;
listener.name.tokens.oauthbearer.sasl.server.callback.handler.class={module}.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.tokens.oauthbearer.connections.max.reauth.ms={SESSION_MILLIS}
sasl.oauthbearer.jwks.endpoint.url={jwks}
sasl.oauthbearer.expected.issuer={ISSUER}
sasl.oauthbearer.expected.audience={AUDIENCE}
log.dirs=data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
"#
    );
    fs::write(dir.join("server.properties"), server).expect("a file");
    let log = "rootLogger.level=WARN\nrootLogger.appenderRef.out.ref=OUT\nappender.out.type=Console\n\
               appender.out.name=OUT\nappender.out.layout.type=PatternLayout\n\
               appender.out.layout.pattern=%d %p %c{1} %m%n\n";
    fs::write(dir.join("log4j2.properties"), log).expect("a file");
}

/// An authority with a broker and a client, and a stranger to it.
fn make_certificates(dir: &Path) {
    let authority = authority("tests");
    write(dir, "ca.pem", &authority.pem());
    let (certificate, key) = leaf("127.0.0.1", Usage::ServerAuth, &authority);
    write(dir, "broker-keystore.pem", &(key + &certificate));
    let (certificate, key) = leaf("127.0.0.1", Usage::ServerAuth, &authority);
    write(dir, "idp.pem", &certificate);
    write(dir, "idp.key", &key);
    make_token_key(dir);
    for (name, issuer) in [
        ("client", &authority),
        ("stranger", &self::authority("strangers")),
    ] {
        let (certificate, key) = leaf(name, Usage::ClientAuth, issuer);
        write(dir, &format!("{name}.pem"), &certificate);
        write(dir, &format!("{name}.key"), &key);
    }
}

/// A key that signs tokens, and what the broker knows of it.
fn make_token_key(dir: &Path) {
    let key = KeyPair::generate().expect("a key on P-256");
    write(dir, "tokens.key", &key.serialize_pem());
    // An uncompressed point: 4, x, y.
    let point = key.public_key_raw();
    let [x, y] = [&point[1..33], &point[33..65]].map(|number| URL_SAFE_NO_PAD.encode(number));
    let jwks = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"tests","x":"{x}","y":"{y}"}}]}}"#
    );
    write(dir, "jwks.json", &jwks);
}

fn jwks_url(dir: &Path) -> String {
    format!("file://{}", dir.join("jwks.json").display())
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
        .expect("a certificate")
}

/// A certificate and its key, as PEM.
fn leaf(name: &str, usage: Usage, issuer: &CertifiedIssuer<'static, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("a file");
}
