//! The end of a gateway on HTTP/3: while it drains it waits for requests in flight and for no silent
//! client, it makes way for the next gateway, and when it is killed the next one tells its devices.

use crate::attacks_quic::send_first_packets;
use crate::harness::pour::{Pour, frame_header};
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;

/// Far beyond what the drain may take, so that nothing ends by it.
const LONG: &str = "4m";
const DRAIN_TIMEOUT: &str = "20s";

fn open(gateway: &Gateway, device: &str) -> Client {
    Client::open(Protocol::H3, gateway, &gateway.device(device))
}

/// None of them says goodbye: idle ones, one in the middle of a head, one in the middle of a
/// refused body, and some that never got beyond their first packet.
#[test]
fn clients_that_are_gone_do_not_hold_up_the_drain() {
    let mut gateway = Setup::new()
        .without_limits()
        .set("FOREBAY_WORKERS", 1)
        .set("FOREBAY_HANDSHAKE_TIMEOUT", LONG)
        .set("FOREBAY_HEADER_TIMEOUT", LONG)
        .set("FOREBAY_DRAIN_TIMEOUT", DRAIN_TIMEOUT)
        .start();
    let clients: Vec<Client> = (0..8)
        .map(|n| open(&gateway, &format!("plc-{n}")))
        .collect();
    for client in &clients {
        assert_eq!(client.send(&Ask::post("1")).status, 204);
    }
    let half_a_head = Pour::on_request().bytes(frame_header(HEADERS, 100));
    let half_a_body =
        Pour::after(Ask::post("").to("/none").declaring(100)).bytes(frame_header(DATA, 100));
    let pending = (half_a_head.to(&clients[0]), half_a_body.to(&clients[1]));
    eventually("the refusal", || {
        gateway.metric("forebay_http_requests_total{protocol=\"h3\",status=\"404\"}") == 1.0
    });
    clients.iter().for_each(Client::vanish);
    std::thread::scope(|scope| {
        let first_packets = scope.spawn(|| send_first_packets(&gateway, 400));
        eventually("handshakes that wait", || {
            gateway.metric("forebay_tls_handshakes_total{result=\"retry\"}") > 0.0
        });
        gateway.terminate();
        first_packets.join().expect("they were sent");
    });
    assert_eq!(gateway.exit_code(), 0);
    assert!(!gateway.log().contains("the drain deadline has passed"));
    drop(pending);
}

/// An answer that is under way on TCP keeps the old gateway alive, but not in the way of HTTP/3.
#[test]
fn new_devices_reach_the_next_gateway_while_the_old_one_drains() {
    let mut old = Setup::new()
        .without_limits()
        .set("FOREBAY_REUSE_PORT", "true")
        .set("FOREBAY_BODY_RATE_MIN", 0)
        .set("FOREBAY_BODY_TIMEOUT", LONG)
        .set("FOREBAY_DRAIN_TIMEOUT", LONG)
        .start();
    let idle = open(&old, "plc-1");
    assert_eq!(idle.send(&Ask::post("1")).status, 204);
    let busy = Client::open(Protocol::H2, &old, &old.device("plc-2"));
    let held = busy.hold(&Ask::post("be").declaring(6));
    eventually("the request", || {
        old.metric("forebay_admission_bytes") == 1030.0
    });
    let new = old.beside();
    let data = new.path("data");
    let new = new.set("FOREBAY_FILE_DIR", data.display()).start();
    old.terminate();
    idle.closed();
    for n in 0..4 {
        assert_eq!(
            open(&new, &format!("new-{n}")).send(&Ask::post("2")).status,
            204
        );
    }
    assert_eq!(new.files("telemetry").len(), 4);
    held.release(b"long");
    assert_eq!(held.wait().expect("an answer").status, 204);
    assert_eq!(old.exit_code(), 0);
}

/// RFC 9000 section 10.3: by a key that the next process has too.
#[test]
fn who_was_connected_to_a_gateway_that_was_killed_is_told_so() {
    let gateway = Setup::new().set("FOREBAY_REUSE_PORT", "true").start();
    let clients: Vec<Client> = (0..4)
        .map(|n| open(&gateway, &format!("plc-{n}")))
        .collect();
    for client in &clients {
        assert_eq!(client.send(&Ask::post("1")).status, 204);
    }
    let address = gateway.address;
    let gateway = gateway.kill().set("FOREBAY_LISTEN", address).start();
    for client in &clients {
        let lost = client.begin(&Ask::post("2"));
        assert_eq!(client.closed(), "stateless reset");
        assert!(lost.wait().is_err());
        drop(open(&gateway, "plc-1"));
    }
}
