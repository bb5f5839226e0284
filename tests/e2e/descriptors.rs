//! Descriptors run out: accepting pauses, and goes on when there are some again; those who are connected notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually, within};

const FILES: usize = 256;
const CLIENTS: usize = 1000;

/// Of 256 files three quarters are for connections; each worker holds the place of one that it waits for.
const CONNECTIONS_MAX: usize = 192;

fn gateway() -> Gateway {
    let setup = Setup::new()
        .without_limits()
        .set("FOREBAY_CONNECTIONS_MAX", 100_000);
    setup.open_files(FILES).start()
}

/// Connects, posts, and stays until told to leave.
async fn visit(
    gateway: &Gateway,
    tls: Arc<rustls::ClientConfig>,
    answered: &AtomicUsize,
    mut leave: watch::Receiver<bool>,
) {
    let post = b"POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1";
    let mut raw = Raw::open(gateway.address, tls)
        .await
        .expect("it is accepted in the end");
    raw.send(post).await.expect("it listens");
    assert!(raw.receive().await.starts_with(b"HTTP/1.1 204 "));
    answered.fetch_add(1, Ordering::SeqCst);
    leave
        .wait_for(|leave| *leave)
        .await
        .expect("the test goes on");
}

#[test]
fn a_thousand_clients_share_256_descriptors() {
    let gateway = gateway();
    let (good, quic) = (gateway.device("good"), gateway.device("quic"));
    let before =
        [Protocol::H1, Protocol::H2].map(|protocol| Client::open(protocol, &gateway, &good));
    let (leaving, leave) = watch::channel(false);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let tls = tls(&gateway, Some(&gateway.device("crowd")), "http/1.1");
            let visits =
                (0..CLIENTS).map(|_| visit(&gateway, tls.clone(), &answered, leave.clone()));
            block_on(futures_util::future::join_all(visits));
        });
        let is_served = || {
            before
                .iter()
                .for_each(|client| assert_eq!(client.send(&Ask::post("1")).status, 204))
        };
        eventually("a full gateway", || {
            answered.load(Ordering::SeqCst) >= CONNECTIONS_MAX - 10
        });
        // Nobody leaves: nobody else gets in, and that costs no processor time.
        let (count, used) = (answered.load(Ordering::SeqCst), gateway.processor_time());
        let one_more = within(std::time::Duration::from_secs(2), || {
            answered.load(Ordering::SeqCst) > CONNECTIONS_MAX
        });
        let used = gateway.processor_time() - used;
        assert!(!one_more, "{count} and more");
        assert!(
            used < 100,
            "accepting spins: {used} hundredths of a second of two seconds"
        );
        is_served();
        // QUIC needs none.
        assert_eq!(
            Client::open(Protocol::H3, &gateway, &quic)
                .send(&Ask::post("1"))
                .status,
            204
        );
        leaving.send_replace(true);
        crowd.join().expect("everybody is answered");
        is_served();
    });
    assert_eq!(answered.load(Ordering::SeqCst), CLIENTS);
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    assert_eq!(gateway.files("telemetry").len(), CLIENTS + 5);
}

/// The bound on all connections may be above the limit of files: QUIC has the rest.
#[test]
fn quic_connections_are_not_bounded_by_descriptors() {
    const DEVICES: usize = 300;
    let setup = Setup::new()
        .without_limits()
        .set("FOREBAY_CONNECTIONS_MAX", 100_000);
    let gateway = setup.open_files(FILES).start();
    let device = gateway.device("plc-1");
    let clients: Vec<_> = (0..DEVICES)
        .map(|_| Client::open(Protocol::H3, &gateway, &device))
        .collect();
    let sent: Vec<_> = clients
        .iter()
        .map(|client| client.begin(&Ask::post("1")))
        .collect();
    sent.into_iter()
        .for_each(|sent| assert_eq!(sent.wait().expect("an answer").status, 204));
    assert_eq!(
        gateway.metric("forebay_http_connections{protocol=\"h3\"}"),
        DEVICES as f64
    );
}
