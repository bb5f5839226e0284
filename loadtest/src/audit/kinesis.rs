//! Reads a Kinesis stream from its oldest record to its tip, one shard after the other, parents
//! before children.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{Record, Shard, ShardIteratorType};

use super::{Auditor, Found};

/// A shard grants five reads a second.
const READ_PAUSE: Duration = Duration::from_millis(220);

/// The most records of one read.
const RECORDS_MAX: i32 = 10_000;

/// The magic of a KPL aggregate, which holds several records in one.
const AGGREGATE_MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

pub(crate) fn read(endpoint: &str, stream: &str, auditor: &mut dyn Auditor) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(read_stream(endpoint, stream, auditor))
}

async fn read_stream(endpoint: &str, stream: &str, auditor: &mut dyn Auditor) -> Result<()> {
    let config = aws_config::defaults(aws_config::BehaviorVersion::latest());
    let config = config.endpoint_url(endpoint).load().await;
    let client = Client::new(&config);
    for shard in shards(&client, stream).await? {
        read_shard(&client, stream, shard.shard_id(), auditor).await?;
    }
    Ok(())
}

/// Lists all shards of the stream, parents before children.
async fn shards(client: &Client, stream: &str) -> Result<Vec<Shard>> {
    let mut shards: Vec<Shard> = Vec::new();
    let page = client.list_shards().stream_name(stream).send().await;
    let mut page = page.context("the stream's shards")?;
    loop {
        shards.extend_from_slice(page.shards());
        let Some(next) = page.next_token() else { break };
        page = client.list_shards().next_token(next).send().await?;
    }
    // Children have later ids than their parents.
    shards.sort_by(|a, b| a.shard_id().cmp(b.shard_id()));
    Ok(shards)
}

async fn read_shard(
    client: &Client,
    stream: &str,
    shard: &str,
    auditor: &mut dyn Auditor,
) -> Result<()> {
    let first = client
        .get_shard_iterator()
        .stream_name(stream)
        .shard_id(shard)
        .shard_iterator_type(ShardIteratorType::TrimHorizon);
    let mut next = first.send().await?.shard_iterator;
    while let Some(iterator) = next {
        let request = client.get_records().shard_iterator(iterator);
        let answer = request.limit(RECORDS_MAX).send().await?;
        for record in answer.records() {
            take(record, auditor)?;
        }
        if answer.records().is_empty() && answer.millis_behind_latest().unwrap_or(0) == 0 {
            return Ok(());
        }
        next = answer.next_shard_iterator;
        if next.is_some() {
            tokio::time::sleep(READ_PAUSE).await;
        }
    }
    Ok(())
}

fn take(record: &Record, auditor: &mut dyn Auditor) -> Result<()> {
    let payload = record.data().as_ref();
    ensure!(
        !payload.starts_with(&AGGREGATE_MAGIC),
        "the records are aggregated, which the audit cannot read"
    );
    auditor.take(&Found {
        device: record.partition_key().unwrap_or_default(),
        payload,
    });
    Ok(())
}
