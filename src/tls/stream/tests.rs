//! Against rustls' buffered client, over pipes that take a few bytes at a time.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use futures_util::FutureExt;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConnectionTrafficSecrets, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client;

use super::*;

type Server = TlsStream<DuplexStream>;
type Client = client::TlsStream<DuplexStream>;

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let mut client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (Arc::new(server), Arc::new(client))
}

/// Both ends of a connection whose pipe holds `pipe_bytes`.
async fn connect(pipe_bytes: usize) -> (Server, Client) {
    let (server, client) = configs();
    let (here, there) = duplex(pipe_bytes);
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(client).connect(name, there);
    let (accepted, connected) = tokio::join!(
        TlsStream::accept(here, server, Buffers::default(), || ()),
        connecting
    );
    (
        accepted.map_err(|(error, _)| error).unwrap(),
        connected.unwrap(),
    )
}

impl Server {
    fn holds_bytes(&self) -> usize {
        self.partial.capacity() + self.plain.capacity() + self.outgoing.capacity()
    }
}

/// A message larger than any record and any pipe goes there and back, and no buffer keeps it.
#[tokio::test]
async fn all_bytes_arrive_in_whatever_pieces() {
    let data: Vec<u8> = (0..200_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    for pipe_bytes in [1, 7, 4096, 1 << 20] {
        let data = &data[..data.len().min(pipe_bytes * 2000)];
        let (mut server, mut client) = connect(pipe_bytes).await;
        let echo = async {
            let mut received = vec![0; data.len()];
            server.read_exact(&mut received).await.unwrap();
            server.write_all(&received).await.unwrap();
            server.flush().await.unwrap();
            server
        };
        let (mut from, mut to) = tokio::io::split(&mut client);
        let sending = async {
            to.write_all(data).await.unwrap();
            to.flush().await.unwrap();
        };
        let mut echoed = vec![0; data.len()];
        let (server, (), read) = tokio::join!(echo, sending, from.read_exact(&mut echoed));
        read.unwrap();
        assert!(echoed == data, "pipe of {pipe_bytes}");
        assert_eq!(server.holds_bytes(), 0, "pipe of {pipe_bytes}");
    }
}

/// Part of a record is kept, and given back with it.
#[tokio::test]
async fn a_connection_that_waits_holds_nothing() {
    let (mut server, mut client) = connect(1 << 16).await;
    assert_eq!(server.holds_bytes(), 0);
    client.write_all(b"21.5").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.fill_buf().await.unwrap(), b"21.5");
    assert!(server.holds_bytes() > 0);
    server.consume(4);
    assert_eq!(server.holds_bytes(), 0);
}

/// New keys are taken, and the client's wish for the server's is granted with the next answer.
#[tokio::test]
async fn keys_are_updated() {
    let (mut server, mut client) = connect(1 << 16).await;
    for reading in [b"1", b"2", b"3"] {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(reading).await.unwrap();
        client.flush().await.unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).await.unwrap();
        server.write_all(&byte).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, reading);
    }
}

/// A client that says goodbye is at its end, one that is cut off is an error, and both ends close
/// in their turn.
#[tokio::test]
async fn an_end_is_told_from_a_cut() {
    let (mut server, mut client) = connect(1 << 16).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(server.fill_buf().await.unwrap(), b"");
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut last = String::new();
    client.read_to_string(&mut last).await.unwrap();
    assert_eq!(last, "bye");

    let (mut server, client) = connect(1 << 16).await;
    drop(client);
    assert_eq!(
        server.read(&mut [0]).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

/// A client that does not speak TLS gets an alert, and the error says what it sent.
#[tokio::test]
async fn a_broken_record_ends_in_an_alert() {
    let (mut server, mut client) = connect(1 << 16).await;
    // The header of a record that is larger than any.
    client
        .get_mut()
        .0
        .write_all(b"\x17\x03\x03\xff\xff")
        .await
        .unwrap();
    let error = server.read(&mut [0]).await.unwrap_err();
    assert!(error.get_ref().unwrap().is::<rustls::Error>(), "{error}");
    let error = client.read(&mut [0]).await.unwrap_err();
    assert!(
        error.to_string().contains("received fatal alert"),
        "{error}"
    );
    assert!(server.write_all(b"x").await.is_err());

    let (server, _) = configs();
    let (here, mut there) = duplex(1 << 16);
    there.write_all(b"no hello at all\r\n").await.unwrap();
    let (error, _) = TlsStream::accept(here, server, Buffers::default(), || ())
        .await
        .err()
        .unwrap();
    assert!(error.get_ref().unwrap().is::<rustls::Error>(), "{error}");
    let mut alert = [0; 7];
    there.read_exact(&mut alert).await.unwrap();
    assert_eq!(alert[0], 21, "the type of an alert");
}

/// The first record that a client writes with these keys (RFC 8446 section 5.2).
fn first_record(secrets: rustls::ExtractedSecrets, content: &[u8]) -> Vec<u8> {
    let (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
        panic!("another cipher suite")
    };
    assert_eq!(sequence, 0);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
    let (mut sealed, tag_bytes) = (content.to_vec(), AES_256_GCM.tag_len());
    let header = [0x17, 3, 3, 0, (content.len() + tag_bytes) as u8];
    let nonce = Nonce::try_assume_unique_for_key(iv.as_ref()).unwrap();
    key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed)
        .unwrap();
    [&header[..], &sealed].concat()
}

/// Half of a handshake message, after the handshake: rustls holds its place in bytes that it must
/// be shown again.
#[tokio::test]
async fn a_message_under_way_does_not_hinder_an_answer() {
    let (mut server, client) = connect(1 << 16).await;
    let (mut pipe, tls) = client.into_inner();
    const KEY_UPDATE_BEGINS: &[u8] = &[24, 0, 22];
    pipe.write_all(&first_record(
        tls.dangerous_extract_secrets().unwrap(),
        KEY_UPDATE_BEGINS,
    ))
    .await
    .unwrap();
    assert!(server.read(&mut [0]).now_or_never().is_none());
    assert!(!server.partial.is_empty());
    server.write_all(b"204").await.unwrap();
    server.shutdown().await.unwrap();
    drop(pipe);
    assert_eq!(
        server.read(&mut [0]).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

/// A hello that says it has 60,000 bytes, of which each comes in a record of its own.
#[tokio::test]
async fn a_message_without_end_is_given_up() {
    const PIPE_BYTES: usize = 1024;
    let (server, _) = configs();
    let (here, mut there) = duplex(PIPE_BYTES);
    let sending = async {
        there
            .write_all(b"\x16\x03\x01\x00\x04\x01\x00\xea\x60")
            .await
            .unwrap();
        let mut sent_bytes = 0;
        while there.write_all(b"\x16\x03\x01\x00\x01\x00").await.is_ok() {
            sent_bytes += 6;
        }
        sent_bytes
    };
    let accepting = async {
        TlsStream::accept(here, server, Buffers::default(), || ())
            .await
            .err()
            .unwrap()
            .0
    };
    let (error, sent_bytes) = tokio::join!(accepting, sending);
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    // The pipe holds bytes that were sent, but not taken.
    assert!(
        sent_bytes < HELLO_BYTES_MAX + PIPE_BYTES,
        "{error} after {sent_bytes}"
    );
}

/// A client whose protocols are none of the server's: in TLS 1.3 the alert stands behind the
/// server's hello, also where the pipe has no room for both.
#[tokio::test]
async fn an_alert_behind_other_messages_arrives() {
    let (server, client) = configs();
    let mut server = Arc::unwrap_or_clone(server);
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = Arc::unwrap_or_clone(client);
    client.alpn_protocols = vec![b"mqtt".to_vec()];
    let (server, client) = (Arc::new(server), Arc::new(client));
    for pipe_bytes in [7, 1 << 16] {
        let (here, there) = duplex(pipe_bytes);
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(client.clone()).connect(name, there);
        let accepting = TlsStream::accept(here, server.clone(), Buffers::default(), || ());
        let (accepted, connected) = tokio::join!(accepting, connecting);
        assert!(accepted.is_err());
        let error = connected.unwrap_err().to_string();
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    }
}
