//! One device: connects, sends on time, is cut off, comes back.
//!
//! A task on its thread's `LocalSet`. It sends one reading after the other, as a device does that
//! waits for the 204; a reading whose time comes meanwhile waits, and its latency counts from the
//! time that was intended for it. A request may have several readings; each has its own sequence
//! number and is sent once: what
//! is found twice in the sink, the gateway has doubled. Bounds: a connection and a request have
//! their timeout; what is not sent by the end of the run is counted as missed.

use std::cell::RefMut;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::crew::Crew;
use crate::certificates::DeviceCertificate;
use crate::client::{Answer, Connection};
use crate::ledger::{Entry, Status};
use crate::payload::{device_name, digest};
use crate::protocol::Protocol;
use crate::random::Random;
use crate::scenario::{Break, Plan};
use crate::schedule::Schedule;
use crate::statistics::Tally;
use crate::visits::Visits;

/// The pause after the first attempt to connect; it doubles each time, and has jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(BACKOFF_FIRST.as_millis() <= BACKOFF_MAX.as_millis());

/// Time that connections are held after the run, so that its last second sees all of them.
const LINGER: Duration = Duration::from_millis(200);

/// Time that a device which goes without a word waits for its answer: mostly less than that takes.
const LAST_PATIENCE: Duration = Duration::from_millis(1);

/// A device of the fleet, with what it has left to do.
pub(crate) struct Device {
    number: u32,
    protocol: Protocol,
    plan: Plan,
    certificate: DeviceCertificate,
    crew: Rc<Crew>,
    random: Random,
    sequence: u32,
    /// The configuration with the device's tickets, where it keeps some.
    tls: Option<Arc<rustls::ClientConfig>>,
    connection: Option<Connection>,
    /// Connections that were left without a word.
    left: Vec<Connection>,
    pub visits: Visits,
}

/// Outcome of a request and its readings.
struct Sent {
    status: Status,
    /// The digest of each payload, 0 without a ledger, and what became of it.
    readings: Vec<(u64, Status)>,
    /// The size of its body, decoded.
    bytes: u64,
    /// The time from the sending to the answer.
    service: Duration,
}

impl Device {
    pub(crate) fn new(
        number: u32,
        plan: Plan,
        certificate: DeviceCertificate,
        crew: Rc<Crew>,
    ) -> Self {
        Self {
            number,
            protocol: crew.options.protocol.of(number),
            plan,
            certificate,
            random: Random::of(crew.options.seed, number),
            crew,
            sequence: 0,
            tls: None,
            connection: None,
            left: Vec::new(),
            visits: Visits::of(device_name(number)),
        }
    }

    /// Lives through a run; `connects_at` is its turn to connect before it.
    pub(crate) async fn live(mut self, connects_at: Instant, ready: Rc<watch::Sender<usize>>) {
        if !self.plan.joins_late && !self.crew.options.reconnect {
            sleep_until(connects_at).await;
            self.connect_early().await;
        }
        ready.send_modify(|devices| *devices += 1);
        let start = self.crew.wait_for_start().await;
        let end = start + self.crew.options.duration;
        let schedule = Schedule::new(self.plan.joins_at, self.plan.interval, self.random.clone());
        let intended = schedule.map(|at| start + at);
        for due in intended.take_while(|due| *due < end) {
            if let Some(cut) = self.plan.cut.take_if(|cut| start + cut.at <= due) {
                self.come_back_after(cut, start, end).await;
            }
            self.send_at(due, end).await;
        }
        while let Some(cut) = self.plan.cut.take() {
            self.come_back_after(cut, start, end).await;
        }
        sleep_until(end + LINGER).await;
        self.hang_up();
        self.crew.note_visits(&self.visits);
    }

    /// Connects before the run; a device that cannot, connects when it has something to send.
    async fn connect_early(&mut self) {
        if self.connect().await.is_err() {
            sleep(BACKOFF_FIRST).await;
            let _ = self.connect().await;
        }
    }

    fn tally(&self) -> RefMut<'_, Tally> {
        self.crew.tally(self.plan.group)
    }

    /// Sends the next reading, which is due at a time of the run.
    async fn send_at(&mut self, due: Instant, end: Instant) {
        if Instant::now() < due {
            sleep_until(due).await;
            self.tally().lateness.record(due.elapsed());
        } else if Instant::now() < end {
            self.tally().behind += 1;
        } else {
            return self.count_missed(due.elapsed());
        }
        let sent = self.send().await;
        self.count(&sent, due.elapsed());
    }

    /// Counts a reading that waited in vain: its latency is at least this.
    fn count_missed(&self, latency: Duration) {
        for mut tally in self.both_tallies() {
            tally.missed += 1;
            tally.latency.record(latency);
        }
    }

    /// The counts of the device's group, and those of its protocol.
    fn both_tallies(&self) -> [RefMut<'_, Tally>; 2] {
        [self.tally(), self.crew.protocol_tally(self.protocol)]
    }

    fn count(&mut self, sent: &Sent, latency: Duration) {
        self.visits.count(sent.status, sent.bytes);
        for mut tally in self.both_tallies() {
            *tally.statuses.entry(sent.status).or_default() += 1;
            tally.latency.record(latency);
            tally.service.record(sent.service);
        }
        for ((digest, status), sequence) in sent.readings.iter().zip(self.sequence..) {
            self.crew.note(Entry {
                device: self.number,
                sequence,
                digest: *digest,
                status: *status,
                latency_us: u32::try_from(latency.as_micros()).unwrap_or(u32::MAX),
            });
        }
        self.sequence += sent.readings.len() as u32;
    }

    /// The payloads of the next request, and its body.
    fn render(&mut self) -> (Vec<Bytes>, Bytes) {
        let template = self.crew.template;
        let envelope = self.crew.options.server.envelope();
        let mut readings = Vec::new();
        for sequence in self.sequence..self.sequence + envelope.count() {
            readings.push(template.render(self.number, sequence, &mut self.random));
        }
        let body = envelope.wrap(&readings);
        (readings, body.expect("writing to memory does not fail"))
    }

    async fn send(&mut self) -> Sent {
        let (readings, body) = self.render();
        let Ok(mut connection) = self.take_connection().await else {
            let statuses = vec![Status::UNSENT; readings.len()];
            return self.sent(Status::UNSENT, &readings, statuses, Duration::ZERO);
        };
        let patience = self.crew.options.server.timeout;
        let sent_at = Instant::now();
        let answer = self.exchange(&mut connection, body, patience).await;
        let service = sent_at.elapsed();
        self.connection = Some(connection);
        if answer.is_none() || self.crew.options.reconnect {
            self.hang_up();
        }
        self.answered(answer.as_ref(), &readings, service)
    }

    /// Outcome of a request that was sent.
    fn answered(&mut self, answer: Option<&Answer>, readings: &[Bytes], service: Duration) -> Sent {
        let Some(answer) = answer else {
            let statuses = vec![Status::UNANSWERED; readings.len()];
            return self.sent(Status::UNANSWERED, readings, statuses, service);
        };
        self.visits.answered();
        let statuses = self.crew.options.server.envelope().statuses(answer);
        self.sent(Status(answer.status), readings, statuses, service)
    }

    fn sent(
        &self,
        status: Status,
        readings: &[Bytes],
        statuses: Vec<Status>,
        service: Duration,
    ) -> Sent {
        debug_assert_eq!(readings.len(), statuses.len(), "each reading has its end");
        let keeps_ledger = self.crew.keeps_ledger();
        let digest = |reading: &Bytes| if keeps_ledger { digest(reading) } else { 0 };
        Sent {
            status,
            readings: readings.iter().map(digest).zip(statuses).collect(),
            bytes: self.crew.options.server.envelope().body_bytes(readings),
            service,
        }
    }

    /// The connection that is open, or a new one.
    async fn take_connection(&mut self) -> Result<Connection, ()> {
        if !self.connection.as_ref().is_some_and(Connection::is_open) {
            self.hang_up();
            self.connect().await?;
        }
        Ok(self.connection.take().expect("it has just been seen"))
    }

    /// Sends a body and waits for its answer, for so long; `None` where none comes.
    async fn exchange(
        &self,
        connection: &mut Connection,
        body: Bytes,
        patience: Duration,
    ) -> Option<Answer> {
        let answer = connection.send(body, self.plan.pace);
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                self.crew.complain(&error);
                None
            }
            Err(_) => None,
        }
    }

    async fn connect(&mut self) -> Result<(), ()> {
        debug_assert!(self.connection.is_none(), "a device has one connection");
        let crew = self.crew.clone();
        let permit = crew.handshakes.acquire().await;
        let permit = permit.expect("the semaphore is never closed");
        let began = Instant::now();
        let connected = self.try_connect().await;
        self.visits.tried();
        drop(permit);
        let mut tally = crew.tally(self.plan.group);
        match connected {
            Ok(connection) => {
                tally.handshakes.record(began.elapsed());
                crew.open.set(crew.open.get() + 1);
                self.connection = Some(connection);
                Ok(())
            }
            Err(error) => {
                tally.handshakes_failed += 1;
                crew.complain(&error);
                Err(())
            }
        }
    }

    async fn try_connect(&mut self) -> anyhow::Result<Connection> {
        let (crew, keep) = (&self.crew, self.crew.options.resume);
        let tls = match self.tls.take() {
            Some(tls) => tls,
            None => crew.tls.device(self.protocol, &self.certificate, keep)?,
        };
        // Without tickets to keep it would only take memory.
        self.tls = keep.then(|| tls.clone());
        let dialer = &crew.dialer;
        dialer.connect(self.protocol, &tls, self.number).await
    }

    fn hang_up(&mut self) {
        if self.connection.take().is_some() {
            self.crew.open.set(self.crew.open.get() - 1);
        }
    }

    /// Is cut off, and connects again until it works or the run is over.
    async fn come_back_after(&mut self, cut: Break, start: Instant, end: Instant) {
        sleep_until(start + cut.at).await;
        if cut.is_silent {
            self.vanish().await;
        }
        self.hang_up();
        self.plan.cut = cut.next(end - start);
        if cut.new_certificate {
            self.renew_certificate();
        }
        if self.crew.options.reconnect {
            return;
        }
        let mut backoff = BACKOFF_FIRST;
        while Instant::now() < end && self.connect().await.is_err() {
            sleep(backoff.mul_f64(self.random.fraction())).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Begins a request, and is gone: its connection is neither closed nor used again.
    async fn vanish(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        self.crew.open.set(self.crew.open.get() - 1);
        let (readings, body) = self.render();
        let sent_at = Instant::now();
        let answer = self.exchange(&mut connection, body, LAST_PATIENCE).await;
        let sent = self.answered(answer.as_ref(), &readings, sent_at.elapsed());
        self.count(&sent, sent.service);
        self.left.push(connection);
    }

    fn renew_certificate(&mut self) {
        self.tls = None;
        match self.crew.authority.device(self.number) {
            Ok(certificate) => self.certificate = certificate,
            Err(error) => self.crew.complain(&error),
        }
    }
}
