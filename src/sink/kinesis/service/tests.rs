//! A service in place of AWS's: each question goes to a simulated one, with the credentials that are
//! in use.

use aws_sdk_kinesis::operation::describe_stream_summary::DescribeStreamSummaryOutput;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::types::Shard;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::credentials::Renewed;
use super::super::failure::{Failure, of_answer};

/// Asks on behalf of one process.
pub(crate) struct Asker {
    asked: mpsc::Sender<Question>,
    /// Time at which the credentials in use were found.
    credentials: Renewed<Instant>,
}

/// A question, and the way of its answer.
pub(crate) struct Question {
    /// Time at which the credentials were found that it is asked with.
    pub found_at: Instant,
    pub what: Asked,
}

pub(crate) enum Asked {
    /// A PutRecords call with this body.
    Put(Bytes, Answer<PutRecordsOutput>),
    Describe(String, Answer<DescribeStreamSummaryOutput>),
    ListShards(String, Answer<Vec<Shard>>),
}

/// An answer that is dropped is a connection that is lost.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// An answer that is none to the question.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// The connection cannot be made.
    NoConnection,
    /// The service says no, with a status and a code.
    Error(u16, &'static str),
}

impl Asker {
    pub(crate) fn new(asked: mpsc::Sender<Question>) -> Self {
        let credentials = Renewed::new(Instant::now());
        Self { asked, credentials }
    }

    pub(super) async fn put(&self, body: Bytes) -> Result<PutRecordsOutput, Failure> {
        self.ask(|answer| Asked::Put(body, answer)).await
    }

    pub(super) async fn describe(
        &self,
        stream: &str,
    ) -> Result<DescribeStreamSummaryOutput, Failure> {
        self.ask(|answer| Asked::Describe(stream.into(), answer))
            .await
    }

    pub(super) async fn list_shards(&self, stream: &str) -> Result<Vec<Shard>, Failure> {
        self.ask(|answer| Asked::ListShards(stream.into(), answer))
            .await
    }

    pub(super) fn renew(&self) {
        self.credentials.renew(Instant::now);
    }

    async fn ask<T>(&self, what: impl FnOnce(Answer<T>) -> Asked) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            found_at: self.credentials.current(),
            what: what(answer),
        };
        let sent = self.asked.send(question).await;
        assert!(sent.is_ok(), "the service outlives those that ask");
        match answered.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Refusal::Error(status, code))) => Err(of_answer(status, Some(code))),
            Ok(Err(Refusal::NoConnection)) => Err(Failure::NotWritten("connection refused".into())),
            Err(_) => Err(Failure::NoAnswer("the connection was lost".into())),
        }
    }
}
