//! Requests that their client gives up while their readings are on their way.

#[allow(dead_code)] // the benches have use for all of it
#[path = "../benches/support/service.rs"]
mod support;

use bytes::Bytes;
use forebay::internals::admission::RECORD_OVERHEAD_BYTES;
use forebay::internals::words::Protocol;
use h2::Reason;
use support::{Tells, connect, runtime, service};
use tokio::task::{LocalSet, spawn_local, yield_now};

const REQUESTS: usize = 1000;

/// As in `http::h2`.
const REQUESTS_MAX: usize = 256;

/// A stream that has been reset counts no more among those that a client may have open. Here the sink never answers: what
/// was taken in waits, and no more of it than may.
#[test]
fn a_client_that_gives_up_begins_no_more_than_another() {
    let (runtime, idle) = runtime(false);
    let taken = LocalSet::new().block_on(&runtime, async {
        let (service, _never_delivers) = service(Tells::Nothing, idle);
        let (mut client, connection) = h2::client::handshake(connect(&service, 0, Protocol::H2))
            .await
            .unwrap();
        spawn_local(connection);
        for _ in 0..REQUESTS {
            let Ok(ready) = client.ready().await else {
                break;
            };
            client = ready;
            let request = http::Request::post("https://localhost/v1/telemetry")
                .body(())
                .unwrap();
            let Ok((answer, mut body)) = client.send_request(request, false) else {
                break;
            };
            let _ = body.send_data(Bytes::from_static(b"1"), true);
            for _ in 0..5 {
                yield_now().await;
            }
            body.send_reset(Reason::CANCEL);
            drop(answer);
        }
        service.ingest.gate.admission.reserved_bytes() / (1 + RECORD_OVERHEAD_BYTES)
    });
    assert_eq!(taken, REQUESTS_MAX);
}
