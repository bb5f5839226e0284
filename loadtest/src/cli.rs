//! The command line: what each command takes, its defaults and its bounds.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::envelope::{Encoding, Envelope, RECORDS_MAX};
use crate::payload::{DEVICES_MAX, RunId};
use crate::protocol::Protocol;
use crate::scenario::Scenario;

#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Simulate a fleet of devices, open loop, and report what they saw
    Fleet(Box<Fleet>),
    /// Compare what a sink holds with what a fleet's ledger says; exit code 1 where they differ
    Audit(Audit),
    /// Compare the events of a fleet in their stream with what the fleet remembers; exit code 1 where they differ
    Events(Events),
    /// Put one load on several servers, one after the other, and compare
    Peers(Peers),
    /// Closed loop: as fast as the server answers, or connections that do nothing; for CPU and
    /// memory figures
    Burn(Box<Burn>),
    /// Two results of `fleet` side by side
    Compare(Compare),
}

/// The server under test, and the devices that speak to it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Server {
    /// https://HOST:PORT, with a path unless the default stream of Forebay is meant
    pub url: String,
    /// Send to this stream, /v1/streams/NAME
    #[arg(long)]
    pub stream: Option<String>,
    #[arg(long, default_value = "POST")]
    pub method: http::Method,
    /// The status that counts as success
    #[arg(long, default_value_t = 204)]
    pub expect: u16,
    /// The authority that signs devices, made in memory: its certificate
    #[arg(long, value_name = "FILE")]
    pub ca_cert: PathBuf,
    /// and its key
    #[arg(long, value_name = "FILE")]
    pub ca_key: PathBuf,
    /// The authority that signed the server; the devices' unless given
    #[arg(long, value_name = "FILE")]
    pub server_ca: Option<PathBuf>,
    #[arg(long, value_name = "BYTES", default_value_t = 344)]
    pub payload_bytes: usize,
    /// So many readings in each request, as lines, to the path below that of one reading
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(RECORDS_MAX)))]
    pub records: Option<u32>,
    /// Encode each body
    #[arg(long, value_enum)]
    pub encoding: Option<Encoding>,
    /// The most that a connection, and a request, may take
    #[arg(long, value_parser = duration, default_value = "15s")]
    pub timeout: Duration,
    /// Measure CPU and memory of this process and its children: the server
    #[arg(long)]
    pub pid: Option<u32>,
}

impl Server {
    pub(crate) fn envelope(&self) -> Envelope {
        Envelope {
            records: self.records,
            encoding: self.encoding,
        }
    }

    pub(crate) fn server_ca(&self) -> &PathBuf {
        self.server_ca.as_ref().unwrap_or(&self.ca_cert)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocols {
    H1,
    H2,
    H3,
    /// One third each
    Mix,
}

impl Protocols {
    pub(crate) fn of(self, device: u32) -> Protocol {
        match self {
            Self::H1 => Protocol::H1,
            Self::H2 => Protocol::H2,
            Self::H3 => Protocol::H3,
            Self::Mix => Protocol::ALL[device as usize % Protocol::ALL.len()],
        }
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Fleet {
    #[command(flatten)]
    pub server: Server,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    pub devices: u32,
    #[arg(long, value_enum, default_value_t = Protocols::Mix)]
    pub protocol: Protocols,
    /// Each device sends once in this time
    #[arg(long, value_parser = duration, default_value = "5s", conflicts_with = "rate")]
    pub interval: Duration,
    /// Requests per second of the whole fleet, in place of --interval
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub duration: Duration,
    #[arg(long, value_enum, default_value_t = Scenario::Steady)]
    pub scenario: Scenario,
    /// A new connection for every request
    #[arg(long)]
    pub reconnect: bool,
    /// Keep session tickets: a connection that is made anew resumes
    #[arg(long)]
    pub resume: bool,
    /// New connections per second before the run begins
    #[arg(long, default_value_t = 2000.0)]
    pub connect_rate: f64,
    /// From the last connection to the run: a fleet that has just connected still has a few packets
    /// to exchange
    #[arg(long, value_parser = duration, default_value = "2s")]
    pub settle: Duration,
    /// Handshakes at the same time, of the whole fleet
    #[arg(long, default_value_t = 2000)]
    pub handshakes_max: u32,
    /// Worker processes: one can hold about 19,000 TCP connections where the open-file limit is
    /// 20,000
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub processes: u32,
    /// Threads of each process
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Connections come from 127.0.0.2 and this many addresses, where the server is at 127.0.0.1:
    /// each has 28,000 ports
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=200))]
    pub source_addresses: u8,
    /// UDP sockets of each thread; all HTTP/3 connections of the thread share them
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub sockets: u16,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Run a shell command at a time of the run: 10s=kill -STOP 4711
    #[arg(long = "at", value_name = "TIME=COMMAND")]
    pub hooks: Vec<Hook>,
    /// Write every request and its outcome here, for the audit
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Write what each device remembers of its connections here, for the audit of events
    #[arg(long, value_name = "FILE")]
    pub visits: Option<PathBuf>,
    /// Write the results here, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write the results here, as one HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Set for worker processes only
    #[arg(long, hide = true)]
    pub worker: Option<u32>,
    #[arg(long, hide = true)]
    pub run: Option<RunId>,
}

impl Fleet {
    /// The time in which a device sends once.
    pub(crate) fn interval(&self) -> Duration {
        self.rate.map_or(self.interval, |rate| {
            Duration::from_secs_f64(f64::from(self.devices) / rate)
        })
    }

    /// Threads of all processes.
    pub(crate) fn slots(&self) -> u32 {
        self.processes * self.threads
    }

    pub(crate) fn check(&self) -> Result<()> {
        const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
        let is_rate = |rate: f64| rate.is_finite() && rate > 0.0;
        ensure!(self.rate.is_none_or(is_rate), "--rate is more than 0");
        ensure!(is_rate(self.connect_rate), "--connect-rate is more than 0");
        ensure!(
            self.interval() >= Duration::from_millis(1),
            "a device sends at most 1000 times a second"
        );
        ensure!(
            (Duration::from_secs(1)..=DURATION_MAX).contains(&self.duration),
            "--duration is 1s to 24h"
        );
        Ok(())
    }
}

/// A shell command and when it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    pub at: Duration,
    pub command: String,
}

impl FromStr for Hook {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (at, command) = text
            .split_once('=')
            .context("TIME=COMMAND, like 10s=date")?;
        Ok(Self {
            at: duration(at)?,
            command: command.to_owned(),
        })
    }
}

#[derive(Args)]
pub(crate) struct Audit {
    #[arg(long, value_name = "FILE")]
    pub ledger: PathBuf,
    #[command(flatten)]
    pub sink: SinkChoice,
    /// The topic to read
    #[arg(long, default_value = "telemetry")]
    pub topic: String,
    /// The Kinesis stream to read
    #[arg(long, default_value = "telemetry")]
    pub stream: String,
    /// Write the findings here, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write the verdict into the fleet's report, too
    #[arg(long, value_name = "FILE")]
    pub fleet: Option<PathBuf>,
    /// and the fleet's page anew, with the verdict on it
    #[arg(long, value_name = "FILE", requires = "fleet")]
    pub html: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Events {
    #[arg(long, value_name = "FILE")]
    pub visits: PathBuf,
    #[command(flatten)]
    pub sink: SinkChoice,
    /// The topic to read
    #[arg(long, default_value = "fleet-events")]
    pub topic: String,
    /// The Kinesis stream to read
    #[arg(long, default_value = "fleet-events")]
    pub stream: String,
    /// Write the findings here, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SinkChoice {
    /// The file sink's folder, or the folder of one stream in it
    #[arg(long, value_name = "FOLDER")]
    pub files: Option<PathBuf>,
    /// Kafka's bootstrap servers
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// Kinesis' endpoint; credentials and region come from AWS_* as ever
    #[arg(long, value_name = "URL")]
    pub kinesis: Option<String>,
}

#[derive(Args)]
pub(crate) struct Peers {
    /// NAME=URL, the first is what the others are compared with
    #[arg(required = true, value_name = "NAME=URL")]
    pub servers: Vec<String>,
    /// Rounds, in turn; the middle one of each server counts
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// The results' folder
    #[arg(long, value_name = "FOLDER", default_value = "peers-results")]
    pub results: PathBuf,
    /// After `--`: what `fleet` takes
    #[arg(last = true)]
    pub load: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reconnect {
    /// Every connection makes a full handshake
    Full,
    /// Every connection but the first resumes
    Resumed,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Burn {
    #[command(flatten)]
    pub server: Server,
    #[arg(long, value_enum, default_value_t = Protocol::H1)]
    pub protocol: Protocol,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub connections: u32,
    /// Requests at the same time on each connection; 1 on HTTP/1.1
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub streams: u32,
    #[arg(long, value_parser = duration, default_value = "5s")]
    pub duration: Duration,
    /// End after so many requests, if that is earlier
    #[arg(long)]
    pub requests: Option<u64>,
    /// A new connection for every request
    #[arg(long, value_enum)]
    pub reconnect: Option<Reconnect>,
    /// Open so many connections, one request on each, and hold them while the server's memory is
    /// read
    #[arg(long, conflicts_with_all = ["reconnect", "requests"])]
    pub idle: Option<u32>,
    /// Answer as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct Compare {
    pub first: PathBuf,
    pub second: PathBuf,
}

/// Reads a number with `ms`, `s`, `m` or `h`.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(unit_at.unwrap_or(text.len()));
    let number = number.parse::<f64>();
    let number = number.with_context(|| format!("{text}: a number and a unit, like 5s"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => anyhow::bail!("{text}: the unit is ms, s, m or h"),
    };
    Ok(Duration::try_from_secs_f64(seconds)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_and_hooks_are_read() {
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        assert!(duration("5").is_err() && duration("s").is_err() && duration("5d").is_err());
        let hook: Hook = "10s=echo a=b".parse().unwrap();
        assert_eq!(
            hook,
            Hook {
                at: Duration::from_secs(10),
                command: "echo a=b".into()
            }
        );
        assert!("date".parse::<Hook>().is_err());
    }
}
