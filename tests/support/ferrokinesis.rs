//! The Kinesis emulator ferrokinesis as a process, with the service's limits enforced. It listens on every address.
//!
//! The binary is `$TOOLS/bin/ferrokinesis` (`target/tools` unless set), where `make tools` puts it. Ended when dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Credentials;
use aws_sdk_kinesis::types::{Record, Shard, ShardIteratorType, StreamStatus};

use crate::tools::tools;

const START_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Ferrokinesis {
    process: Child,
    address: SocketAddr,
    pub client: Client,
}

impl Ferrokinesis {
    pub async fn start() -> Self {
        let address = free_address();
        let process = Command::new(tools().join("bin/ferrokinesis"))
            .args([
                "serve",
                "--enforce-limits",
                "--max-request-body-mb",
                "16",
                "--create-stream-ms",
                "0",
            ])
            .args(["--port", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`make tools` installs the emulator in target/tools/bin, or $TOOLS/bin");
        let client = Client::new(&settings(address).load().await);
        let emulator = Self {
            process,
            address,
            client,
        };
        emulator.wait_until_it_listens().await;
        emulator
    }

    #[allow(dead_code)] // the sink's own tests have settings instead
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// AWS settings that lead to this emulator.
    pub fn settings(&self) -> ConfigLoader {
        settings(self.address)
    }

    pub async fn create_stream(&self, name: &str, shards: i32) {
        self.client
            .create_stream()
            .stream_name(name)
            .shard_count(shards)
            .send()
            .await
            .expect("the stream is created");
        self.wait_until_active(name).await;
    }

    pub async fn wait_until_active(&self, name: &str) {
        loop {
            let answer = self
                .client
                .describe_stream_summary()
                .stream_name(name)
                .send()
                .await
                .expect("it is described");
            let summary = answer.stream_description_summary().expect("with a summary");
            if *summary.stream_status() == StreamStatus::Active {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// All records of a stream, each shard's in its order.
    pub async fn read_stream(&self, name: &str) -> Vec<Record> {
        self.read_shards(name)
            .await
            .into_iter()
            .flat_map(|(_, records)| records)
            .collect()
    }

    /// The shards of a stream, closed ones too, and the records of each in their order.
    pub async fn read_shards(&self, name: &str) -> Vec<(Shard, Vec<Record>)> {
        let answer = self
            .client
            .list_shards()
            .stream_name(name)
            .send()
            .await
            .expect("the shards are listed");
        let mut shards = Vec::new();
        for shard in answer.shards.unwrap_or_default() {
            let records = self.read_shard(name, shard.shard_id()).await;
            shards.push((shard, records));
        }
        shards
    }

    async fn read_shard(&self, stream: &str, shard: &str) -> Vec<Record> {
        let request = self
            .client
            .get_shard_iterator()
            .stream_name(stream)
            .shard_id(shard);
        let answer = request
            .shard_iterator_type(ShardIteratorType::TrimHorizon)
            .send()
            .await
            .expect("an iterator");
        let mut iterator = answer.shard_iterator;
        let mut records = Vec::new();
        while let Some(position) = iterator {
            let answer = self
                .client
                .get_records()
                .shard_iterator(position)
                .send()
                .await
                .expect("records are read");
            if answer.records.is_empty() && answer.millis_behind_latest.unwrap_or(0) == 0 {
                break;
            }
            records.extend(answer.records);
            iterator = answer.next_shard_iterator;
        }
        records
    }

    async fn wait_until_it_listens(&self) {
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(
                started.elapsed() < START_TIMEOUT,
                "the emulator does not listen on {}",
                self.address
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Ferrokinesis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// AWS settings that lead to `address`, with made-up credentials.
pub fn settings(address: SocketAddr) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("x", "x", None, None, "test"))
        .endpoint_url(format!("http://{address}"))
}

/// A port that was free a moment ago: the emulator does not say which one it took.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}
