//! How records are made safe: by the sink alone, or by the sink and the spool.

use std::rc::Rc;

use super::outlet::Outlet;
use super::overflow::Spooling;
use super::shipment::{Settlement, Shipment};

/// One of the two shapes that delivery has. Clones are the same way.
#[derive(Clone)]
pub(crate) enum Way {
    /// By the sink alone: what it does not take goes back to where it came from.
    Direct(Rc<Outlet>),
    /// What the sink does not take in time goes to disk.
    Spooling(Rc<Spooling>),
}

impl Way {
    pub(crate) fn outlet(&self) -> &Rc<Outlet> {
        match self {
            Self::Direct(outlet) => outlet,
            Self::Spooling(spooling) => spooling.outlet(),
        }
    }

    /// Makes records safe, as far as that is possible now, and settles once for all of them.
    pub(crate) async fn ship(&self, shipment: Shipment, settle: impl FnOnce(Settlement)) {
        match self {
            Self::Direct(outlet) => {
                let outcomes = outlet.ask_sink(shipment.stream, &shipment.records).await;
                settle(Settlement::of_sink(shipment.records, outcomes));
            }
            Self::Spooling(spooling) => spooling.ship(shipment, settle).await,
        }
    }
}
