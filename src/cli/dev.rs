//! `forebay dev`: the gateway on a developer's machine, with nothing set up.
//!
//! Makes an authority, a server and a device in `certs/dev` unless they are there, serves on
//! loopback into files, and prints a `curl` line that works as it stands. Variables and flags win
//! over all of that; the certificates are made only if the configuration uses one of them.

use std::env;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Command};

use super::{Preset, environment, flags, given, reachable, say, start, wrong};
use crate::config::{Config, SinkConfig, TlsConfig, raise_open_file_limit};
use crate::gateway::Bound;
use crate::pki::{Authority, Days, Folder, KeyKind, PkiError, ServerName};
use crate::record::DeviceId;

const DIR: &str = "certs/dev";
const DEVICE: &str = "dev-device";

pub(crate) fn command() -> Command {
    Command::new("dev")
        .about("Serve on this machine, with certificates made for it in certs/dev, into files")
        .args(flags(&presets()))
}

fn presets() -> Vec<Preset> {
    let folder = Folder::new(DIR);
    let path = |file: std::path::PathBuf| file.display().to_string();
    vec![
        ("FOREBAY_LISTEN", "127.0.0.1:8443".into()),
        ("FOREBAY_TLS_CERT", path(folder.server(KeyKind::P256))),
        ("FOREBAY_TLS_KEY", path(folder.server_key(KeyKind::P256))),
        ("FOREBAY_TLS_CLIENT_CA", path(folder.ca())),
        ("FOREBAY_TLS_CRL", path(folder.crl())),
        ("FOREBAY_SINK", "file".into()),
        // On the terminal: who is refused, and each request.
        ("FOREBAY_AUDIT_LOG", "stdout".into()),
        ("FOREBAY_ACCESS_LOG", "stdout".into()),
        ("FOREBAY_ACCESS_LOG_SAMPLE", "1".into()),
    ]
}

pub(crate) fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    raise_open_file_limit();
    let config = match Config::load_over(presets(), environment(), given(arguments)) {
        Ok(config) => config,
        Err(errors) => return Ok(wrong(&errors)),
    };
    let device = DeviceId::parse(DEVICE).context("the name of the device is no id")?;
    if uses_dev_certificates(&config.tls) {
        make_missing(&device)?;
    }
    let invitation = Invitation::new(&config, &device);
    start(config, |bound| say(&invitation.text(&bound)))
}

fn uses_dev_certificates(tls: &TlsConfig) -> bool {
    let lists = [&tls.cert, &tls.key, &tls.crl];
    let mut files = lists.into_iter().flatten().chain([&tls.client_ca]);
    files.any(|file| file.starts_with(DIR))
}

/// Makes what is not there; what is there stays as it is.
fn make_missing(device: &DeviceId) -> Result<(), PkiError> {
    let folder = Folder::new(DIR);
    let authority = match folder.ca().exists() {
        true => Authority::open(folder.clone())?,
        false => Authority::init(folder.clone(), None, Days::AUTHORITY, Days::CERTIFICATE)?,
    };
    if !folder.server(KeyKind::P256).exists() {
        authority.issue_server(&local_names(), KeyKind::P256, Days::CERTIFICATE)?;
    }
    if !folder.device(device).exists() {
        authority.issue_device(device, Days::CERTIFICATE)?;
    }
    folder.must_be_current()
}

fn local_names() -> [ServerName; 3] {
    [
        ServerName::Dns("localhost".into()),
        ServerName::Ip(Ipv4Addr::LOCALHOST.into()),
        ServerName::Ip(Ipv6Addr::LOCALHOST.into()),
    ]
}

/// The lines that a developer reads once the gateway listens.
struct Invitation {
    /// The options by which curl is the device, where the gateway takes the certificates made here.
    credentials: Option<String>,
    records: String,
}

impl Invitation {
    fn new(config: &Config, device: &DeviceId) -> Self {
        let folder = Folder::new(DIR);
        let is_ours = config.tls.cert == [folder.server(KeyKind::P256)]
            && config.tls.client_ca == folder.ca();
        Self {
            credentials: is_ours.then(|| credentials(&folder, device)),
            records: records(config),
        }
    }

    fn text(&self, bound: &Bound) -> String {
        let (listen, page) = (bound.listen, reachable(bound.admin));
        let watch = format!("Watch it in a browser: http://{page}/");
        let Some(credentials) = &self.credentials else {
            return format!(
                "\nServing on {listen} with certificates of yours. Readings arrive in {}.\n{watch}\n",
                self.records
            );
        };
        let reading = r#"-H 'content-type: application/json' -d '{"temperature":21.5}'"#;
        format!(
            "\nServing on {listen}. Send a reading; the answer is 204:\n\n\
             curl -sSi --noproxy '*' {credentials} {reading} {}\n\n\
             {watch}\n\n\
             It arrives in {}. That was HTTP/2: add --http1.1 for HTTP/1.1, --http3-only for HTTP/3.\n\
             More devices: {} pki device --dir {DIR} ID. Ctrl-C stops.\n",
            url(listen),
            self.records,
            typed()
        )
    }
}

/// Returns the program's name as it was typed: it need not be in the `PATH`.
fn typed() -> String {
    let first = env::args_os().next();
    first.map_or_else(|| "forebay".into(), |typed| typed.display().to_string())
}

fn credentials(folder: &Folder, device: &DeviceId) -> String {
    format!(
        "--cacert {} --cert {} --key {}",
        folder.ca().display(),
        folder.device(device).display(),
        folder.device_key(device).display()
    )
}

/// The URL at which curl finds the gateway under a name of its certificate; with an option before
/// it, where it needs one.
fn url(bound: SocketAddr) -> String {
    let reached = reachable(bound);
    let (ip, port) = (reached.ip(), reached.port());
    if ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST {
        return format!("'https://{reached}/v1/telemetry'");
    }
    format!("--resolve 'localhost:{port}:{ip}' https://localhost:{port}/v1/telemetry")
}

/// Names the place that the readings of the default stream go to.
fn records(config: &Config) -> String {
    let target = &config.streams.first().expect("one at least").target;
    match &config.sink {
        SinkConfig::File(file) => {
            let files = Path::new(&file.dir).join(target).join("*.jsonl");
            files.display().to_string()
        }
        SinkConfig::Null => "nothing: the null sink keeps no record".into(),
        #[cfg(feature = "kafka")]
        SinkConfig::Kafka(_) => format!("the Kafka topic {target}"),
        #[cfg(feature = "kinesis")]
        SinkConfig::Kinesis(_) => format!("the Kinesis stream {target}"),
    }
}
