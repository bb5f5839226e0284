//! Posts each line of standard input as one reading, in order, and each until it is safe or refused for good.
//!
//!     cargo build --release
//!     target/release/device https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 <readings
//!
//! The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or
//! files are wrong.

use std::error::Error;
use std::io::BufRead;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io, thread};

use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

const SAFE: u16 = 204;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(300);
const BOOT_MAX: usize = 50; // a key has 64 at most
const USAGE: &str =
    "usage: device URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most";

struct Device {
    agent: Agent,
    url: String,
}

struct Answer {
    /// None where no answer came.
    status: Option<u16>,
    retry_after: Duration,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, ca, certificate, key, boot] = arguments.as_slice() else {
        return Ok(fail(USAGE));
    };
    if boot.len() > BOOT_MAX {
        return Ok(fail(USAGE));
    }
    let agent = match agent(ca, certificate, key) {
        Ok(agent) => agent,
        Err(error) => {
            return Ok(fail(&format!(
                "{ca}, {certificate} or {key} cannot be used: {error}"
            )));
        }
    };
    let url = format!("{url}/v1/telemetry");
    let device = Device { agent, url };
    let mut all_safe = true;
    for (sequence, line) in (1..).zip(io::stdin().lock().split(b'\n')) {
        let name = format!("{boot}-{sequence:06}");
        let status = device.deliver(&name, &line?);
        if status != SAFE {
            all_safe = false;
            eprintln!("{name}: refused, {status}");
        }
        if is_hopeless(status) {
            break;
        }
    }
    Ok(if all_safe {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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

impl Device {
    /// Sends a reading until the answer is final, and returns that.
    fn deliver(&self, name: &str, reading: &[u8]) -> u16 {
        let mut failures = 0;
        loop {
            let answer = self.post(name, reading);
            match answer.status {
                Some(status) if !is_retryable(status) => return status,
                status => {
                    let wait = answer.retry_after.max(backoff(failures));
                    eprintln!(
                        "{name}: {}, again in {:.1} s",
                        status.unwrap_or(0),
                        wait.as_secs_f64()
                    );
                    thread::sleep(wait);
                    failures += 1;
                }
            }
        }
    }

    fn post(&self, name: &str, reading: &[u8]) -> Answer {
        let request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header("idempotency-key", name);
        let received = request.send(reading).and_then(|mut answer| {
            answer.body_mut().read_to_vec()?; // to the end, or the connection cannot be used again
            let seconds = answer
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.parse().ok());
            Ok(Answer {
                status: Some(answer.status().as_u16()),
                retry_after: Duration::from_secs(seconds.unwrap_or(0)),
            })
        });
        received.unwrap_or_else(|error| {
            eprintln!("{name}: {error}");
            Answer {
                status: None,
                retry_after: Duration::ZERO,
            }
        })
    }
}

/// The same reading again, under the same key.
fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 429 | 503 | 504)
}

/// The certificate or the address is wrong, for the next reading too.
fn is_hopeless(status: u16) -> bool {
    matches!(status, 403 | 404 | 405 | 421)
}

/// Doubled with each failure up to five minutes; spread, so that a fleet does not come back as one.
fn backoff(failures: u32) -> Duration {
    (WAIT_MIN * 2_u32.pow(failures.min(16)))
        .min(WAIT_MAX)
        .mul_f64(0.5 + fastrand::f64())
}
