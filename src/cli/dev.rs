//! `forebay dev`: the gateway on a developer's machine, with nothing set up.
//!
//! Makes an authority, a server and a device in `certs/dev` unless they are there, serves on
//! loopback into files, and prints a `curl` line that works as it stands. Variables and flags win
//! over all of that; the certificates are made only if the configuration uses one of them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Command};

use super::{Preset, environment, flags, given, say, start, wrong};
use crate::config::{Config, SinkConfig, TlsConfig, raise_open_file_limit};
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
    start(config, |bound| say(&invitation.text(bound)))
}

fn uses_dev_certificates(tls: &TlsConfig) -> bool {
    let files = [&tls.cert, &tls.key, &tls.crl].into_iter().flatten();
    files
        .chain([&tls.client_ca])
        .any(|file| file.starts_with(DIR))
}

/// Makes what is not there; what is there stays as it is.
fn make_missing(device: &DeviceId) -> Result<(), PkiError> {
    let folder = Folder::new(DIR);
    let authority = if folder.ca().exists() {
        Authority::open(folder.clone())?
    } else {
        Authority::init(folder.clone(), None, Days::AUTHORITY, Days::CERTIFICATE)?
    };
    if !folder.server(KeyKind::P256).exists() {
        let local: [std::net::IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let names = [ServerName::Dns("localhost".into())]
            .into_iter()
            .chain(local.map(ServerName::Ip));
        let names: Vec<_> = names.collect();
        authority.issue_server(&names, KeyKind::P256, Days::CERTIFICATE)?;
    }
    if !folder.device(device).exists() {
        authority.issue_device(device, Days::CERTIFICATE)?;
    }
    folder.must_be_current()
}

/// What a developer is told once the gateway listens.
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
        let (ca, cert, key) = (
            folder.ca(),
            folder.device(device),
            folder.device_key(device),
        );
        let credentials = format!(
            "--cacert {} --cert {} --key {}",
            ca.display(),
            cert.display(),
            key.display()
        );
        Self {
            credentials: is_ours.then_some(credentials),
            records: records(config),
        }
    }

    fn text(&self, bound: SocketAddr) -> String {
        let Some(credentials) = &self.credentials else {
            return format!(
                "\nServing on {bound} with certificates of yours. Readings arrive in {}.\n",
                self.records
            );
        };
        let reading = r#"-H 'content-type: application/json' -d '{"temperature":21.5}'"#;
        format!(
            "\nServing on {bound}. Send a reading; the answer is 204:\n\n\
             curl -sSi --noproxy '*' {credentials} {reading} {}\n\n\
             It arrives in {}. That was HTTP/2: add --http1.1 for HTTP/1.1, --http3-only for HTTP/3.\n\
             More devices: forebay pki device --dir {DIR} ID. Ctrl-C stops.\n",
            url(bound),
            self.records
        )
    }
}

/// The URL at which curl finds the gateway under a name of its certificate; with an option before
/// it, where it needs one.
fn url(bound: SocketAddr) -> String {
    let ip = match bound {
        SocketAddr::V4(_) if bound.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) if bound.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => bound.ip(),
    };
    let reached = SocketAddr::new(ip, bound.port());
    if ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST {
        return format!("'https://{reached}/v1/telemetry'");
    }
    let port = bound.port();
    format!("--resolve 'localhost:{port}:{ip}' https://localhost:{port}/v1/telemetry")
}

/// Where the readings of the default stream go.
fn records(config: &Config) -> String {
    let target = config
        .streams
        .first()
        .map_or("telemetry", |stream| stream.target.as_str());
    match &config.sink {
        SinkConfig::File(file) => Path::new(&file.dir)
            .join(target)
            .join("*.jsonl")
            .display()
            .to_string(),
        SinkConfig::Null => "nothing: the null sink keeps no record".into(),
        #[cfg(feature = "kafka")]
        SinkConfig::Kafka(_) => format!("the Kafka topic {target}"),
        #[cfg(feature = "kinesis")]
        SinkConfig::Kinesis(_) => format!("the Kinesis stream {target}"),
    }
}
