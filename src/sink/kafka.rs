//! Kafka sink.
use super::{SinkError, SinkOptions};
use crate::config::KafkaConfig;
use crate::record::{Outcomes, Record, StreamIndex};

pub struct KafkaSink;

impl KafkaSink {
    pub fn open(_config: &KafkaConfig, _options: SinkOptions) -> Result<Self, SinkError> {
        todo!()
    }
    pub async fn verify(&self) -> Result<(), SinkError> {
        todo!()
    }
    pub async fn deliver(&self, _stream: StreamIndex, _records: &[Record]) -> Outcomes {
        todo!()
    }
}
