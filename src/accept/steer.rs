//! QUIC packets find the worker that owns their connection.
//!
//! The workers' UDP sockets share one port by SO_REUSEPORT. The kernel would pick a socket by the
//! addresses of a packet, and so lose a connection whose address changes. Instead a classic BPF
//! program picks it by the first byte of the packet's destination connection id, which each worker
//! chooses for its own connections: byte 1 of a short header, byte 6 of a long one (RFC 9000
//! section 17.2, RFC 8999 section 5). A client's first packet carries an id of its own choosing, so
//! it reaches any one worker, and the retransmissions of it the same.

#![allow(unsafe_code)] // one setsockopt that no crate offers

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};

use crate::config::host;

/// Workers that one byte can tell apart.
const WORKERS_MAX: usize = 1 << u8::BITS;

const _: () = assert!(
    host::WORKERS_MAX <= WORKERS_MAX,
    "each has an id of its own"
);

/// Length of a connection id, in bytes: one for the worker, the rest random.
const ID_BYTES: usize = 8;

/// Makes connection ids whose first byte is the worker's index modulo the number of workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerConnectionIds {
    worker: u8,
    workers: u16,
}

impl WorkerConnectionIds {
    /// `worker` is less than `workers`, which is at most [`WORKERS_MAX`].
    pub(crate) fn new(worker: usize, workers: usize) -> Self {
        assert!(worker < workers && workers <= WORKERS_MAX);
        Self {
            worker: worker as u8,
            workers: workers as u16,
        }
    }

    /// The largest number that is at most `random` and leads to this worker; past 255, the worker's
    /// own index.
    fn lead(self, random: u8) -> u8 {
        let lead = u16::from(random) / self.workers * self.workers + u16::from(self.worker);
        let lead = u8::try_from(lead).unwrap_or(self.worker);
        debug_assert_eq!(u16::from(lead) % self.workers, u16::from(self.worker));
        lead
    }
}

impl ConnectionIdGenerator for WorkerConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let random = uuid::Uuid::new_v4();
        // Bytes 8 and on of a v4 UUID hold two fixed bits, the first six bytes none.
        let mut id = [0; ID_BYTES];
        id[..6].copy_from_slice(&random.as_bytes()[..6]);
        id[6..].copy_from_slice(&random.as_bytes()[14..]);
        id[0] = self.lead(id[0]);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Steers the packets of all sockets that share `socket`'s port. The sockets were bound in their
/// workers' order.
pub(crate) fn steer_to_workers(socket: &UdpSocket, workers: usize) -> io::Result<()> {
    assert!(
        (1..=WORKERS_MAX).contains(&workers),
        "the program divides by it"
    );
    let mut program = program(workers as u32);
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option takes a sock_fprog of this size; the kernel copies the program before the
    // call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The place of the socket that a packet is for; its bytes start at the UDP payload.
fn program(workers: u32) -> [libc::sock_filter; 7] {
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    [
        op(LOAD_BYTE, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0x80, 0, 2),
        op(LOAD_BYTE, 6, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JA, 1, 0, 0),
        op(LOAD_BYTE, 1, 0, 0),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers, 0, 0),
        op(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_leads_to_its_worker() {
        for workers in [1, 2, 3, 7, 100, 255, 256] {
            for worker in 0..workers {
                let ids = WorkerConnectionIds::new(worker, workers);
                for random in 0..=255 {
                    assert_eq!(
                        usize::from(ids.lead(random)) % workers,
                        worker,
                        "{workers} workers, byte {random}"
                    );
                }
            }
        }
    }

    #[test]
    fn ids_are_random() {
        let mut ids = WorkerConnectionIds::new(1, 3);
        assert_ne!(ids.generate_cid(), ids.generate_cid());
    }
}
