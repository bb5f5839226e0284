//! The questions that a stream asks of Kinesis.
//!
//! `stream` asks them on behalf of `call` and `verify`. There are three, each one HTTP call that the
//! SDK makes with the credentials that are good now; nothing is asked twice here. A failure that is
//! the credentials' has others looked for. In the simulator a service of its own answers.

use std::sync::Arc;

use aws_sdk_kinesis::operation::describe_stream_summary::DescribeStreamSummaryOutput;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::types::Shard;
use bytes::Bytes;

use super::credentials::Clients;
use super::failure::Failure;
use super::wire;

/// The service that answers for all streams of an account. Clones are the same one.
#[derive(Clone)]
pub(crate) enum Service {
    Aws(Arc<Clients>),
    #[cfg(test)]
    Simulated(Arc<tests::Asker>),
}

impl Service {
    /// Makes one PutRecords call, with the body that `wire` has written.
    pub(super) async fn put(&self, body: Bytes) -> Result<PutRecordsOutput, Failure> {
        let answer = match self {
            Self::Aws(clients) => {
                let call = clients.current().put_records().customize();
                let call = call.mutate_request(move |request| wire::replace_body(request, &body));
                call.send().await.map_err(|error| Failure::of(&error))
            }
            #[cfg(test)]
            Self::Simulated(asker) => asker.put(body).await,
        };
        answer.map_err(|failure| self.see_to(failure))
    }

    pub(super) async fn describe(
        &self,
        stream: &str,
    ) -> Result<DescribeStreamSummaryOutput, Failure> {
        let answer = match self {
            Self::Aws(clients) => {
                let call = clients.current().describe_stream_summary();
                let answer = call.stream_name(stream).send().await;
                answer.map_err(|error| Failure::of(&error))
            }
            #[cfg(test)]
            Self::Simulated(asker) => asker.describe(stream).await,
        };
        answer.map_err(|failure| self.see_to(failure))
    }

    /// Lists all shards, those included that have ended.
    pub(super) async fn list_shards(&self, stream: &str) -> Result<Vec<Shard>, Failure> {
        let answer = match self {
            Self::Aws(clients) => list_pages(clients, stream).await,
            #[cfg(test)]
            Self::Simulated(asker) => asker.list_shards(stream).await,
        };
        answer.map_err(|failure| self.see_to(failure))
    }

    /// Has new credentials looked for if a failure says that they have expired.
    fn see_to(&self, failure: Failure) -> Failure {
        if matches!(failure, Failure::Expired(_)) {
            match self {
                Self::Aws(clients) => clients.renew(),
                #[cfg(test)]
                Self::Simulated(asker) => asker.renew(),
            }
        }
        failure
    }
}

async fn list_pages(clients: &Clients, stream: &str) -> Result<Vec<Shard>, Failure> {
    let mut listed = Vec::new();
    let mut next_page = None;
    loop {
        let request = clients.current().list_shards();
        let request = match next_page {
            Some(token) => request.next_token(token),
            None => request.stream_name(stream),
        };
        let answer = request.send().await;
        let answer = answer.map_err(|error| Failure::of(&error))?;
        listed.extend(answer.shards.unwrap_or_default());
        match answer.next_token {
            Some(token) => next_page = Some(token),
            None => return Ok(listed),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
