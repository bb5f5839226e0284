//! The bounds of connections and handshakes: in all, from one source address, and of one device.
//!
//! All workers share one [`Capacity`]. TCP waits for its permits before it accepts any further, so
//! that the process never runs out of file descriptors: what is too much waits in the kernel's
//! queue, and existing connections notice nothing. A worker asks for them with a connection in its
//! hand, so that idle workers hold no place. QUIC needs no descriptors and cannot be made to wait:
//! what is too much is refused. An address that has too much is turned away, whatever room is left,
//! and so is a device, once its handshake has said which it is. Everything is given back when its
//! permit is dropped.
//!
//! Limits: those of [`ConnectionsConfig`]; one address has half of the handshakes at most. The
//! tables of addresses and devices hold those that are connected, so they are bounded by the
//! connections.

mod seats;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ConnectionsConfig;
use crate::limits::network_of;
pub(crate) use seats::Seat;
use seats::Seats;

/// Counts the connections and handshakes of all workers.
pub(crate) struct Capacity {
    connections: Arc<Semaphore>,
    files: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    address_max: Held,
    addresses: Mutex<HashMap<u128, Held>>,
    devices: Arc<Seats>,
}

/// Connections and handshakes that one address holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    connections: usize,
    handshakes: usize,
}

/// The places that one connection occupies; freed on drop.
pub(crate) struct ConnectionPermit {
    _connection: OwnedSemaphorePermit,
    _file: Option<OwnedSemaphorePermit>,
}

/// The place that one handshake occupies; to be dropped when it has ended.
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
        // QUIC needs a place but no file: whoever waits for a file holds no place meanwhile.
        let file = wait(&self.files).await;
        let connection = wait(&self.connections).await;
        let handshake = wait(&self.handshakes).await;
        let connection = ConnectionPermit {
            _connection: connection,
            _file: Some(file),
        };
        (connection, HandshakePermit(handshake))
    }

    /// Takes room for one more QUIC connection, if there is any.
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

    /// Admits one more connection of this address, which begins with a handshake. `None` when the
    /// address has too many.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<AddressPermit> {
        let network = network_of(address);
        let mut addresses = self.lock();
        let held = addresses.entry(network).or_default();
        let max = self.address_max;
        if held.connections >= max.connections || held.handshakes >= max.handshakes {
            return None;
        }
        held.connections += 1;
        held.handshakes += 1;
        debug_assert!(held.handshakes <= held.connections, "each has one at most");
        Some(AddressPermit {
            capacity: self.clone(),
            network,
            is_shaking_hands: true,
        })
    }

    /// Seats one more connection of the device of this name. `None` when it has too many.
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

/// The place of one connection among those of its address; freed on drop.
pub(crate) struct AddressPermit {
    capacity: Arc<Capacity>,
    network: u128,
    is_shaking_hands: bool,
}

impl AddressPermit {
    /// Frees the place among the handshakes: this one has ended.
    pub(crate) fn settle(&mut self) {
        if !std::mem::replace(&mut self.is_shaking_hands, false) {
            return;
        }
        let mut addresses = self.capacity.lock();
        let held = addresses.get_mut(&self.network);
        debug_assert!(held.is_some(), "an address is known while it has a permit");
        if let Some(held) = held {
            held.handshakes -= 1;
        }
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        self.settle();
        let mut addresses = self.capacity.lock();
        let Entry::Occupied(mut held) = addresses.entry(self.network) else {
            debug_assert!(false, "an address is known while it has a permit");
            return;
        };
        held.get_mut().connections -= 1;
        if held.get().connections == 0 {
            debug_assert_eq!(held.get().handshakes, 0, "each is of a connection");
            held.remove();
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
        let permits = [1, 1, 1, 2].map(|last| capacity.admit(address(last)));
        assert_eq!(
            permits.each_ref().map(Option::is_some),
            [true, true, false, true]
        );
        drop(permits);
        assert!(capacity.lock().is_empty(), "who is gone is forgotten");
        assert!(capacity.admit(address(1)).is_some());
    }

    #[test]
    fn an_address_has_half_of_the_handshakes() {
        let capacity = capacity(9, 9, 9, 4);
        let mut permits = [(); 3].map(|()| capacity.admit(address(1)));
        assert_eq!(permits.each_ref().map(Option::is_some), [true, true, false]);
        permits[0].as_mut().unwrap().settle();
        assert!(capacity.admit(address(1)).is_some());
    }
}
