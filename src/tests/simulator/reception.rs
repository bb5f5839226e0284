//! The reception of one worker: devices' requests, taken to the real ingest as a connection takes
//! them there, in place of listeners, TLS and the protocols.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};

use super::devices::Pieces;
use super::world::World;
use crate::devices::{Devices, Fingerprint};
use crate::http::reply::problem;
use crate::identity::{Credential, Device, Vouched};
use crate::ingest::{
    Body, BrokenBody, Caller, Gate, Ingest, KnownDevice, Moment, RequestHead, Standing,
};
use crate::jitter::seeded::in_any_order;
use crate::lifecycle::{Phase, Phases};
use crate::record::{DeviceId, Timestamp};

/// Requests that have come and were not looked at.
const VISITS_MAX: usize = 1024;

/// A request on its way in.
pub(crate) struct Visit {
    pub device: usize,
    pub stream: usize,
    pub key: String,
    pub pieces: Pieces,
    pub is_declared: bool,
    pub answer: oneshot::Sender<u16>,
}

impl Visit {
    /// Makes a request with the least body that names its attempt, and the receiver of its answer.
    pub(crate) fn of_probe(
        device: usize,
        stream: usize,
        attempt: usize,
    ) -> (Self, oneshot::Receiver<u16>) {
        let (answer, answered) = oneshot::channel();
        let payload = Bytes::copy_from_slice(&(attempt as u64).to_le_bytes());
        let visit = Self {
            device,
            stream,
            key: format!("{device}-{stream}"),
            pieces: vec![(Duration::ZERO, payload)],
            is_declared: true,
            answer,
        };
        (visit, answered)
    }
}

pub(crate) type Door = mpsc::Sender<Visit>;

/// The reception of one worker's requests.
pub(crate) struct Reception {
    world: Rc<World>,
    ingest: Rc<Ingest>,
    callers: BTreeMap<usize, Rc<Caller>>,
    devices: watch::Receiver<Arc<Devices>>,
    phases: Phases,
}

impl Reception {
    /// Makes a reception, and the door to it.
    pub(crate) fn new(
        world: Rc<World>,
        ingest: Ingest,
        phases: Phases,
    ) -> (Self, Door, mpsc::Receiver<Visit>) {
        let (door, visits) = mpsc::channel(VISITS_MAX);
        let reception = Self {
            devices: world.devices.subscribe(),
            world,
            ingest: Rc::new(ingest),
            callers: BTreeMap::new(),
            phases,
        };
        (reception, door, visits)
    }

    pub(crate) async fn run(mut self, mut visits: mpsc::Receiver<Visit>) {
        let mut requests = JoinSet::new();
        loop {
            let visit = tokio::select! {
                biased;
                () = self.phases.reached(Phase::Draining) => None,
                visit = visits.recv() => visit,
            };
            let Some(visit) = visit else {
                break;
            };
            let caller = self.caller(visit.device);
            self.review(&caller);
            let serving = serve(self.world.clone(), self.ingest.clone(), caller, visit);
            requests.spawn_local(in_any_order(serving));
            while requests.try_join_next().is_some() {}
        }
        drop(visits);
        while requests.join_next().await.is_some() {}
    }

    /// Returns the connection of a device; one that has fallen has ended, and the device makes
    /// another one.
    fn caller(&mut self, number: usize) -> Rc<Caller> {
        let gate = &self.ingest.gate;
        let caller = self.callers.entry(number);
        let caller = caller.or_insert_with(|| Rc::new(caller_of(gate, number)));
        if caller.standing.get() != Standing::Good {
            *caller = Rc::new(caller_of(gate, number));
        }
        caller.clone()
    }

    /// Judges a connection as its worker does when the devices file has changed.
    fn review(&self, caller: &Caller) {
        let devices = self.devices.borrow();
        let standing = caller.judged_by(&devices, &self.ingest.gate.limits);
        caller.standing.set(standing);
    }
}

fn caller_of(gate: &Gate, number: usize) -> Caller {
    let id = DeviceId::parse(&format!("device-{number}")).unwrap();
    let now = gate.clock.now();
    let device = Device {
        id: id.clone(),
        not_before: Timestamp(0),
        not_after: Timestamp(u64::MAX),
        notice_from: Timestamp(u64::MAX),
        expires: HeaderValue::from_static(""),
    };
    let address = [127, 0, 0, 1].into();
    Caller {
        device: Ok(KnownDevice {
            device,
            limits: gate.limits.device(&id, now),
            streams: Default::default(),
            memory: gate.admission.device(&id),
        }),
        credential: Credential {
            certificate: Fingerprint([0; 32]),
            vouched: Vouched::Chain(Vec::new()),
        },
        standing: Default::default(),
        edition: Default::default(),
        content_types: Default::default(),
        address,
        address_limits: gate.limits.address(address, now).unwrap(),
        accepted_bytes: Default::default(),
    }
}

/// Serves one request for as long as its device waits for the answer.
async fn serve(world: Rc<World>, ingest: Rc<Ingest>, caller: Rc<Caller>, visit: Visit) {
    let Visit {
        stream,
        key,
        pieces,
        is_declared,
        mut answer,
        ..
    } = visit;
    let path = format!("/v1/streams/stream-{stream}");
    let length = pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>();
    let length = length.to_string();
    let mut head = RequestHead::new("POST", &path, Some("gateway"));
    head.note("idempotency-key", key.as_bytes());
    if is_declared {
        head.note("content-length", length.as_bytes());
    }
    let at = Moment {
        instant: Instant::now(),
        wall: world.wall_clock(),
    };
    let taking = async {
        let mut request = ingest.admit(&caller, &head, at)?;
        ingest.take(&mut request, SimBody::new(pieces)).await
    };
    let taken = tokio::select! {
        biased;
        taken = taking => taken,
        () = answer.closed() => return,
    };
    let status = match &taken {
        Ok(()) => 204,
        Err(refusal) => problem(refusal).status.as_u16(),
    };
    if let Err(refusal) = &taken {
        world
            .ledger
            .met(format!("refused {:?}", problem(refusal).code));
    }
    // The device may be gone.
    let _ = answer.send(status);
}

/// A body whose pieces come after their waits.
struct SimBody {
    pieces: VecDeque<(Duration, Bytes)>,
    wait: Option<std::pin::Pin<Box<Sleep>>>,
}

impl SimBody {
    fn new(pieces: Pieces) -> Self {
        let pieces = pieces.into();
        Self { pieces, wait: None }
    }
}

impl Body for SimBody {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        let Some((wait, _)) = self.pieces.front() else {
            return Poll::Ready(None);
        };
        if !wait.is_zero() {
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(*wait)));
            if wait.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.wait = None;
        let piece = self.pieces.pop_front();
        Poll::Ready(piece.map(|(_, piece)| Ok(piece)))
    }
}
