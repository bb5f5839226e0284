//! Kinesis sink.
use super::{SinkError, SinkOptions};
use crate::config::KinesisConfig;
use crate::record::{Outcomes, Record, StreamIndex};

pub struct KinesisSink;

impl KinesisSink {
    pub async fn open(_config: &KinesisConfig, _options: SinkOptions) -> Result<Self, SinkError> {
        todo!()
    }
    pub async fn verify(&self) -> Result<(), SinkError> {
        todo!()
    }
    pub async fn deliver(&self, _stream: StreamIndex, _records: &[Record]) -> Outcomes {
        todo!()
    }
}
