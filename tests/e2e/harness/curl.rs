//! The curl command, for h1 and h2: a process for each request.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Ask, Gateway, Protocol, Reply};
use crate::pki::Identity;

pub struct Target {
    http_version: &'static str,
    base: String,
    ca: PathBuf,
    device: Identity,
}

impl Target {
    pub fn new(protocol: Protocol, gateway: &Gateway, device: &Identity) -> Self {
        let http_version = match protocol {
            Protocol::H1 => "--http1.1",
            Protocol::H2 => "--http2",
            Protocol::H3 => panic!("curl is built without HTTP/3"),
        };
        let base = format!("https://localhost:{}", gateway.address.port());
        Self {
            http_version,
            base,
            ca: gateway.pki.ca(),
            device: device.clone(),
        }
    }

    pub fn send(&self, ask: &Ask) -> Result<Reply, String> {
        let mut command = Command::new("curl");
        command
            .args([
                "--silent",
                "--show-error",
                "--include",
                "--max-time",
                "30",
                self.http_version,
            ])
            .arg("--cacert")
            .arg(&self.ca)
            .arg("--cert")
            .arg(&self.device.cert)
            .arg("--key")
            .arg(&self.device.key)
            .args([
                "--request",
                &ask.method,
                "--data-binary",
                "@-",
                &format!("{}{}", self.base, ask.path),
            ])
            .args(
                ask.headers
                    .iter()
                    .flat_map(|(name, value)| ["--header".into(), format!("{name}: {value}")]),
            );
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let process = process.as_mut().expect("curl starts");
        // A gateway that answers early leaves some of the body unread.
        let _ = process.stdin.take().expect("piped").write_all(&ask.body);
        let output = wait(process);
        if output.1.is_empty() {
            Err(output.0)
        } else {
            Ok(parse(&output.1))
        }
    }
}

/// Returns curl's errors and the answer.
fn wait(process: &mut std::process::Child) -> (String, Vec<u8>) {
    use std::io::Read;
    let (mut answer, mut complaint) = (Vec::new(), String::new());
    process
        .stdout
        .take()
        .expect("piped")
        .read_to_end(&mut answer)
        .expect("its output");
    process
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut complaint)
        .expect("its complaints");
    process.wait().expect("it ends");
    (complaint, answer)
}

/// An answer of h1: the last head, `100 Continue` may come before it, and the body.
pub fn parse(answer: &[u8]) -> Reply {
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .expect("a status line");
    if status == 100 {
        return parse(&answer[end + 4..]);
    }
    let field = |line: &str| {
        let (name, value) = line.split_once(':').expect("a field");
        (name.to_lowercase(), value.trim().to_owned())
    };
    Reply {
        status,
        headers: lines.map(field).collect(),
        body: answer[end + 4..].to_vec(),
    }
}
