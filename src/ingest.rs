//! The hot path: one request of one device becomes one record, or a refusal.
//!
//! Every protocol's adapter calls [`Ingest::admit`] with the request's head, and then
//! [`Ingest::take`] with its body. The order of the checks is part of the wire contract and stands
//! here, once. Lives on one worker; takes no lock, logs nothing, and waits only for the body and
//! for the ack.

mod body;
mod caller;
pub(crate) mod decode;
pub(crate) mod doors;
mod form;
mod head;
pub(crate) mod records;
mod refusal;
mod routes;
mod sender;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub(crate) use body::{Body, BrokenBody};
pub use caller::{Caller, KnownDevice, Standing};
pub use head::{ContentTypes, RequestHead};
pub(crate) use head::{Field, HostRule, IDEMPOTENCY_KEY_CHARS_MAX, RECORDS_KEY_CHARS_MAX, length};
pub use records::Verdicts;
pub use refusal::Refusal;
pub use routes::{Authorities, Routes, Target};

use crate::admission::{Admission, RECORD_OVERHEAD_BYTES};
use crate::batcher::Batcher;
use crate::config::HttpConfig;
use crate::limits::{Clock, DeviceLimits, Limits, Nanos};
use crate::record::{Outcome, Permit, Record, RecordId, Timestamp};
use crate::rules::{InForce, Rulebook};
use body::{Bounds, Ledger};
use decode::Decoders;
use doors::Door;
use head::{Head, Rules, visible};
use sender::{Content, Sender};

/// The time at which a request came in, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub instant: Instant,
    pub wall: Timestamp,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            wall: Timestamp::now(),
        }
    }
}

/// The buckets and the memory budget, which a connection and its requests have to pass. Clones
/// share both.
#[derive(Clone)]
pub struct Gate {
    pub clock: Clock,
    pub limits: Arc<Limits>,
    pub admission: Arc<Admission>,
}

impl Gate {
    pub fn new(limits: Limits, admission: Admission) -> Self {
        Self {
            clock: Clock::new(),
            limits: Arc::new(limits),
            admission: Arc::new(admission),
        }
    }
}

/// The hot path of one worker.
pub struct Ingest {
    pub gate: Gate,
    routes: Arc<Routes>,
    rulebook: Rulebook,
    batcher: Rc<Batcher>,
    decoders: Decoders,
    rules: Rules,
    records_max: usize,
    body_timeout: Duration,
    /// Bytes a second that a body must keep up; 0 is no such bound.
    body_rate_min: u64,
}

/// A request whose head has passed every check; its body is still to come.
pub(crate) struct Admitted<'c> {
    sender: Sender<'c>,
    costs: Costs<'c>,
    /// Takes the number of the body's bytes once it is accepted.
    accepted_bytes: &'c Cell<u64>,
}

impl Admitted<'_> {
    /// Returns the name of the request's one record, which it has from now on.
    pub(crate) fn record_id(&mut self) -> &RecordId {
        let received_at = self.sender.received_at;
        let named = &mut self.sender.head.idempotency_key;
        named.get_or_insert_with(|| RecordId::new(received_at))
    }
}

impl Ingest {
    pub fn new(config: &HttpConfig, gate: Gate, routes: Arc<Routes>, batcher: Rc<Batcher>) -> Self {
        Self {
            gate,
            routes,
            rulebook: Rulebook::default(),
            batcher,
            decoders: Decoders::default(),
            rules: Rules::new(config),
            records_max: config.records_max,
            body_timeout: config.body_timeout,
            body_rate_min: config.body_rate_min,
        }
    }

    /// Has records judged by the rules of their streams.
    pub fn with_rules(mut self, rulebook: Rulebook) -> Self {
        self.rulebook = rulebook;
        self
    }

    /// Returns the door that a path belongs to.
    #[inline]
    pub(crate) fn door_of(&self, path: &str) -> Door {
        self.routes.door_of(path)
    }

    /// Whether heads keep the properties that a front door reads.
    #[inline]
    pub(crate) fn keeps_properties(&self) -> bool {
        self.routes.keep_properties()
    }

    /// Whether the request may send its body.
    pub(crate) fn admit<'c>(
        &'c self,
        caller: &'c Caller,
        head: &RequestHead<'_>,
        at: Moment,
    ) -> Result<Admitted<'c>, Refusal> {
        let (now, received_at) = (self.gate.clock.at(at.instant.into_std()), at.wall);
        let (known, limits) = caller.device(received_at)?;
        let device = &known.device;
        self.gate
            .limits
            .take_request(limits, &caller.address_limits, now)?;
        let own_streams = known.streams.borrow();
        let target = self
            .routes
            .resolve(head, &device.id, own_streams.as_deref())?;
        let stream = target.stream;
        let head = Head::parse(head, &caller.content_types, &self.rules, target)?;
        if let Some(bytes) = head.declared_bytes {
            self.take_declared(limits, bytes, now)?;
        }
        let admission = &self.gate.admission;
        admission.check_partition(stream, &device.id)?;
        let permit = admission.reserve(stream, &known.memory, head.declared_bytes)?;
        let mut costs = Costs {
            gate: &self.gate,
            limits,
            permit,
            beside_bytes: head.bytes_beyond_overhead(),
        };
        costs.hold(0)?;
        let sender = Sender {
            device,
            stream,
            head,
            received_at,
        };
        Ok(Admitted {
            sender,
            costs,
            accepted_bytes: &caller.accepted_bytes,
        })
    }

    /// Takes the reading in, or all readings; `Ok` means that they are safe, as the ack mode defines
    /// it. A request is taken once; it stays where it is, as it would be moved several times.
    pub(crate) async fn take(
        &self,
        request: &mut Admitted<'_>,
        body: impl Body,
    ) -> Result<(), Refusal> {
        let Admitted {
            sender,
            costs,
            accepted_bytes,
        } = request;
        if !sender.head.is_plain() {
            // Boxed, as it is rare: every request would be as large.
            let bytes = Box::pin(self.take_apart(sender, body, costs)).await?;
            accepted_bytes.set(bytes as u64);
            return Ok(());
        }
        let bounds = self.bounds(&sender.head, sender.head.bytes_max);
        let payload = body::read(body, bounds, costs).await?;
        let (stream, bytes) = (sender.stream, payload.len());
        let record = self.one_record(sender, payload, costs.permit.take())?;
        safe(self.batcher.push(stream, record).await)?;
        accepted_bytes.set(bytes as u64);
        Ok(())
    }

    /// Returns the one record of a request, judged.
    #[inline]
    fn one_record(
        &self,
        sender: &mut Sender<'_>,
        payload: Bytes,
        mut permit: Permit,
    ) -> Result<Record, Refusal> {
        debug_assert!(
            permit.bytes() >= payload.len() + RECORD_OVERHEAD_BYTES,
            "what waits is counted"
        );
        let rules = self.rulebook.in_force(sender.stream);
        let content = self.judge(rules.as_ref(), sender, payload, &mut permit)?;
        Ok(sender.take_record(content, permit))
    }

    /// Judges a whole record: the last word before it goes to its stream, whose rules may change
    /// it. `permit` is the record's, and holds the bytes that they add.
    #[inline]
    fn judge(
        &self,
        rules: Option<&InForce<'_>>,
        sender: &Sender<'_>,
        payload: Bytes,
        permit: &mut Permit,
    ) -> Result<Content, Refusal> {
        debug_assert!(!payload.is_empty(), "a record has at least one byte");
        if payload.len() > self.rules.record_bytes_max() {
            return Err(Refusal::RecordTooLarge);
        }
        let Some(rules) = rules else {
            return Ok(Content::of(payload));
        };
        let verdict = rules.judge(payload.clone(), &sender.device.id)?;
        self.hold_edited(Content::judged(verdict), &payload, permit)
    }

    /// Counts the bytes that the rules of a stream have added to a record, beside those that the
    /// permit holds.
    fn hold_edited(
        &self,
        content: Content,
        before: &Bytes,
        permit: &mut Permit,
    ) -> Result<Content, Refusal> {
        debug_assert!(permit.bytes() >= RECORD_OVERHEAD_BYTES);
        let mut added = content.headers.bytes();
        if content.payload.as_ptr() != before.as_ptr() {
            added += content.payload.len();
        }
        let held = permit.bytes() - RECORD_OVERHEAD_BYTES;
        self.gate.admission.grow(permit, held + added)?;
        Ok(content)
    }

    #[inline]
    fn bounds(&self, head: &Head, bytes_max: usize) -> Bounds {
        let declared_bytes = head.declared_bytes;
        debug_assert!(declared_bytes.is_none_or(|bytes| bytes <= bytes_max));
        Bounds {
            declared_bytes,
            bytes_max,
            timeout: self.body_timeout,
            rate_min: self.body_rate_min,
        }
    }

    /// Charges a length that the client has declared.
    fn take_declared(
        &self,
        limits: &DeviceLimits,
        bytes: usize,
        now: Nanos,
    ) -> Result<(), Refusal> {
        if limits.bytes_exceed_burst(bytes as u64) {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(limits.take_bytes(now, bytes as u64)?)
    }
}

/// Whether a record of which this has become is safe.
#[inline]
fn safe(outcome: Outcome) -> Result<(), Refusal> {
    match outcome {
        Outcome::Delivered => Ok(()),
        Outcome::Permanent(reason) => Err(Refusal::SinkRefused(reason)),
        Outcome::Retryable(_) | Outcome::Barred(_) => Err(Refusal::SinkUnavailable),
        Outcome::Unknown => Err(Refusal::AckTimeout),
    }
}

/// The costs of a request for its device while its body arrives.
struct Costs<'a> {
    gate: &'a Gate,
    limits: &'a DeviceLimits,
    permit: Permit,
    /// Bytes that the record keeps of its head, beyond those that every record does.
    beside_bytes: usize,
}

impl Costs<'_> {
    /// Holds so many bytes beside the body.
    fn hold_beside(&mut self, bytes: usize) -> Result<(), Refusal> {
        debug_assert!(self.permit.bytes() >= RECORD_OVERHEAD_BYTES);
        let held = self.permit.bytes() - RECORD_OVERHEAD_BYTES;
        Ok(self.gate.admission.grow(&mut self.permit, held + bytes)?)
    }

    /// Holds no more than a body of so many bytes needs.
    fn shrink_to(&mut self, bytes: usize) {
        let bytes = bytes + self.beside_bytes + RECORD_OVERHEAD_BYTES;
        debug_assert!(self.permit.bytes() >= bytes, "it was held while it grew");
        self.permit.shrink_to(bytes);
    }
}

impl Ledger for Costs<'_> {
    fn charge(&mut self, bytes: usize) -> Result<(), Refusal> {
        let now = self.gate.clock.now();
        Ok(self.limits.take_bytes(now, bytes as u64)?)
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let bytes = bytes + self.beside_bytes;
        Ok(self.gate.admission.grow(&mut self.permit, bytes)?)
    }
}
