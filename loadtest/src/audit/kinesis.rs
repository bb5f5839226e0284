//! Reads a Kinesis stream from its oldest record to its tip, one shard after the other, parents
//! before children.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{Shard, ShardIteratorType};

use super::{Comparison, Found};

/// A shard grants five reads a second.
const READ_PAUSE: Duration = Duration::from_millis(220);

/// Magic of a KPL aggregate, which holds several records in one.
const AGGREGATE_MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

pub fn read(endpoint: &str, stream: &str, comparison: &mut Comparison) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(read_stream(endpoint, stream, comparison))
}

async fn read_stream(endpoint: &str, stream: &str, comparison: &mut Comparison) -> Result<()> {
    let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .load()
        .await;
    let client = Client::new(&config);
    let mut shards: Vec<Shard> = Vec::new();
    let mut page = client
        .list_shards()
        .stream_name(stream)
        .send()
        .await
        .context("the stream's shards")?;
    loop {
        shards.extend_from_slice(page.shards());
        let Some(next) = page.next_token() else { break };
        page = client.list_shards().next_token(next).send().await?;
    }
    // Children have later ids than their parents.
    shards.sort_by(|a, b| a.shard_id().cmp(b.shard_id()));
    for shard in shards {
        read_shard(&client, stream, shard.shard_id(), comparison).await?;
    }
    Ok(())
}

async fn read_shard(
    client: &Client,
    stream: &str,
    shard: &str,
    comparison: &mut Comparison,
) -> Result<()> {
    let iterator = client
        .get_shard_iterator()
        .stream_name(stream)
        .shard_id(shard);
    let iterator = iterator
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await?;
    let mut next = iterator.shard_iterator().map(str::to_owned);
    while let Some(iterator) = next {
        let answer = client
            .get_records()
            .shard_iterator(iterator)
            .limit(10_000)
            .send()
            .await?;
        for record in answer.records() {
            let payload = record.data().as_ref();
            ensure!(
                !payload.starts_with(&AGGREGATE_MAGIC),
                "the records are aggregated, which the audit cannot read"
            );
            comparison.take(&Found {
                device: record.partition_key().unwrap_or_default(),
                payload,
            });
        }
        let is_at_tip =
            answer.records().is_empty() && answer.millis_behind_latest().unwrap_or(0) == 0;
        next = answer
            .next_shard_iterator()
            .filter(|_| !is_at_tip)
            .map(str::to_owned);
        if next.is_some() {
            tokio::time::sleep(READ_PAUSE).await;
        }
    }
    Ok(())
}
