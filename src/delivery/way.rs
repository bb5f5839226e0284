//! The two ways to make records safe: by the sink alone, or by the sink and the spool.

use std::rc::Rc;

use super::flight::{Flight, ask_sink};
use super::outlet::Outlet;
use super::overflow::Spooling;
use super::shipment::{Origin, Settlement, Shipment};

/// One of the two shapes that delivery has. Clones are the same way.
#[derive(Clone)]
pub(crate) enum Way {
    /// By the sink alone: records that it does not take go back to their origin.
    Direct(Rc<Outlet>),
    /// By the sink and the spool: records that the sink does not take in time go to disk.
    Spooling(Rc<Spooling>),
}

impl Way {
    pub(crate) fn outlet(&self) -> &Rc<Outlet> {
        match self {
            Self::Direct(outlet) => outlet,
            Self::Spooling(spooling) => spooling.outlet(),
        }
    }

    /// Makes records as safe as is possible now, and settles for all of them.
    pub(crate) async fn ship(&self, shipment: Shipment, origin: impl Origin) {
        match self {
            Self::Direct(outlet) => ship_directly(outlet, shipment, origin).await,
            // Boxed: a task of the direct way would be as large.
            Self::Spooling(spooling) => Box::pin(spooling.ship(shipment, origin)).await,
        }
    }
}

async fn ship_directly(outlet: &Outlet, shipment: Shipment, mut origin: impl Origin) {
    let Shipment { terms, records } = shipment;
    let tell = |flight: &mut Flight<'_>| flight.tell_part(&[], &mut origin);
    let outcomes = ask_sink(outlet, terms.stream, &records, tell).await;
    origin.settle(Settlement::of_sink(records, outcomes));
}
