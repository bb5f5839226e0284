//! The attacks that come by QUIC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, VarInt};
use tokio::time::timeout;

use super::measure;
use crate::harness::raw::{ATTACKER, tls};
use crate::harness::{Gateway, PATIENCE};

const HEADERS: u8 = 0x1;
const UNKNOWN: u8 = 0x21;

/// RFC 9114 section 8.1.
const REQUEST_CANCELLED: VarInt = VarInt::from_u32(0x10c);

pub fn measure_all() {
    measure("QUIC: handshakes without a certificate", async |gateway| {
        let Some(nobody) = connect(gateway, None, PATIENCE).await else {
            return;
        };
        nobody.closed().await;
    });
    measure("QUIC: first packets and no more", async |gateway| {
        connect(gateway, None, Duration::ZERO).await;
    });
    measure("HTTP/3: requests given up", async |gateway| {
        let Some(attacker) = connect(gateway, Some("attacker"), PATIENCE).await else {
            return;
        };
        while let Ok((mut send, _)) = attacker.open_bi().await {
            let _ = send.write_all(&[HEADERS, 32, 0, 0]).await;
            let _ = send.reset(REQUEST_CANCELLED);
        }
    });
    for (name, kind) in [
        ("HTTP/3: endless HEADERS", HEADERS),
        ("HTTP/3: endless unknown frames", UNKNOWN),
    ] {
        measure(name, async |gateway| {
            let Some(attacker) = connect(gateway, Some("attacker"), PATIENCE).await else {
                return;
            };
            while let Ok((mut send, _)) = attacker.open_bi().await {
                // A length of eight bytes: 2^40.
                let _ = send.write_all(&[kind, 0xc0, 0, 1, 0, 0, 0, 0, 0]).await;
                while send.write_all(&[0; 65_536]).await.is_ok() {}
                if attacker.stats().frame_tx.stream > 100_000 {
                    break;
                }
            }
        });
    }
    measure("HTTP/3: empty unknown frames", async |gateway| {
        let Some(attacker) = connect(gateway, Some("attacker"), PATIENCE).await else {
            return;
        };
        for _ in 0..1000 {
            let Ok((mut send, _)) = attacker.open_bi().await else {
                return;
            };
            while send.write_all(&[UNKNOWN, 0].repeat(1000)).await.is_ok() {}
        }
    });
    measure("HTTP/3: streams of one direction", async |gateway| {
        let Some(attacker) = connect(gateway, Some("attacker"), PATIENCE).await else {
            return;
        };
        while let Ok(mut send) = attacker.open_uni().await {
            let _ = send.write_all(&[UNKNOWN]).await;
            let _ = send.finish();
        }
    });
}

/// A connection from the attacker's address, if there is one in time.
async fn connect(gateway: &Gateway, device: Option<&str>, within: Duration) -> Option<Connection> {
    let device = device.map(|device| gateway.device(device));
    let config = QuicClientConfig::try_from(tls(gateway, device.as_ref(), "h3")).expect("TLS 1.3");
    let mut endpoint = Endpoint::client(SocketAddr::new(ATTACKER, 0)).expect("a socket");
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(config)));
    let connecting = endpoint
        .connect(gateway.address, "localhost")
        .expect("an address");
    timeout(within, connecting).await.ok()?.ok()
}
