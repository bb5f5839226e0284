//! How many connections and handshakes there may be, in all, from one source address, and of one device.
//!
//! All workers share one [`Capacity`]. TCP waits for its permits before it accepts any further, so that the process never
//! runs out of file descriptors: what is too much waits in the kernel's queue, and existing connections notice nothing. A worker
//! asks for them with a connection in its hand, so that idle workers hold no place. QUIC needs no descriptors and cannot be made to wait:
//! what is too much is refused. An address that has too much is turned away, whatever room is left, and so is a device, once
//! its handshake has said which it is. Everything is given back when its permit is dropped.
//!
//! Limits: those of [`ConnectionsConfig`]; one address has half of the handshakes at most. The tables of addresses and devices
//! hold those that are connected, so they are bounded by the connections.

mod seats;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ConnectionsConfig;
use crate::limits::network_of;
pub(crate) use seats::Seat;
use seats::Seats;

/// What all workers share.
pub(crate) struct Capacity {
    connections: Arc<Semaphore>,
    files: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    address_max: Held,
    addresses: Mutex<HashMap<u128, Held>>,
    devices: Arc<Seats>,
}

/// What one address has.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    connections: usize,
    handshakes: usize,
}

/// A connection's.
pub(crate) struct ConnectionPermit {
    _connection: OwnedSemaphorePermit,
    _file: Option<OwnedSemaphorePermit>,
}

/// A handshake's, until it has ended.
pub(crate) struct HandshakePermit(#[allow(dead_code)] OwnedSemaphorePermit);

impl Capacity {
    pub(crate) fn new(config: ConnectionsConfig) -> Self {
        let semaphore =
            |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let address_max = Held {
            connections: config.address_max,
            handshakes: config.handshakes_max.div_ceil(2),
        };
        Self {
            connections: semaphore(config.all_max),
            files: semaphore(config.tcp_max),
            handshakes: semaphore(config.handshakes_max),
            address_max,
            addresses: Mutex::default(),
            devices: Arc::new(Seats::new(config.device_max)),
        }
    }

    /// Waits for room for one more TCP connection, which is there already.
    pub(crate) async fn wait_for_tcp(&self) -> (ConnectionPermit, HandshakePermit) {
        // What QUIC needs too is taken last: who waits for a file takes nothing of it.
        let file = wait(&self.files).await;
        let connection = wait(&self.connections).await;
        let handshake = wait(&self.handshakes).await;
        let connection = ConnectionPermit {
            _connection: connection,
            _file: Some(file),
        };
        (connection, HandshakePermit(handshake))
    }

    /// Room for one more QUIC connection, if there is any.
    pub(crate) fn take_quic(&self) -> Option<(ConnectionPermit, HandshakePermit)> {
        let handshake = self.handshakes.clone().try_acquire_owned().ok()?;
        let connection = self.connections.clone().try_acquire_owned().ok()?;
        Some((
            ConnectionPermit {
                _connection: connection,
                _file: None,
            },
            HandshakePermit(handshake),
        ))
    }

    /// One more connection of this address, which begins with a handshake. `None` when the address has too many.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let network = network_of(address);
        let mut addresses = self.lock();
        let held = addresses.entry(network).or_default();
        let max = self.address_max;
        if held.connections >= max.connections || held.handshakes >= max.handshakes {
            return None;
        }
        held.connections += 1;
        held.handshakes += 1;
        Some(Guest {
            capacity: self.clone(),
            network,
            is_shaking_hands: true,
        })
    }

    /// One more connection of the device of this name. `None` when it has too many.
    pub(crate) fn seat(&self, device: &[u8]) -> Option<Seat> {
        self.devices.take(device)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Held>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = semaphore.clone().acquire_owned().await;
    permit.expect("it is never closed")
}

/// A connection of an address.
pub(crate) struct Guest {
    capacity: Arc<Capacity>,
    network: u128,
    is_shaking_hands: bool,
}

impl Guest {
    /// The handshake has ended.
    pub(crate) fn settle(&mut self) {
        if std::mem::replace(&mut self.is_shaking_hands, false)
            && let Some(held) = self.capacity.lock().get_mut(&self.network)
        {
            held.handshakes -= 1;
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.settle();
        let mut addresses = self.capacity.lock();
        if let Some(held) = addresses.get_mut(&self.network) {
            held.connections -= 1;
            if held.connections == 0 {
                addresses.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(
        all_max: usize,
        tcp_max: usize,
        address_max: usize,
        handshakes_max: usize,
    ) -> Arc<Capacity> {
        Arc::new(Capacity::new(ConnectionsConfig {
            all_max,
            tcp_max,
            address_max,
            device_max: 9,
            handshakes_max,
        }))
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test]
    async fn quic_needs_no_descriptors() {
        let capacity = capacity(3, 1, 9, 9);
        let tcp = capacity.wait_for_tcp().await;
        let second = tokio::time::timeout(std::time::Duration::ZERO, capacity.wait_for_tcp()).await;
        assert!(second.is_err());
        let quic = [(); 3].map(|()| capacity.take_quic());
        assert_eq!(quic.each_ref().map(Option::is_some), [true, true, false]);
        drop((tcp, quic));
        let _there_is_room = capacity.wait_for_tcp().await;
    }

    #[test]
    fn an_address_has_its_share_of_connections() {
        let capacity = capacity(9, 9, 2, 9);
        let guests = [1, 1, 1, 2].map(|last| capacity.admit(address(last)));
        assert_eq!(
            guests.each_ref().map(Option::is_some),
            [true, true, false, true]
        );
        drop(guests);
        assert!(capacity.lock().is_empty(), "who is gone is forgotten");
        assert!(capacity.admit(address(1)).is_some());
    }

    #[test]
    fn an_address_has_half_of_the_handshakes() {
        let capacity = capacity(9, 9, 9, 4);
        let mut guests = [(); 3].map(|()| capacity.admit(address(1)));
        assert_eq!(guests.each_ref().map(Option::is_some), [true, true, false]);
        guests[0].as_mut().unwrap().settle();
        assert!(capacity.admit(address(1)).is_some());
    }
}
