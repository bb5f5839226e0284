//! Bytes on a TLS connection, exactly as an attacker would send them.
//!
//! Not the Python clients: a flood has to be faster than they are. Every wait has a bound; what the gateway does not end
//! within [`PATIENCE`] fails its test.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Gateway, PATIENCE};
use crate::pki::Identity;

/// Address of attackers; the good devices of these tests come from 127.0.0.1.
pub const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 66));

/// Runs to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

/// A connection from the attacker's address.
pub async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(ATTACKER, 0))?;
    let stream = timeout(PATIENCE, socket.connect(to))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Configures a client of this gateway; without a device it brings no certificate.
pub fn tls(gateway: &Gateway, device: Option<&Identity>, protocol: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(gateway.pki.ca()).expect("a certificate"))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_root_certificates(roots);
    let mut config = match device {
        Some(device) => {
            let chain = CertificateDer::pem_slice_iter(&fs::read(&device.cert).expect("a file"))
                .collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_file(&device.key).expect("a key");
            builder
                .with_client_auth_cert(chain.expect("a chain"), key)
                .expect("a key that fits")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Arc::new(config)
}

pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// An open connection.
pub struct Raw {
    read: ReadHalf<TlsStream<TcpStream>>,
    write: WriteHalf<TlsStream<TcpStream>>,
}

impl Raw {
    /// Shakes hands from the attacker's address.
    pub async fn open(to: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<Self> {
        let shaking = TlsConnector::from(tls).connect(server_name(), connect(to).await?);
        let stream = timeout(PATIENCE, shaking)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        let (read, write) = split(stream);
        Ok(Self { read, write })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sending = async {
            self.write.write_all(bytes).await?;
            self.write.flush().await
        };
        timeout(PATIENCE, sending)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Sends the same bytes over and over, reading nothing, until the gateway takes no more of them: it waits for its
    /// answers to be read, or it has gone.
    pub async fn send_until_stuck(&mut self, bytes: &[u8]) {
        const STUCK: Duration = Duration::from_secs(2);
        while let Ok(Ok(())) = timeout(STUCK, self.send(bytes)).await {}
    }

    /// Receives the next bytes; they are empty at the end of the connection, however it ended.
    pub async fn receive(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 65_536];
        let read = timeout(PATIENCE, self.read.read(&mut bytes))
            .await
            .expect("the gateway says something, or goes");
        bytes.truncate(read.unwrap_or(0));
        bytes
    }

    /// Everything up to the end of the connection.
    pub async fn receive_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.receive().await {
                bytes if bytes.is_empty() => return all,
                bytes => all.extend(bytes),
            }
        }
    }

    /// Sends the same bytes over and over, so many in all, reading meanwhile: how many the gateway takes before it ends the
    /// connection.
    pub async fn pour(mut self, bytes: &[u8], bytes_max: usize) -> usize {
        const WRITE_BYTES: usize = 64 * 1024;
        let chunk = bytes.repeat(WRITE_BYTES / bytes.len());
        let Self { read, write } = &mut self;
        let mut taken = 0;
        let sending = async {
            while taken < bytes_max && write.write_all(&chunk).await.is_ok() {
                taken += chunk.len();
            }
        };
        let receiving = async {
            let mut piece = vec![0; WRITE_BYTES];
            while let Ok(1..) = read.read(&mut piece).await {}
        };
        let ended = async {
            tokio::select! {
                () = sending => {}
                () = receiving => {}
            }
        };
        timeout(PATIENCE, ended)
            .await
            .expect("the gateway reads, or goes");
        taken
    }

    /// Sends the same bytes `times` times, reading meanwhile, and waits for the end of the connection: everything that
    /// was received. The gateway may end it before all is sent.
    pub async fn flood(mut self, bytes: &[u8], times: usize) -> Vec<u8> {
        // Fewer, larger writes: the gateway is to be kept busy, not this process.
        const WRITE_BYTES: usize = 64 * 1024;
        let at_once = (WRITE_BYTES / bytes.len()).clamp(1, times);
        let chunk = bytes.repeat(at_once);
        let Self { read, write } = &mut self;
        let sending = async {
            for _ in 0..times / at_once {
                if write.write_all(&chunk).await.is_err() {
                    break;
                }
            }
            let _ = write.flush().await;
            std::future::pending::<()>().await;
        };
        let receiving = async {
            let (mut all, mut piece) = (Vec::new(), vec![0; 65_536]);
            while let Ok(count @ 1..) = read.read(&mut piece).await {
                all.extend_from_slice(&piece[..count]);
            }
            all
        };
        let ended = async {
            tokio::select! {
                all = receiving => all,
                () = sending => unreachable!("it never ends"),
            }
        };
        timeout(PATIENCE, ended)
            .await
            .expect("the gateway ends the connection")
    }
}

/// Frames of HTTP/2 (RFC 9113 section 4.1) and what is in them.
pub mod frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;

    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;

    /// Makes a client's preface, with settings that ask for nothing.
    pub fn preface() -> Vec<u8> {
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &frame(SETTINGS, 0, 0, &[])[..],
        ]
        .concat()
    }

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The fields of a POST that declares a body of `length` bytes, none of them in the dynamic table (RFC 7541).
    pub fn post(length: &str) -> Vec<u8> {
        let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
        [
            &[0x83, 0x87, 0x04][..],
            &text("/v1/telemetry"),
            &[0x01],
            &text("localhost"),
            &[0x0f, 0x0d],
            &text(length),
        ]
        .concat()
    }

    /// A field whose name and value are written out, and not kept in the dynamic table (RFC 7541 section 6.2.2).
    pub fn field(name: &str, value: &[u8]) -> Vec<u8> {
        let short = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
        [
            &[0, short(name.as_bytes())],
            name.as_bytes(),
            &[short(value)],
            value,
        ]
        .concat()
    }

    /// The status that a HEADERS frame of the gateway begins with: one of the static table, or three digits in Huffman's
    /// code, in which h2 writes them.
    pub fn status(head: &[u8]) -> u16 {
        const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match *head {
            [indexed @ 0x88..=0x8e, ..] => STATIC[usize::from(indexed) - 0x88],
            [_, length @ (0x82 | 0x83), ref code @ ..] => {
                digits(&code[..usize::from(length & 0x7f)])
            }
            _ => panic!("a head that does not begin with a status: {head:?}"),
        }
    }

    /// Three digits (RFC 7541 appendix B): 0, 1 and 2 have codes of five bits, 3 to 9 of six bits, in their order.
    fn digits(code: &[u8]) -> u16 {
        let bits: Vec<u16> = code
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)))
            .collect();
        let (mut at, mut number) = (0, 0);
        for _ in 0..3 {
            let take = |count: usize| {
                bits[at..at + count]
                    .iter()
                    .fold(0, |code, bit| 2 * code + bit)
            };
            let (digit, length) = match take(5) {
                short @ 0..=2 => (short, 5),
                _ => (take(6) - 0b01_1001 + 3, 6),
            };
            at += length;
            number = 10 * number + digit;
        }
        number
    }

    /// Kind, stream and payload of each whole frame.
    pub fn parse(mut bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
        let mut frames = Vec::new();
        while bytes.len() >= 9 {
            let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
            let Some(payload) = bytes.get(9..9 + length) else {
                break;
            };
            frames.push((
                bytes[3],
                u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]),
                payload.to_vec(),
            ));
            bytes = &bytes[9 + length..];
        }
        frames
    }

    /// The error code of the last GOAWAY.
    pub fn goaway(bytes: &[u8]) -> Option<u32> {
        word_of_goaway(bytes, 4)
    }

    /// The last stream that the last GOAWAY says was looked at.
    pub fn last_stream(bytes: &[u8]) -> Option<u32> {
        word_of_goaway(bytes, 0)
    }

    fn word_of_goaway(bytes: &[u8], at: usize) -> Option<u32> {
        let mut frames = parse(bytes).into_iter().rev();
        let (.., payload) = frames.find(|(kind, ..)| *kind == GOAWAY)?;
        let word = payload[at..at + 4].try_into().expect("four bytes");
        Some(u32::from_be_bytes(word))
    }
}
