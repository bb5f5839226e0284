//! Tells the connections of one worker that the gateway drains, or that authorities, CRLs or the
//! devices file are other ones.
//!
//! A connection looks at one number of its own worker each time it is polled; nothing is shared
//! with other workers. The worker runs [`Bell::run`], which waits for the news and wakes everyone.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::devices::Devices;
use crate::lifecycle::{Phase, Phases};
use crate::tls::Revocation;

/// Rings for the connections of one worker.
pub struct Bell {
    phases: Phases,
    revocation: watch::Receiver<Arc<Revocation>>,
    devices: watch::Receiver<Arc<Devices>>,
    rings: Cell<u32>,
    /// The phase as connections see it, which ask at each poll: a thread's own word, set before
    /// they are woken.
    draining_since: Cell<Option<Instant>>,
    listeners: RefCell<Slab<Waker>>,
}

impl Bell {
    /// Rings for as long as the local set lives on which this is called.
    pub fn hang(
        phases: Phases,
        revocation: watch::Receiver<Arc<Revocation>>,
        devices: watch::Receiver<Arc<Devices>>,
    ) -> Rc<Self> {
        let bell = Rc::new(Self::new(phases, revocation, devices));
        let rings = bell.clone();
        spawn_local(async move { rings.run().await });
        bell
    }

    fn new(
        phases: Phases,
        revocation: watch::Receiver<Arc<Revocation>>,
        devices: watch::Receiver<Arc<Devices>>,
    ) -> Self {
        Self {
            phases,
            revocation,
            devices,
            rings: Cell::default(),
            draining_since: Cell::default(),
            listeners: RefCell::default(),
        }
    }

    /// Rings when the gateway drains and at each change of the revocation lists or of the devices
    /// file, until all of their senders are gone.
    async fn run(&self) {
        let mut revocation = self.revocation.clone();
        let mut devices = self.devices.clone();
        let mut draining = pin!(self.phases.reached(Phase::Draining));
        loop {
            tokio::select! {
                () = &mut draining, if !self.is_draining() => {
                    self.draining_since.set(Some(Instant::now()));
                }
                Ok(()) = revocation.changed() => {}
                Ok(()) = devices.changed() => {}
                else => return,
            }
            self.ring();
        }
    }

    /// Whether the gateway drains: connections finish their requests.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining_since.get().is_some()
    }

    /// Returns the revocation lists in force.
    pub(crate) fn revocation(&self) -> watch::Ref<'_, Arc<Revocation>> {
        self.revocation.borrow()
    }

    /// Returns the devices file in force.
    pub(crate) fn devices(&self) -> watch::Ref<'_, Arc<Devices>> {
        self.devices.borrow()
    }

    /// Returns the time since which the gateway drains, if it does.
    pub(crate) fn draining_since(&self) -> Option<Instant> {
        self.draining_since.get()
    }

    pub(crate) fn listen(self: &Rc<Self>) -> Listener {
        let place = self.listeners.borrow_mut().insert(Waker::noop().clone());
        Listener {
            bell: self.clone(),
            place,
            heard: self.rings.get().wrapping_sub(1),
        }
    }

    fn ring(&self) {
        self.rings.set(self.rings.get().wrapping_add(1));
        self.listeners
            .borrow()
            .iter()
            .for_each(|(_, listener)| listener.wake_by_ref());
    }
}

/// Hears the bell for one connection.
pub(crate) struct Listener {
    bell: Rc<Bell>,
    place: usize,
    heard: u32,
}

impl Listener {
    /// Ready once for all rings since the last time, and at first.
    pub(crate) fn poll_ring(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let rings = self.bell.rings.get();
        if rings != self.heard {
            self.heard = rings;
            return Poll::Ready(());
        }
        self.bell.listeners.borrow_mut()[self.place].clone_from(context.waker());
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.bell.listeners.borrow_mut().remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Lifecycle;

    #[tokio::test]
    async fn each_ring_is_heard_once_and_those_who_left_are_not_called() {
        let lifecycle = Lifecycle::new();
        let (revocation, revoked) = watch::channel(Arc::new(Revocation::off()));
        let no_devices = watch::channel(Arc::default()).1;
        let bell = Rc::new(Bell::new(lifecycle.phases(), revoked, no_devices));
        let (mut stays, leaves) = (bell.listen(), bell.listen());
        drop(leaves);
        let hears = std::future::poll_fn(|context| {
            assert!(stays.poll_ring(context).is_ready(), "at first");
            assert!(stays.poll_ring(context).is_pending());
            Poll::Ready(())
        });
        hears.await;
        let ringing = async {
            lifecycle.advance(Phase::Draining);
            drop(revocation);
            bell.run().await;
        };
        tokio::join!(
            std::future::poll_fn(|context| stays.poll_ring(context)),
            ringing
        );
        assert!(bell.is_draining());
    }
}
