//! The parts that tests, benches and fuzz targets drive on their own. No promise is made about any of them: the program is
//! [`run`](crate::run), and its contract is in docs/.

pub mod admission {
    pub use crate::admission::{Admission, RECORD_OVERHEAD_BYTES, Shed};
}

pub mod batcher {
    pub use crate::batcher::accumulator::{Accumulator, Sealed};
    pub use crate::batcher::idle::IdleSignal;
    pub use crate::batcher::spares::Buffers;
    pub use crate::batcher::{Batcher, Queues, in_flight_batches_max};
}

pub mod config {
    pub use crate::config::variables::{Default, VARIABLES, Variable};
    pub use crate::config::{
        AckConfig, AckMode, BatchConfig, ContentEncodings, DeviceClass, EventsConfig, FileConfig,
        HttpConfig, IdSource, KafkaConfig, KinesisConfig, LimitsConfig, Quota, Raw, SinkConfig,
        StreamAccess, StreamConfig, WhenFull,
    };
}

pub mod delivery {
    pub use crate::delivery::{Backlog, Delivery, DeliveryOptions};
}

pub mod devices {
    pub use crate::devices::{
        Change, Devices, DevicesError, Fingerprint, Pin, Settings, Source, Verdict, edit, read,
        read_text,
    };
}

pub mod durable {
    pub use crate::durable::lock::LockError;
}

pub mod events {
    pub use crate::events::{Events, Reporter};
}

pub mod handover {
    pub use crate::handover::{Receiver, Sender, channel};
}

pub mod health {
    pub use crate::health::Health;
}

pub mod http {
    pub use crate::http::bell::Bell;
    pub use crate::http::openapi::document;
    pub use crate::http::openapi::doors::{DOOR_NAMES, door_document};
    pub use crate::http::{Connection, Service};

    pub mod h1 {
        pub use crate::http::h1::chunked::{BrokenFraming, Chunked, Step};
        pub use crate::http::h1::head::{Framing, Parsed, end, parse};
        pub use crate::http::h1::serve;
    }

    pub mod h2 {
        pub use crate::http::h2::serve;
    }

    pub mod h3 {
        pub use crate::http::h3::fields::{Flaw, Section, examine};
        pub use crate::http::h3::frames::{Fault, Frames};
        pub use crate::http::h3::instructions::{Instructions, Misplaced, Side};
        pub use crate::http::h3::serve;
    }
}

pub mod identity {
    pub use crate::identity::{
        Authority, AuthorityId, Bundle, Credential, Crl, CrlError, Device, Identity, IdentityError,
        Link, Pinned, PublicKey, Scope, Signed, Vouched, authority, links, serial, significant,
    };
}

pub mod ingest {
    pub use crate::ingest::{
        Authorities, Caller, ContentTypes, Gate, Ingest, KnownDevice, Refusal, RequestHead, Routes,
        Standing, Target, Verdicts,
    };

    pub mod decode {
        pub use crate::ingest::decode::{Damaged, Decoder, Gzip, Step, Zstd};
    }

    pub mod records {
        pub use crate::ingest::records::cut::{Place, Uncut, cut_array, cut_delimited, cut_lines};
    }
}

pub mod lifecycle {
    pub use crate::lifecycle::{Phase, Phases};
}

pub mod limits {
    pub use crate::limits::token_bucket::{Bucket, Evicted, Rule, Shortfall};
    pub use crate::limits::{
        AddressLimits, Clock, Denied, DeviceLimits, Limits, Nanos, Refused, TableFull,
    };
}

pub mod pem {
    pub use crate::pem::{Kind, PemError, Section, sections};
}

pub mod pki {
    pub use crate::pki::{Authority, Days, Folder, PkiError};
}

pub mod record {
    pub use crate::record::{
        AckSlot, Batch, DeviceId, DeviceMemory, Headers, Outcome, Outcomes, Permit, Record,
        RecordId, Settled, StreamIndex, Timestamp, TraceParent,
    };
}

pub mod rules {
    pub use crate::rules::{Fault, Rulebook, Rules, RulesError, Verdict};
}

pub mod sink {
    #[cfg(test)]
    pub use crate::sink::Scripted;
    pub use crate::sink::file::FileSink;
    #[cfg(feature = "kafka")]
    pub use crate::sink::kafka::KafkaSink;
    #[cfg(feature = "kinesis")]
    pub use crate::sink::kinesis::KinesisSink;
    #[cfg(feature = "kinesis")]
    pub use crate::sink::kinesis::aggregate::{UserRecord, encode};
    pub use crate::sink::{Progress, Sink, SinkError, SinkOptions};
}

pub mod spool {
    pub use crate::spool::{
        Content, Disk, DiskFile, Draft, DraftError, FRAMES_START, FolderEntry, Found, Frame,
        FrameHeader, HEADER_BYTES, KeyId, Keys, Log, NotOpened, OpenError, Opened, Options,
        ReadError, Reader, RealDisk, Refused, Spool, decode, write_all_at,
    };
}

pub mod telemetry {
    pub use crate::telemetry::metrics::{
        EventMetrics, Metrics, ProbedGauge, SpoolMetrics, WorkerMetrics,
    };
    pub use crate::telemetry::observers::WorkerObservers;
}

pub mod tls {
    pub use crate::tls::{Revocation, Status};
}

pub mod words {
    pub use crate::words::{Protocol, SealReason};
}
