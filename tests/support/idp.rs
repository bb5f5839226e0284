//! A provider of tokens: an OIDC token endpoint over TLS, on a free loopback port.
//!
//! Its tokens are JWTs that a broker of `kafka.rs` takes, whose folder has its certificate and the key that signs them. It
//! answers one request a connection, from a thread of its own, and remembers what it was asked.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::kafka::{AUDIENCE, ISSUER, Kafka, USER};

pub struct Idp {
    port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Seconds that a token lives.
    lifetime: u64,
    /// Instead of a token: status and body.
    refusal: Option<(u16, String)>,
    asked: Vec<String>,
}

impl Idp {
    pub fn start(kafka: &Kafka) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(State {
            lifetime: 3600,
            refusal: None,
            asked: Vec::new(),
        }));
        let tls = server_config(kafka);
        let signer = PrivateKeyDer::from_pem_slice(
            &fs::read(kafka.file("tokens.key")).expect("the key of tokens"),
        );
        let signer = signer.expect("a key");
        let signer =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, signer.secret_der());
        let signer = signer.expect("a key on P-256");
        let answering = state.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // One that breaks is the client's to notice.
                let _ = answer(connection, &tls, &signer, &answering);
            }
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/token", self.port)
    }

    /// Its tokens live so many seconds from now on.
    pub fn set_lifetime(&self, seconds: u64) {
        self.state.lock().unwrap().lifetime = seconds;
    }

    /// Answers so from now on; `None` gives tokens again.
    pub fn refuse(&self, refusal: Option<(u16, &str)>) {
        self.state.lock().unwrap().refusal =
            refusal.map(|(status, body)| (status, body.to_owned()));
    }

    /// The requests as they came: head and body.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

/// For a server with a certificate of the broker's authority.
pub fn server_config(kafka: &Kafka) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(kafka.file("idp.pem")).expect("one");
    let key = PrivateKeyDer::from_pem_file(kafka.file("idp.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = builder.with_no_client_auth();
    Arc::new(
        builder
            .with_single_cert(vec![certificate], key)
            .expect("a key of its own"),
    )
}

fn answer(
    mut socket: TcpStream,
    tls: &Arc<ServerConfig>,
    signer: &EcdsaKeyPair,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let mut session = ServerConnection::new(tls.clone()).expect("a session");
    let mut stream = Stream::new(&mut session, &mut socket);
    let request = read_request(&mut stream)?;
    let mut state = state.lock().unwrap();
    state.asked.push(request);
    let (status, body) = state
        .refusal
        .clone()
        .unwrap_or_else(|| (200, granted(signer, state.lifetime)));
    drop(state);
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn read_request(stream: &mut impl Read) -> std::io::Result<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.lines().next());
            if body.len() >= length.map_or(0, |length| length.trim().parse().expect("a length")) {
                return Ok(text);
            }
        }
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes)? {
            0 => return Ok(text),
            read => request.extend_from_slice(&bytes[..read]),
        }
    }
}

fn granted(signer: &EcdsaKeyPair, lifetime: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time")
        .as_secs();
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    let head = part(r#"{"alg":"ES256","kid":"tests","typ":"JWT"}"#.into());
    let claims = part(format!(
        r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"{USER}","scope":"write","iat":{now},"exp":{}}}"#,
        now + lifetime
    ));
    let text = format!("{head}.{claims}");
    let signature = signer
        .sign(&SystemRandom::new(), text.as_bytes())
        .expect("a signature");
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{lifetime}}}"#)
}
