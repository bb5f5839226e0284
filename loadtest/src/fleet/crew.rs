//! The crew of one thread: its devices share the connector, the payload and the counts.
//!
//! Not shared with other threads. Once a second the counts leave the thread as a [`Snapshot`].

use std::cell::{Cell, RefCell, RefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::certificates::Authority;
use crate::cli::Fleet;
use crate::client::Dialer;
use crate::ledger::{Entry, Writer};
use crate::payload::Template;
use crate::protocol::Protocol;
use crate::scenario::Group;
use crate::statistics::Tally;
use crate::target::Tls;
use crate::visits::{self, Visits};

/// Different errors that a thread tells; the counts hold all.
const COMPLAINTS_MAX: usize = 5;

/// The parts that the devices of one thread share.
pub(crate) struct Crew {
    pub options: Arc<Fleet>,
    pub authority: Arc<Authority>,
    pub tls: Arc<Tls>,
    pub dialer: Dialer,
    pub template: Template,
    pub handshakes: Semaphore,
    /// Connections that are open.
    pub open: Cell<i64>,
    pub start: watch::Receiver<Option<Instant>>,
    pub tallies: RefCell<[Tally; Group::COUNT]>,
    pub protocols: RefCell<[Tally; Protocol::ALL.len()]>,
    pub ledger: Option<RefCell<Writer>>,
    pub visits: Option<visits::Writer>,
    pub complaints: RefCell<Vec<String>>,
}

impl Crew {
    /// The counts of a group; not to be held across a wait.
    pub(crate) fn tally(&self, group: Group) -> RefMut<'_, Tally> {
        RefMut::map(self.tallies.borrow_mut(), |tallies| {
            &mut tallies[group as usize]
        })
    }

    /// The counts of a protocol; not to be held across a wait.
    pub(crate) fn protocol_tally(&self, protocol: Protocol) -> RefMut<'_, Tally> {
        RefMut::map(self.protocols.borrow_mut(), |tallies| {
            &mut tallies[protocol as usize]
        })
    }

    pub(crate) fn keeps_ledger(&self) -> bool {
        self.ledger.is_some()
    }

    /// Writes a request down, where there is a ledger.
    pub(crate) fn note(&self, entry: Entry) {
        let Some(ledger) = &self.ledger else { return };
        if let Err(error) = ledger.borrow_mut().append(entry) {
            self.complain(&anyhow::anyhow!("the ledger is not complete: {error}"));
        }
    }

    /// Writes down what a device remembers of its connections, where that is wanted.
    pub(crate) fn note_visits(&self, visits: &Visits) {
        let Some(file) = &self.visits else { return };
        if let Err(error) = file.append(visits) {
            self.complain(&error.context("the file of visits is not complete"));
        }
    }

    /// Tells an error, unless it has been told or there are too many.
    pub(crate) fn complain(&self, error: &anyhow::Error) {
        let complaint = format!("{error:#}");
        let mut complaints = self.complaints.borrow_mut();
        if complaints.len() < COMPLAINTS_MAX && !complaints.contains(&complaint) {
            eprintln!("loadtest: {complaint}");
            complaints.push(complaint);
        }
    }

    /// Waits for the start of the run. Never returns where the conductor has gone: the worker ends then.
    pub(crate) async fn wait_for_start(&self) -> Instant {
        let mut start = self.start.clone();
        let Ok(start) = start.wait_for(Option::is_some).await else {
            return std::future::pending().await;
        };
        start.expect("it has been waited for")
    }

    /// Takes what was counted since the last snapshot.
    pub(crate) fn snapshot(&self, second: Option<u32>) -> Snapshot {
        let groups = std::mem::take(&mut *self.tallies.borrow_mut());
        Snapshot {
            second,
            open: self.open.get(),
            groups,
            protocols: std::mem::take(&mut *self.protocols.borrow_mut()),
        }
    }
}

/// The counts of one thread in one second.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// The second of the run; `None` before it.
    pub second: Option<u32>,
    /// Connections open at its end.
    pub open: i64,
    pub groups: [Tally; Group::COUNT],
    /// The same counts, by what was spoken.
    pub protocols: [Tally; Protocol::ALL.len()],
}

/// A line that a worker says to the conductor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// Certificates were made, in so many seconds.
    Certificates {
        count: u64,
        seconds: f64,
    },
    Counted(Box<Snapshot>),
    /// A thread's devices are connected.
    Ready,
}
