//! File sink.
use super::{SinkError, SinkOptions};
use crate::config::FileConfig;
use crate::record::{Outcomes, Record, StreamIndex};

pub struct FileSink;

impl FileSink {
    pub fn open(_config: &FileConfig, _options: SinkOptions) -> Result<Self, SinkError> {
        todo!()
    }
    pub async fn verify(&self) -> Result<(), SinkError> {
        todo!()
    }
    pub async fn deliver(&self, _stream: StreamIndex, _records: &[Record]) -> Outcomes {
        todo!()
    }
}
