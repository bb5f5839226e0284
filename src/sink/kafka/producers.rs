//! The producers of one sink, and which of them records go by.
//!
//! An idempotent producer has five requests in flight on a broker's connection, each of one
//! partition, and one of a partition. Where brokers are slow to acknowledge, as those on object
//! storage are, that is all that a gateway gets through; so there are further producers, which
//! share the [strands](super::strands) of each stream. Where they are not, everything goes by the
//! first, in no rounds, as long as brokers have not been slow once. It asks the brokers, too.
//!
//! [`Producers::keep`] is the task, on delivery's runtime, that begins rounds and looks how slow the
//! brokers are. Bounds: as many further producers as are configured; they are made when brokers are
//! slow for the first time, connect before they are used, and are kept. A record waits for its round
//! as long as a request waits for its ack, and then fails without having been sent.

use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::OnceCell;
use tokio::task::{JoinSet, spawn_blocking, yield_now};
use tokio::time::interval;

use super::client::{Client, Producer};
use super::in_flight::InFlight;
use super::pace::{LOOK_INTERVAL, Pace, SLOW, Speed};
use super::settings::Further;
use super::strands::{FIRST, IdleStrands, Strands, Waiting};
use crate::record::StreamIndex;

/// Questions by which the distance of the brokers is measured, if the answers take long.
const QUESTIONS: u32 = 3;

/// Time that a new producer has to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Always has one producer, and others while brokers are slow.
pub(super) struct Producers {
    first: Client,
    further: OnceCell<Box<[Client]>>,
    settings: Further,
    /// A topic that new producers ask for.
    topic: String,
    /// Whether records are to go by the further producers.
    is_wide: AtomicBool,
    is_measured: AtomicBool,
    /// Whether anything was sent that was in no round.
    has_sent: AtomicBool,
    /// The strands of each stream, since it had to have some.
    strands: Box<[OnceLock<Arc<Strands>>]>,
    idle: Arc<IdleStrands>,
    in_flight: Arc<InFlight>,
}

impl Producers {
    /// Shares out the records of these topics' streams.
    pub(super) fn new(
        first: Client,
        settings: Further,
        topics: &[String],
        in_flight: Arc<InFlight>,
    ) -> Arc<Self> {
        Arc::new(Self {
            first,
            further: OnceCell::new(),
            settings,
            topic: topics[0].clone(),
            is_wide: AtomicBool::new(false),
            is_measured: AtomicBool::new(false),
            has_sent: AtomicBool::new(false),
            strands: topics.iter().map(|_| OnceLock::new()).collect(),
            idle: Arc::default(),
            in_flight,
        })
    }

    /// Returns the client that asks the brokers.
    pub(super) fn first(&self) -> &Client {
        &self.first
    }

    /// Returns the producer for records that go in no rounds.
    pub(super) fn straight(&self) -> Arc<Producer> {
        self.has_sent.store(true, Ordering::Relaxed);
        self.first.producer()
    }

    fn is_wide(&self) -> bool {
        self.is_wide.load(Ordering::Relaxed)
    }

    /// Counts the producers that records go by.
    pub(super) fn count(&self) -> usize {
        match self.is_wide() {
            true => self.all().count(),
            false => 1,
        }
    }

    /// Tells why a producer, which is replaced by now, had failed for good.
    pub(super) fn failure(&self) -> Option<String> {
        self.all().find_map(Client::failure)
    }

    fn all(&self) -> impl Iterator<Item = &Client> {
        iter::once(&self.first).chain(self.further.get().into_iter().flatten())
    }

    /// Returns the strands of a stream; `None` if its records go in no rounds. `partitions` counts
    /// the stream's, if that is known.
    pub(super) fn strands(
        &self,
        stream: StreamIndex,
        partitions: impl FnOnce() -> Option<u32>,
    ) -> Option<&Arc<Strands>> {
        let strands = &self.strands[stream.get()];
        if strands.get().is_none() && self.is_wide() {
            let (partitions, producers) = (partitions()?, self.further.get()?.len());
            let is_settled = !self.has_sent.load(Ordering::Relaxed);
            let idle = self.idle.clone();
            strands.get_or_init(|| Strands::new(stream, partitions, producers, is_settled, idle));
        }
        strands.get()
    }

    /// Measures how far the brokers are, the first time, by a question that says whether it was
    /// answered: far ones are slow.
    pub(super) async fn measure(&self, ask: impl Fn(&Producer) -> bool + Send + 'static) {
        if self.settings.producers == 0 || self.is_measured.swap(true, Ordering::Relaxed) {
            return;
        }
        let producer = self.first.producer();
        let is_far = spawn_blocking(move || {
            (0..QUESTIONS).all(|_| {
                let asked_at = Instant::now();
                ask(&producer) && asked_at.elapsed() >= SLOW
            })
        });
        if is_far.await.unwrap_or(false) {
            self.widen().await;
        }
    }

    /// Has records go by the further producers from now on; makes them the first time.
    async fn widen(&self) {
        let Ok(further) = self.further.get_or_try_init(|| self.make()).await else {
            return;
        };
        if !self.is_wide.swap(true, Ordering::Relaxed) {
            let (producers, ack_time) = (further.len(), self.in_flight.ack_time());
            tracing::info!(
                producers,
                ?ack_time,
                "brokers are slow: further producers are used"
            );
        }
    }

    fn narrow(&self) {
        if self.is_wide.swap(false, Ordering::Relaxed) {
            let ack_time = self.in_flight.ack_time();
            tracing::info!(?ack_time, "brokers are slow no more: one producer is used");
        }
    }

    /// Makes the further producers: those that get a connection. An error is that none does.
    async fn make(&self) -> Result<Box<[Client]>, ()> {
        let (mut connecting, mut connected) = (JoinSet::new(), Vec::new());
        for _ in 0..self.settings.producers {
            match self.first.beside(self.settings.client.clone()) {
                Ok(client) => {
                    let topic = self.topic.clone();
                    connecting.spawn_blocking(move || connects(&client, &topic).then_some(client));
                }
                Err(error) => tracing::warn!(%error, "there is no further producer"),
            }
            // Each takes a while, and others wait for this thread.
            yield_now().await;
        }
        while let Some(client) = connecting.join_next().await {
            connected.extend(client.ok().flatten());
        }
        let is_any = !connected.is_empty();
        is_any.then(|| connected.into()).ok_or(())
    }

    /// Begins rounds as strands become idle, and looks at the brokers' pace, for as long as it is
    /// polled; ends at once where there is only one producer ever.
    pub(super) async fn keep(self: Arc<Self>) {
        if self.settings.producers == 0 {
            return;
        }
        let (mut looks, mut pace) = (interval(LOOK_INTERVAL), Pace::default());
        loop {
            tokio::select! {
                idle = self.idle.take() => {
                    for (stream, place) in idle {
                        self.begin_round(stream, place);
                    }
                }
                _ = looks.tick() => self.look(&mut pace).await,
            }
        }
    }

    async fn look(&self, pace: &mut Pace) {
        self.give_up_overdue();
        let linger = match self.is_wide() {
            true => self.settings.linger,
            false => self.settings.linger_of_first,
        };
        let least = self.in_flight.take_least_ack_time();
        match pace.look(least.map(|least| least.saturating_sub(linger))) {
            Some(Speed::Slow) => self.widen().await,
            Some(Speed::Quick) => self.narrow(),
            None => {}
        }
    }

    /// Fails the records whose round has not come in time.
    fn give_up_overdue(&self) {
        let (now, patience) = (Instant::now(), self.settings.patience);
        let all = self.strands.iter().filter_map(OnceLock::get);
        for strand in all.flat_map(|strands| strands.iter()) {
            let overdue = strand.give_up(|waiting| now - waiting.since >= patience);
            for waiting in overdue {
                let opaque = waiting.message.opaque;
                self.in_flight
                    .fail(opaque, RDKafkaErrorCode::MessageTimedOut);
            }
        }
    }

    fn begin_round(&self, stream: StreamIndex, place: usize) {
        let Some(strands) = self.strands[stream.get()].get() else {
            debug_assert!(false, "a strand that is idle is there");
            return;
        };
        let (mut bytes, mut records) = (0, 0);
        let fits = |waiting: &Waiting| {
            bytes += waiting.bytes;
            records += 1;
            bytes <= self.settings.round_bytes && records <= self.settings.round_records
        };
        let Some(round) = strands.at(place).begin_round(self.home(place), fits) else {
            return;
        };
        let producer = self.at(round.producer).producer();
        for Waiting { message, .. } in round.records {
            let opaque = message.opaque;
            if let Err(code) = producer.send(stream.get(), message) {
                self.in_flight.fail(opaque, code);
            }
        }
    }

    /// Returns the producer that a strand is to go by.
    fn home(&self, place: usize) -> usize {
        let further = self.count() - 1;
        debug_assert_eq!(further > 0, self.is_wide(), "they are there when used");
        match further {
            0 => FIRST,
            _ => FIRST + 1 + place % further,
        }
    }

    fn at(&self, producer: usize) -> &Client {
        let mut all = self.all();
        all.nth(producer).expect("producers are kept")
    }
}

/// Whether the client's producer gets a connection, by which it asks for the topic. Brokers may allow
/// fewer connections.
fn connects(client: &Client, topic: &str) -> bool {
    let producer = client.producer();
    let found = producer
        .client()
        .fetch_metadata(Some(topic), CONNECT_TIMEOUT);
    let found = found.inspect_err(|error| tracing::warn!(%error, "a further producer is not used"));
    found.is_ok()
}
