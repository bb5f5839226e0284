//! The admin address: whoever asks is answered, whoever else holds a connection to it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::harness::{Gateway, Setup};

/// More than there are places, so that none is left for the probe.
const IDLE: usize = 200;

/// A connection that says so much and no more.
fn dawdler(gateway: &Gateway, says: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.admin).expect("it accepts");
    stream.write_all(says.as_bytes()).expect("it listens");
    stream
}

/// Clients that connect and say nothing, or never finish, as a liveness probe would meet them: it is answered at once,
/// in the place of the one that has waited longest.
#[test]
fn idle_clients_do_not_stop_the_probes() {
    let gateway = Setup::new().start();
    for says in ["", "GET /livez HTTP/1.1\r\n"] {
        let mut idle: Vec<_> = (0..IDLE).map(|_| dawdler(&gateway, says)).collect();
        assert_eq!(gateway.admin("/livez").0, 200);
        let last = idle.last_mut().expect("idle clients");
        last.set_nonblocking(true).expect("a socket");
        let waits = last.read(&mut [0]).expect_err("it has its place");
        assert_eq!(
            waits.kind(),
            ErrorKind::WouldBlock,
            "no time-out was waited for"
        );
        let ended = idle[0].read_to_end(&mut Vec::new());
        assert!(matches!(ended, Ok(0)), "the first has gone: {ended:?}");
        for path in ["/servez", "/readyz", "/metrics"] {
            assert_eq!(gateway.admin(path).0, 200, "{path}");
        }
    }
}
