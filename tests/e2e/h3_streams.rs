//! The gateway lets go of an HTTP/3 stream that is not over with a code that says why (RFC 9114
//! section 4.1).

use crate::harness::pour::{Fate, Pour, frame_header};
use crate::harness::{Ask, Client, Protocol, Setup};

const DATA: u64 = 0;

const NO_ERROR: u64 = 0x100;

/// Bytes that are read of a body that has been refused.
const DISCARDED_BYTES_MAX: usize = 1 << 20;

/// A client that is refused in the middle of a DATA frame and then falls silent, and one that goes
/// on to the bound of what is read: either way the gateway waits for more, with part of the frame
/// at hand, when it decides to stop.
#[test]
fn stopping_in_the_middle_of_a_refused_body_is_no_error() {
    let gateway = Setup::new()
        .without_limits()
        .set("FOREBAY_BODY_BYTES_MAX", "64KiB")
        .start();
    let device = gateway.device("plc-1");
    let client = Client::open(Protocol::H3, &gateway, &device);
    let streams = [10, DISCARDED_BYTES_MAX].map(|sent_bytes| {
        let mut bytes = frame_header(DATA, 2 * DISCARDED_BYTES_MAX as u64);
        bytes.resize(bytes.len() + sent_bytes, b'x');
        Pour::after(Ask::post("").to("/none").declaring(2 * DISCARDED_BYTES_MAX))
            .bytes(bytes)
            .to(&client)
    });
    for stream in streams {
        let refused = Fate {
            status: Some(404),
            stopped: Some(NO_ERROR),
            reset: None,
            closed: None,
        };
        assert_eq!(stream.fate(), refused);
    }
    assert_eq!(client.send(&Ask::post("1")).status, 204);
}

/// Such a client sends no body before it is asked to, and none when it is refused.
#[test]
fn who_expects_100_continue_is_asked_to_go_on() {
    let gateway = Setup::new().start();
    let client = Client::open(Protocol::H3, &gateway, &gateway.device("plc-1"));
    let ask = Ask::post("1").with("expect", "100-continue");
    assert_eq!(client.send(&ask).status, 204);
    let refused = client.send(&ask.clone().to("/none"));
    assert_eq!(refused.status, 404);
    assert_eq!(client.send(&ask).status, 204);
    assert_eq!(gateway.files("telemetry").len(), 2);
}
