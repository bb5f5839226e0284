//! Buffers lines of standard input as readings, and posts what waits in one request, gzipped, until each is safe or refused for good.
//!
//!     cargo build --release
//!     target/release/buffer https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 <readings
//!
//! The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or
//! files are wrong.

use std::error::Error;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use std::{env, fs, io, thread};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

const SAFE: u16 = 204;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(300);
const BATCH_MAX: usize = 100; // readings in one request: no more than the device's burst
const BUFFER_MAX: usize = 10_000; // readings that wait; then standard input does
const BOOT_MAX: usize = 50; // a key has 58 at most
const USAGE: &str =
    "usage: buffer URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most";

type Reading = Vec<u8>;

struct Device {
    agent: Agent,
    url: String,
    boot: String,
}

struct Answer {
    /// None where no answer came.
    status: Option<u16>,
    retry_after: Duration,
    /// Null where the answer is none.
    problem: Value,
}

/// What becomes of the readings of one request, but for those that are safe.
#[derive(Default)]
struct Verdict {
    again: Vec<Reading>,
    refused: Vec<(Reading, String)>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, ca, certificate, key, boot] = arguments.as_slice() else {
        return fail(USAGE);
    };
    if boot.len() > BOOT_MAX {
        return fail(USAGE);
    }
    let agent = match agent(ca, certificate, key) {
        Ok(agent) => agent,
        Err(error) => {
            return fail(&format!(
                "{ca}, {certificate} or {key} cannot be used: {error}"
            ));
        }
    };
    let url = format!("{url}/v1/telemetry/records");
    let boot = boot.clone();
    let (sender, lines) = sync_channel(BUFFER_MAX);
    thread::spawn(|| read(sender));
    match (Device { agent, url, boot }).deliver(&lines) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

/// It keeps its connection, and connects anew after a close.
fn agent(ca: &str, certificate: &str, key: &str) -> Result<Agent, Box<dyn Error>> {
    let pair = ClientCert::new_with_certs(
        &certificates(certificate)?,
        PrivateKey::from_pem(&fs::read(key)?)?,
    );
    let roots = RootCerts::Specific(Arc::new(certificates(ca)?));
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .client_cert(Some(pair))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(ANSWER_TIMEOUT));
    Ok(config.http_status_as_error(false).build().into())
}

fn certificates(file: &str) -> Result<Vec<Certificate<'static>>, Box<dyn Error>> {
    let pem = fs::read(file)?;
    let items = parse_pem(&pem).collect::<Result<Vec<_>, _>>()?;
    let certificate = |item| {
        if let PemItem::Certificate(certificate) = item {
            Some(certificate)
        } else {
            None
        }
    };
    Ok(items.into_iter().filter_map(certificate).collect())
}

fn read(lines: SyncSender<Reading>) {
    for line in io::stdin().lock().split(b'\n') {
        let line = line.expect("standard input can be read");
        let is_empty = line.is_empty() || line == b"\r";
        if !is_empty && lines.send(line).is_err() {
            return;
        }
    }
}

/// Waits for a reading where there is none, and takes those that wait with it.
fn fill(batch: &mut Vec<Reading>, lines: &Receiver<Reading>, size: usize) {
    if batch.is_empty() {
        batch.extend(lines.recv()); // it fails at the end of the input
    }
    let room = size.saturating_sub(batch.len());
    batch.extend(lines.try_iter().take(room));
}

impl Device {
    /// Sends all readings; whether all of them are safe.
    fn deliver(&self, lines: &Receiver<Reading>) -> bool {
        let (mut size, mut number, mut failures, mut all_safe) = (BATCH_MAX, 1, 0, true);
        let mut batch = Vec::new();
        loop {
            fill(&mut batch, lines, size);
            if batch.is_empty() {
                return all_safe;
            }
            let name = format!("{}-{number:06}", self.boot);
            let sent = &batch[..batch.len().min(size)];
            let answer = self.post(&name, sent);
            if answer.is_too_much() && sent.len() > 1 {
                (size, number) = (sent.len() / 2, number + 1);
                continue;
            }
            let Verdict { again, refused } = answer.judge(sent);
            for (reading, code) in &refused {
                all_safe = false;
                let start = &reading[..reading.len().min(100)];
                eprintln!("{name}: refused, {code}: {}", start.escape_ascii());
            }
            if answer.is_hopeless() {
                return false;
            }
            if again.len() < sent.len() {
                number += 1; // a key names readings by their place: others have another key
            }
            let left = again.len();
            batch.splice(..sent.len(), again);
            if left == 0 {
                failures = 0;
                continue;
            }
            let wait = answer.retry_after.max(backoff(failures));
            let status = answer.status.unwrap_or(0);
            let seconds = wait.as_secs_f64();
            eprintln!("{name}: {status}, {left} again in {seconds:.1} s");
            thread::sleep(wait);
            failures += 1;
        }
    }

    fn post(&self, name: &str, readings: &[Reading]) -> Answer {
        self.try_post(name, readings).unwrap_or_else(|error| {
            eprintln!("{name}: {error}");
            Answer {
                status: None,
                retry_after: Duration::ZERO,
                problem: Value::Null,
            }
        })
    }

    fn try_post(&self, name: &str, readings: &[Reading]) -> Result<Answer, Box<dyn Error>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&readings.join(&b'\n'))?;
        let request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/x-ndjson")
            .header("content-encoding", "gzip")
            .header("idempotency-key", name);
        let mut answer = request.send(encoder.finish()?)?;
        let body = answer.body_mut().read_to_vec()?; // to the end, or the connection cannot be used again
        let field = |name| answer.headers().get(name)?.to_str().ok();
        let seconds = field("retry-after").and_then(|text| text.parse().ok());
        let is_problem = field("content-type") == Some("application/problem+json");
        Ok(Answer {
            status: Some(answer.status().as_u16()),
            retry_after: Duration::from_secs(seconds.unwrap_or(0)),
            problem: if is_problem {
                serde_json::from_slice(&body)?
            } else {
                Value::Null
            },
        })
    }
}

impl Answer {
    fn is_too_much(&self) -> bool {
        self.problem["code"] == "too-many-records" || self.problem["code"] == "body-too-large"
    }

    /// The whole request is refused since the certificate or the address is wrong, for all others too.
    fn is_hopeless(&self) -> bool {
        matches!(self.status, Some(403 | 404 | 405 | 421)) && self.problem["records"].is_null()
    }

    fn judge(&self, sent: &[Reading]) -> Verdict {
        if let verdicts @ Value::Object(_) = &self.problem["records"] {
            return judge_each(verdicts, sent);
        }
        match self.status {
            Some(SAFE) => Verdict::default(),
            Some(status) if !is_retryable(status) => {
                let code = format!("{status} {}", self.problem["code"]);
                Verdict {
                    again: Vec::new(),
                    refused: sent
                        .iter()
                        .map(|reading| (reading.clone(), code.clone()))
                        .collect(),
                }
            }
            _ => Verdict {
                again: sent.to_vec(),
                refused: Vec::new(),
            },
        }
    }
}

/// What is in neither list is safe.
fn judge_each(verdicts: &Value, sent: &[Reading]) -> Verdict {
    let at = |index: &Value| sent[index.as_u64().expect("an index") as usize].clone();
    let list = |name| verdicts[name].as_array().into_iter().flatten();
    let code = |rejected: &Value| {
        rejected["code"]
            .as_str()
            .unwrap_or("without a code")
            .to_owned()
    };
    Verdict {
        again: list("retry").map(at).collect(),
        refused: list("rejected")
            .map(|rejected| (at(&rejected["index"]), code(rejected)))
            .collect(),
    }
}

fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 429 | 503 | 504)
}

/// Doubled with each failure up to five minutes; spread, so that a fleet does not come back as one.
fn backoff(failures: u32) -> Duration {
    (WAIT_MIN * 2_u32.pow(failures.min(16)))
        .min(WAIT_MAX)
        .mul_f64(0.5 + fastrand::f64())
}
