//! Brokers that are slow to acknowledge: what one producer does not get through in time, several do, and each device
//! keeps its order, whatever changes meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::mocking::MockCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::*;

/// One producer has five requests in flight, each of one partition: it writes to 40 of them in eight times the time that
/// an answer takes.
#[tokio::test]
async fn slow_brokers_are_written_to_by_several_producers() {
    const PARTITIONS: i32 = 40;
    let records: Vec<_> = (0..400)
        .map(|device| record(&format!("meter-{device}"), "1"))
        .collect();
    for (further, producers) in [("0", 1), ("16", 17)] {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("readings", PARTITIONS, 1).unwrap();
        let mut properties: Properties =
            vec![("bootstrap.servers".into(), cluster.bootstrap_servers())];
        kafka::set(&mut properties, "further.producers", further);
        let sink = open(properties, "readings", Duration::from_secs(2)).unwrap();
        cluster
            .broker_round_trip_time(1, Duration::from_millis(400))
            .unwrap();
        // It learns how far the brokers are. The mock does not tell a topic's settings.
        let _ = verify(&sink).await;
        assert_eq!(sink.producers(), producers);
        // Each producer introduces itself.
        let _ = sink.deliver(STREAM, &records).await;
        let outcomes = sink.deliver(STREAM, &records).await;
        assert_eq!(outcomes == Outcomes::DELIVERED, producers > 1);
    }
}

/// A way to the broker that takes its time in either direction. What is on its way arrives, be the sender gone.
#[derive(Clone)]
struct Way {
    to_broker: Arc<AtomicU64>,
    from_broker: Arc<AtomicU64>,
    broken: broadcast::Sender<()>,
}

impl Way {
    async fn open([port, broker]: [u16; 2]) -> (Self, JoinSet<()>) {
        let way = Self {
            to_broker: Arc::default(),
            from_broker: Arc::default(),
            broken: broadcast::channel(1).0,
        };
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (mut serving, served) = (JoinSet::new(), way.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let broker = TcpStream::connect(("127.0.0.1", broker)).await.unwrap();
                connections.spawn(served.clone().carry(client, broker));
            }
        });
        (way, serving)
    }

    fn takes(direction: &AtomicU64, millis: u64) {
        direction.store(millis, Ordering::Relaxed);
    }

    async fn carry(self, client: TcpStream, broker: TcpStream) {
        let mut broken = self.broken.subscribe();
        let (from_client, to_client) = client.into_split();
        let (from_broker, to_broker) = broker.into_split();
        tokio::select! {
            _ = async { tokio::join!(
                carry_on(from_client, to_broker, &self.to_broker),
                carry_on(from_broker, to_client, &self.from_broker),
            ) } => {}
            _ = broken.recv() => {}
        }
    }
}

async fn carry_on(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, takes: &AtomicU64) {
    let (pieces, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
    let read = async move {
        let mut piece = vec![0; 1 << 16];
        while let Ok(bytes @ 1..) = from.read(&mut piece).await {
            let takes = Duration::from_millis(takes.load(Ordering::Relaxed));
            let piece = piece[..bytes].to_vec();
            let _ = pieces.send((Instant::now() + takes, piece)).await;
        }
    };
    let write = async move {
        while let Some((at, piece)) = due.recv().await {
            sleep_until(at.into()).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write);
}

const DEVICES: usize = 30;

/// A fleet that sends to one topic, and what became of each of its readings.
struct Fleet {
    sink: KafkaSink,
    outcomes: Vec<Outcomes>,
    /// What was sent since something changed.
    since: usize,
}

impl Fleet {
    /// Sends two readings of each device, the second while the first is on its way.
    async fn send(&mut self) {
        let readings = |number: usize| -> Vec<_> {
            let reading = |device| record(&format!("meter-{device}"), number.to_string());
            (0..DEVICES).map(reading).collect()
        };
        let [first, second] = [0, 1].map(|next| readings(self.outcomes.len() + next));
        let sent = tokio::join!(
            self.sink.deliver(STREAM, &first),
            self.sink.deliver(STREAM, &second)
        );
        self.outcomes.extend([sent.0, sent.1]);
    }

    async fn send_until(&mut self, is_reached: impl Fn(&Self) -> bool) {
        self.since = self.outcomes.len();
        for _ in 0..1000 {
            self.send().await;
            self.send().await;
            if is_reached(self) {
                return;
            }
        }
        panic!(
            "{} producers, {:?}",
            self.sink.producers(),
            self.outcomes.last()
        );
    }

    fn is_wide(&self) -> bool {
        self.sink.producers() > 1
    }

    fn is_in_doubt(&self) -> bool {
        let lately = &self.outcomes[self.since..];
        let is_doubtful = |outcomes: &Outcomes| *outcomes.get(0) == Outcome::Unknown;
        lately.iter().any(is_doubtful)
    }

    /// Nothing that was acknowledged is missing, nothing is there twice, and no device's order is inverted.
    fn audit(&self, stored: &[Stored]) {
        let stored = by_device(stored);
        for device in 0..DEVICES {
            let found: Vec<usize> = stored[&*format!("meter-{device}")]
                .iter()
                .map(|body| std::str::from_utf8(body).unwrap().parse().unwrap())
                .collect();
            assert!(found.is_sorted_by(|a, b| a < b), "{device}: {found:?}");
            for (number, outcomes) in self.outcomes.iter().enumerate() {
                match outcomes.get(device) {
                    Outcome::Delivered => assert!(found.contains(&number), "{device}: {number}"),
                    Outcome::Unknown => {}
                    _ => assert!(!found.contains(&number), "{device}: {number}"),
                }
            }
        }
    }
}

/// Acknowledgements become slow and quick again, connections break, and requests reach the broker when they were given
/// up long ago.
#[tokio::test]
async fn a_device_keeps_its_order_while_the_number_of_producers_changes() {
    let broker = Kafka::shared();
    broker.create_topic("slow", 3, &[]).await;
    let (way, _serving) = Way::open(broker.way()).await;
    let sink = open(broker.far(), "slow", Duration::from_secs(2)).unwrap();
    verify(&sink).await.unwrap();
    let mut fleet = Fleet {
        sink,
        outcomes: Vec::new(),
        since: 0,
    };
    fleet.send_until(|fleet| !fleet.is_wide()).await;
    for _ in 0..2 {
        Way::takes(&way.from_broker, 300);
        fleet.send_until(Fleet::is_wide).await;
        way.broken.send(()).unwrap();
        fleet.send_until(Fleet::is_wide).await;
        Way::takes(&way.to_broker, 4000);
        fleet.send_until(Fleet::is_in_doubt).await;
        Way::takes(&way.to_broker, 0);
        Way::takes(&way.from_broker, 0);
        fleet.send_until(|fleet| !fleet.is_wide()).await;
    }
    fleet
        .send_until(|fleet| *fleet.outcomes.last().unwrap() == Outcomes::DELIVERED)
        .await;
    fleet.audit(&broker.read_topic("slow"));
}
