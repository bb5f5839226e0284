//! QUIC before an address is validated: nobody is made to flood another by it, and it does not flood the gateway. That a
//! body survives a change of address in its middle is in `quic.rs`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Gateway, Setup, Siege, eventually};
use crate::tools::tools;

/// Bytes of a datagram before path MTU discovery has found more (RFC 9000 section 14.1).
const DATAGRAM_BYTES: u64 = 1200;

/// So many clients send their first packet, and never another one.
pub fn send_first_packets(gateway: &Gateway, clients: usize) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/attack_quic.py");
    let output = Command::new(tools().join("venv/bin/python"))
        .arg(script)
        .args([gateway.address.port().to_string(), clients.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("make tools");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn handshakes(siege: &Siege, result: &str) -> f64 {
    siege.gateway.metric(&format!(
        "forebay_tls_handshakes_total{{result=\"{result}\"}}"
    ))
}

/// RFC 9000 section 8.1: three times what has been received. quinn lets the datagram that crosses this limit go whole
/// (<https://github.com/quinn-rs/quinn/issues/1082>): one more, and never another.
#[test]
fn a_first_packet_is_amplified_three_times_at_most() {
    let siege = Siege::begin(Setup::new().set("FOREBAY_HANDSHAKE_TIMEOUT", "4s"));
    let most = send_first_packets(&siege.gateway, 8);
    let (sent, received) = (
        most["sent"].as_u64().expect("bytes"),
        most["received"].as_u64().expect("bytes"),
    );
    assert!(
        sent >= 1200 && received > 0 && received <= 3 * sent + DATAGRAM_BYTES,
        "{received} bytes for {sent}"
    );
    eventually("an end of each", || {
        handshakes(&siege, "timeout") + handshakes(&siege, "io") >= 8.0
    });
    siege.end();
}

/// With many unvalidated ones under way, a newcomer is told to come back with a token, which costs no state; honest
/// clients do.
#[test]
fn many_unvalidated_addresses_are_told_to_retry() {
    const CLIENTS: usize = 400;
    const UNVALIDATED_MAX: usize = 64;
    let siege = Siege::begin(Setup::new().set("FOREBAY_HANDSHAKE_TIMEOUT", "5s"));
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| send_first_packets(&siege.gateway, CLIENTS));
        eventually("retries", || handshakes(&siege, "retry") > 0.0);
        siege.good_device_can_connect();
        siege.good_device_is_served();
        let answer = attack.join().expect("the attack");
        let retries = answer["retries"].as_u64().expect("a number");
        // A place that a handshake has left is taken by another one.
        let least = CLIENTS - 4 * UNVALIDATED_MAX;
        assert!(retries > least as u64, "{answer}");
    });
    siege.end();
}
