//! The floods of `attacks_h2`, against hyper's HTTP/2 server as it is by its defaults: it shows why there is a bound beside
//! them. `cargo test --test e2e elsewhere -- --ignored --nocapture` prints how much of each flood a connection takes.
//! (nginx is asked by `tests/elsewhere/nginx.py`.)

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::raw::{Raw, block_on, frame, tls};
use crate::harness::{Gateway, Setup};
use crate::pki::Identity;

const FLOOD_BYTES: usize = 64 << 20;

/// hyper with the certificate of the gateway beside it; answers 204 to everything. Ends with the process.
fn hyper(server: &Identity) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_file(&server.cert).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(&server.key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key that fits");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let answer = service_fn(async |_| {
                    Ok::<_, Infallible>(
                        http::Response::builder()
                            .status(204)
                            .body(Empty::<Bytes>::new())
                            .expect("parts"),
                    )
                });
                // The attacker sees how it ends.
                let _ = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            }
        });
    });
    address
}

/// Counts the bytes of these frames that one connection takes before it is ended.
fn taken(to: SocketAddr, gateway: &Gateway, frames: &[u8]) -> usize {
    block_on(async {
        let attacker = tls(gateway, Some(&gateway.device("attacker")), "h2");
        let mut raw = Raw::open(to, attacker).await.expect("h2");
        raw.send(&frame::preface()).await.expect("it listens");
        raw.pour(frames, FLOOD_BYTES).await
    })
}

#[test]
#[ignore = "not about the gateway"]
fn floods_that_have_no_end() {
    let gateway = Setup::new().start();
    let hyper = hyper(&gateway.pki.server);
    let settings = frame::frame(frame::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let unknown = frame::frame(0x77, 0, 0, b"unknown");
    let window = frame::frame(frame::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    let ping = frame::frame(frame::PING, 0, 0, b"forebay?");
    println!("| flood of | hyper's defaults | Forebay |\n|---|---|---|");
    for (name, frames) in [
        ("PING", ping),
        ("SETTINGS", settings),
        ("WINDOW_UPDATE", window),
        ("unknown frames", unknown),
    ] {
        let [elsewhere, here] = [hyper, gateway.address].map(|to| taken(to, &gateway, &frames));
        let told = |bytes: usize| {
            let end = if bytes < FLOOD_BYTES {
                "then it ends"
            } else {
                "and it goes on"
            };
            format!("{} MiB, {end}", bytes >> 20)
        };
        println!("| {name} | {} | {} |", told(elsewhere), told(here));
    }
}
