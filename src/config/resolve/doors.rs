//! Which front doors are open, and that each has what it needs.

use super::Reader;
use crate::config::{DoorsConfig, OpenDoors, StreamConfig, value};

const TOPICS: &str = "FOREBAY_TOPICS";
const OTLP_STREAMS: &str = "FOREBAY_OTLP_STREAMS";

impl Reader<'_> {
    pub(super) fn doors(&mut self, streams: Option<&[StreamConfig]>) -> DoorsConfig {
        let topics = |text: &str| value::topics(text, streams);
        let signals = |text: &str| value::otlp_streams(text, streams);
        let doors = DoorsConfig {
            open: self.value(
                "FOREBAY_FRONT_DOORS",
                value::front_doors,
                OpenDoors::default(),
            ),
            topics: self.value(TOPICS, topics, Vec::new()),
            otlp_streams: self.value(OTLP_STREAMS, signals, Default::default()),
        };
        self.needs(doors.open.iot_core, "iot-core", TOPICS);
        self.needs(doors.open.otlp, "otlp", OTLP_STREAMS);
        doors
    }

    /// A door that leads nowhere would refuse everything.
    fn needs(&mut self, is_open: bool, door: &str, name: &str) {
        if is_open && self.raw.get(name).is_none() {
            let fault = format!("must be set where FOREBAY_FRONT_DOORS names {door}");
            self.fault(name, &fault);
        }
    }
}
