//! As much of a Kafka broker as it takes to log in to: it reads what a client logs in with, and hangs up.
//!
//! Over TLS, on a free loopback port, with the certificate of a broker of `kafka.rs`. It speaks the oldest version of each
//! request (<https://kafka.apache.org/protocol>), which clients fall back to.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use crate::idp;
use crate::kafka::Kafka;

const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const SASL_AUTHENTICATE: i16 = 36;

/// Of each request that is known: the least and the latest version.
const VERSIONS: [(i16, i16, i16); 3] = [
    (SASL_HANDSHAKE, 0, 1),
    (API_VERSIONS, 0, 0),
    (SASL_AUTHENTICATE, 0, 0),
];
const UNSUPPORTED_VERSION: i16 = 35;

/// Credentials that a client has logged in with.
#[derive(Debug)]
pub struct Login {
    pub mechanism: String,
    pub data: Vec<u8>,
}

/// Starts it; gives its address, and every login.
pub fn start(kafka: &Kafka) -> (String, mpsc::Receiver<Login>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let tls = idp::server_config(kafka);
    let (sender, logins) = mpsc::sync_channel(64);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let session = ServerConnection::new(tls.clone()).expect("a session");
            // One that breaks is the client's to notice.
            let login = log_in(&mut StreamOwned::new(session, socket));
            if let Ok(login) = login
                && sender.send(login).is_err()
            {
                return;
            }
        }
    });
    (address, logins)
}

fn log_in(stream: &mut (impl Read + Write)) -> std::io::Result<Login> {
    let mut mechanism = String::new();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request)?;
        let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let (kind, version) = (number(0), number(2));
        // The head ends with the client's id, behind its length.
        let body = &request[10 + usize::try_from(number(8)).unwrap_or(0)..];
        let answer = match kind {
            API_VERSIONS => versions(version),
            SASL_HANDSHAKE => {
                mechanism = String::from_utf8_lossy(&body[2..]).into_owned();
                handshake(&mechanism)
            }
            SASL_AUTHENTICATE => {
                let data = body[4..].to_vec();
                return Ok(Login { mechanism, data });
            }
            _ => return Err(std::io::ErrorKind::Unsupported.into()),
        };
        let mut frame = ((answer.len() + 4) as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&request[4..8]);
        frame.extend_from_slice(&answer);
        stream.write_all(&frame)?;
        stream.flush()?;
    }
}

fn versions(asked_with: i16) -> Vec<u8> {
    let error = if asked_with == 0 {
        0
    } else {
        UNSUPPORTED_VERSION
    };
    let mut answer = error.to_be_bytes().to_vec();
    answer.extend((VERSIONS.len() as u32).to_be_bytes());
    for (kind, least, latest) in VERSIONS {
        for number in [kind, least, latest] {
            answer.extend(number.to_be_bytes());
        }
    }
    answer
}

/// No error, and the one mechanism that the client asked for.
fn handshake(mechanism: &str) -> Vec<u8> {
    let mut answer = vec![0, 0, 0, 0, 0, 1];
    answer.extend((mechanism.len() as u16).to_be_bytes());
    answer.extend(mechanism.bytes());
    answer
}
