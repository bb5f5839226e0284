//! One device: connects, sends on time, is cut off, comes back.
//!
//! A task on its thread's `LocalSet`. It sends one reading after the other, as a device does that
//! waits for the 204; a reading whose time comes meanwhile waits, and its latency counts from the
//! time that was intended for it. Each reading has its own sequence number and is sent once: what
//! is found twice in the sink, the gateway has doubled. Bounds: a connection and a request have
//! their timeout; what is not sent by the end of the run is counted as missed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::crew::Crew;
use crate::certificates::DeviceCertificate;
use crate::client::Connection;
use crate::ledger::{Entry, Status};
use crate::payload::digest;
use crate::protocol::Protocol;
use crate::random::Random;
use crate::scenario::{Break, Plan};
use crate::schedule::Schedule;

/// Between attempts to connect, growing and with jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// After the run, so that its last second sees all connections.
const LINGER: Duration = Duration::from_millis(200);

pub struct Device {
    pub number: u32,
    pub protocol: Protocol,
    pub plan: Plan,
    pub certificate: DeviceCertificate,
    pub crew: Rc<Crew>,
    random: Random,
    sequence: u32,
    tls: Option<Arc<rustls::ClientConfig>>,
    connection: Option<Connection>,
}

impl Device {
    pub fn new(
        number: u32,
        protocol: Protocol,
        plan: Plan,
        certificate: DeviceCertificate,
        crew: Rc<Crew>,
    ) -> Self {
        let random = Random::of(crew.options.seed, number);
        Self {
            number,
            protocol,
            plan,
            certificate,
            crew,
            random,
            sequence: 0,
            tls: None,
            connection: None,
        }
    }

    /// Lives through a run; `connects_at` is its turn to connect before it.
    pub async fn live(mut self, connects_at: Instant, ready: Rc<watch::Sender<usize>>) {
        if !self.plan.joins_late && !self.crew.options.reconnect {
            sleep_until(connects_at).await;
            if self.connect().await.is_err() {
                sleep(BACKOFF_FIRST).await;
                let _ = self.connect().await;
            }
        }
        ready.send_modify(|devices| *devices += 1);
        let start = self.crew.wait_for_start().await;
        let end = start + self.crew.options.duration;
        let schedule = Schedule::new(self.plan.joins_at, self.plan.interval, self.random.clone());
        for due in schedule
            .map(|intended| start + intended)
            .take_while(|due| *due < end)
        {
            if let Some(cut) = self.plan.cut.take_if(|cut| start + cut.at <= due) {
                self.come_back_after(cut, start, end).await;
            }
            self.send_at(due, end).await;
        }
        if let Some(cut) = self.plan.cut.take() {
            self.come_back_after(cut, start, end).await;
        }
        sleep_until(end + LINGER).await;
        self.hang_up();
    }

    async fn send_at(&mut self, due: Instant, end: Instant) {
        if Instant::now() < due {
            sleep_until(due).await;
            self.crew
                .tally(self.plan.group)
                .lateness
                .record(due.elapsed());
        } else if Instant::now() < end {
            self.crew.tally(self.plan.group).behind += 1;
        } else {
            // It waited in vain: its latency is at least this.
            let mut tally = self.crew.tally(self.plan.group);
            tally.missed += 1;
            return tally.latency.record(due.elapsed());
        }
        let (status, body_digest, service) = self.send().await;
        let mut tally = self.crew.tally(self.plan.group);
        *tally.statuses.entry(status).or_default() += 1;
        tally.latency.record(due.elapsed());
        tally.service.record(service);
        drop(tally);
        self.crew.note(Entry {
            device: self.number,
            sequence: self.sequence,
            digest: body_digest,
            status,
        });
        self.sequence += 1;
    }

    /// Status, digest of the payload, and the time from its sending.
    async fn send(&mut self) -> (Status, u64, Duration) {
        let body = self
            .crew
            .template
            .render(self.number, self.sequence, &mut self.random);
        let body_digest = if self.crew.keeps_ledger() {
            digest(&body)
        } else {
            0
        };
        if self
            .connection
            .as_ref()
            .is_none_or(|connection| !connection.is_open())
        {
            self.hang_up();
            if self.connect().await.is_err() {
                return (Status::UNSENT, body_digest, Duration::ZERO);
            }
        }
        let sent = Instant::now();
        let Some(connection) = &mut self.connection else {
            return (Status::UNSENT, body_digest, Duration::ZERO);
        };
        let answer = timeout(
            self.crew.options.server.timeout,
            connection.send(body, self.plan.pace),
        )
        .await;
        let status = match answer {
            Ok(Ok(status)) => Status(status),
            Ok(Err(error)) => {
                self.crew.complain(&error);
                Status::UNANSWERED
            }
            Err(_) => Status::UNANSWERED,
        };
        if status == Status::UNANSWERED || self.crew.options.reconnect {
            self.hang_up();
        }
        (status, body_digest, sent.elapsed())
    }

    async fn connect(&mut self) -> Result<(), ()> {
        let crew = self.crew.clone();
        // Never closed.
        let permit = crew.handshakes.acquire().await;
        let began = Instant::now();
        let connected = self.try_connect().await;
        drop(permit);
        let result = connected.map_err(|error| crew.complain(&error));
        let mut tally = crew.tally(self.plan.group);
        match result {
            Ok(connection) => {
                tally.handshakes.record(began.elapsed());
                crew.open.set(crew.open.get() + 1);
                self.connection = Some(connection);
                Ok(())
            }
            Err(()) => {
                tally.handshakes_failed += 1;
                Err(())
            }
        }
    }

    async fn try_connect(&mut self) -> anyhow::Result<Connection> {
        let keep = self.crew.options.resume;
        let tls = match self.tls.take() {
            Some(tls) => tls,
            None => self
                .crew
                .tls
                .device(self.protocol, &self.certificate, keep)?,
        };
        // Without tickets to keep it would only take memory.
        self.tls = keep.then(|| tls.clone());
        self.crew
            .dialer
            .connect(self.protocol, &tls, self.number)
            .await
    }

    fn hang_up(&mut self) {
        if self.connection.take().is_some() {
            self.crew.open.set(self.crew.open.get() - 1);
        }
    }

    /// Is cut off, and connects again until it works or the run is over.
    async fn come_back_after(&mut self, cut: Break, start: Instant, end: Instant) {
        sleep_until(start + cut.at).await;
        self.hang_up();
        if cut.new_certificate {
            self.tls = None;
            match self.crew.authority.device(self.number) {
                Ok(certificate) => self.certificate = certificate,
                Err(error) => self.crew.complain(&error),
            }
        }
        let mut backoff = BACKOFF_FIRST;
        while !self.crew.options.reconnect && Instant::now() < end && self.connect().await.is_err()
        {
            sleep(backoff.mul_f64(self.random.fraction())).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}
