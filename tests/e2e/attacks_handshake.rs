//! Attacks before anybody is known: floods of handshakes, handshakes that do not go on, and handshakes in pieces.

use std::future::Future;
use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::raw::{Raw, block_on, connect, server_name, tls};
use crate::harness::{PATIENCE, Setup, Siege, eventually};

fn handshakes(siege: &Siege, result: &str) -> f64 {
    siege.gateway.metric(&format!(
        "forebay_tls_handshakes_total{{result=\"{result}\"}}"
    ))
}

/// Waits for the end, however the gateway makes it.
async fn ends(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    let reading = async { while matches!(stream.read(&mut bytes).await, Ok(1..)) {} };
    timeout(PATIENCE, reading)
        .await
        .expect("the gateway ends the connection");
}

/// The first message of a handshake, as it is sent.
pub fn client_hello(tls: Arc<ClientConfig>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut connection = ClientConnection::new(tls, server_name()).expect("a client");
    connection.write_tls(&mut bytes).expect("memory");
    bytes
}

/// Without a certificate, or without even TLS: 40 at a time, a thousand in all.
#[test]
fn a_flood_of_handshakes_is_refused() {
    const EACH: usize = 500;
    const AT_ONCE: usize = 40;
    let siege = Siege::begin(Setup::new());
    let (to, nobody) = (siege.gateway.address, tls(&siege.gateway, None, "h2"));
    let flood = || async {
        for _ in 0..EACH / AT_ONCE {
            let mut attackers = JoinSet::new();
            for _ in 0..AT_ONCE {
                let nobody = nobody.clone();
                attackers.spawn(async move {
                    // In TLS 1.3 the client believes that it is through, until it reads.
                    if let Ok(mut raw) = Raw::open(to, nobody).await {
                        assert!(raw.receive().await.is_empty(), "nobody is let in");
                    }
                });
                attackers.spawn(async move {
                    let mut stream = connect(to).await.expect("it listens");
                    let _ = stream
                        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                        .await;
                    ends(stream).await;
                });
            }
            while let Some(attacker) = attackers.join_next().await {
                attacker.expect("an end");
            }
        }
    };
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| block_on(flood()));
        siege.good_device_is_served();
        siege.good_device_can_connect();
        attack.join().expect("all of them end");
    });
    let each = (EACH / AT_ONCE * AT_ONCE) as f64;
    eventually("all counted", || {
        handshakes(&siege, "no_certificate") == each && handshakes(&siege, "plain_http") == each
    });
    siege.end();
}

/// Connections that say nothing, or only the beginning, have the handshake time-out, and an address has half of the places:
/// the other half is there for those who mean it.
#[test]
fn slow_handshakes_take_the_places_of_their_own_address_only() {
    const SLOW: usize = 300;
    let setup = Setup::new()
        .set("FOREBAY_HANDSHAKES_MAX", 200)
        .set("FOREBAY_HANDSHAKE_TIMEOUT", "4s");
    let siege = Siege::begin(setup);
    let to = siege.gateway.address;
    let hello = client_hello(tls(&siege.gateway, None, "h2"));
    let slow = async {
        let mut streams = Vec::new();
        for number in 0..SLOW {
            // A connection that is turned away at once may be gone before it has said anything.
            let Ok(mut stream) = connect(to).await else {
                continue;
            };
            let _ = stream.write_all(&hello[..number % 3 * 20]).await;
            streams.push(stream);
        }
        let mut ending = JoinSet::new();
        streams
            .into_iter()
            .for_each(|stream| drop(ending.spawn(ends(stream))));
        while let Some(ended) = ending.join_next().await {
            ended.expect("an end");
        }
    };
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| block_on(slow));
        eventually("an address that has its share", || {
            handshakes(&siege, "address_full") > 0.0
        });
        siege.good_device_can_connect();
        siege.good_device_is_served();
        attack.join().expect("all of them end");
    });
    eventually("all of them are counted", || {
        handshakes(&siege, "address_full")
            + handshakes(&siege, "timeout")
            + handshakes(&siege, "io")
            >= SLOW as f64
    });
    assert!(handshakes(&siege, "timeout") > 0.0);
    siege.end();
}

/// The hello in records of one byte each, and in packets of one byte: an honest, if odd, client gets in, and one that stops
/// is ended by the handshake time-out.
#[test]
fn a_hello_in_pieces_of_one_byte_is_a_hello() {
    let siege = Siege::begin(Setup::new().set("FOREBAY_HANDSHAKE_TIMEOUT", "3s"));
    let hello = client_hello(tls(&siege.gateway, None, "h2"));
    let to = siege.gateway.address;
    // A record has a head of five bytes: kind, version, length (RFC 8446 section 5.1).
    let (head, message) = hello.split_at(5);
    let records: Vec<u8> = message
        .iter()
        .flat_map(|byte| [head[0], head[1], head[2], 0, 1, *byte])
        .collect();
    let send = async |bytes: &[u8]| -> io::Result<Vec<u8>> {
        let mut stream = connect(to).await?;
        for byte in bytes {
            stream.write_all(std::slice::from_ref(byte)).await?;
        }
        let mut answer = vec![0; 5];
        timeout(PATIENCE, stream.read_exact(&mut answer))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        // It never goes on.
        ends(stream).await;
        Ok(answer)
    };
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            block_on(async {
                for bytes in [&hello, &records] {
                    let answer = send(bytes).await.expect("an answer");
                    const HANDSHAKE: u8 = 22;
                    const ALERT: u8 = 21;
                    assert!([HANDSHAKE, ALERT].contains(&answer[0]), "{answer:?}");
                }
                let stopped = &records[..records.len() / 2];
                let mut stream = connect(to).await.expect("it listens");
                stream.write_all(stopped).await.expect("it listens");
                ends(stream).await;
            });
        });
        siege.good_device_is_served();
        attack.join().expect("all of them end");
    });
    siege.end();
}

/// One address cannot have all connections.
#[test]
fn an_address_has_so_many_connections() {
    let setup = Setup::new().set("FOREBAY_ADDRESS_CONNECTIONS_MAX", 20);
    let siege = Siege::begin(setup);
    let attacker = tls(
        &siege.gateway,
        Some(&siege.gateway.device("attacker")),
        "http/1.1",
    );
    let to = siege.gateway.address;
    let mut held = block_on_kept(async move {
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(
                Raw::open(to, attacker.clone())
                    .await
                    .expect("there is room"),
            );
        }
        let one_more = match Raw::open(to, attacker.clone()).await {
            Ok(mut raw) => raw.receive().await.is_empty(),
            Err(_) => true,
        };
        assert!(one_more, "the address has too many");
        (held, attacker)
    });
    siege.good_device_can_connect();
    assert!(handshakes(&siege, "address_full") >= 1.0);
    // A connection that ends makes room.
    let (runtime, (connections, attacker)) = &mut held;
    connections.clear();
    eventually("room", || {
        runtime.block_on(async { Raw::open(to, attacker.clone()).await.is_ok() })
    });
    siege.end();
}

/// A result whose connections live as long as the runtime that is kept with it.
fn block_on_kept<T>(future: impl Future<Output = T>) -> (tokio::runtime::Runtime, T) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let value = runtime.block_on(future);
    (runtime, value)
}
