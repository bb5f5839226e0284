//! Phrases in which pages state constants: `{room::NAME}` stands for a constant of the source, `{FOREBAY_NAME}` for a default,
//! a colon and a word behind it for how it is written. `UPDATE_DOCS=1` writes the values of today into the pages.
//!
//! Every number with a unit on these pages is one of a phrase, or excused in [`OTHERS`]. In the table of bounds every number is.

/// A page, and what it says.
pub const FIGURES: &[(&str, &[&str])] = &[
    (
        "docs/security.md",
        &[
            "that end within `FOREBAY_HANDSHAKE_TIMEOUT` when they are silent, and within {pace::WHOLE_FLIGHTS:word} times that",
            "the open-file limit, less a quarter ({host::OTHER_FILES_MAX} at most)",
            "| `FOREBAY_DEVICE_CONNECTIONS_MAX` | {FOREBAY_DEVICE_CONNECTIONS_MAX} |",
            "| `FOREBAY_HANDSHAKE_RATE`, `_BURST` | {FOREBAY_HANDSHAKE_RATE}/s, {FOREBAY_HANDSHAKE_BURST} |",
            "one for each MiB of memory, {host::HANDSHAKES:low} to {host::HANDSHAKES:high} |",
            "twice that in silence, {pace::WHOLE_FLIGHTS:word} times that in all | {FOREBAY_HANDSHAKE_TIMEOUT} |",
            "| {accept::quic::UNVALIDATED_MAX} a worker, then Retry; fixed |",
            "| one in {accept::quic::RESET_INTERVAL} of a worker; its own connections only",
            "| {chain::CHAIN_MAX} where there are CRLs, and {chain::SIGNATURES_MAX} signatures where names are ambiguous; {stream::PARTIAL_BYTES_MAX} with its records",
            "| {devices::RULES_MAX} exact ids, as many pins, {devices::GLOBS_MAX} globs, lines of {devices::LINE_BYTES_MAX}; fixed |",
            "| {verifier::AUTHORITY_NAMES_BYTES_MAX}, else none; fixed |",
            "| {sessions::SESSIONS_MAX} of {sessions::SESSION_BYTES_MAX}, {sessions::LIFETIME:h}; fixed |",
            "| {http::HEAD_BYTES_MAX}, {http::HEADER_FIELDS_MAX} fields; fixed: 431. From {h2::HEAD_LIST_BYTES} on a head of h2 is a GOAWAY |",
            "| `FOREBAY_HEADER_TIMEOUT` | {FOREBAY_HEADER_TIMEOUT} |",
            "| a hello {stream::HELLO_BYTES_MAX}, all else {stream::PARTIAL_BYTES_MAX}; fixed: the end of the connection |",
            "| {iot_core::BODY_BYTES_MAX}, fixed, where `FOREBAY_BODY_BYTES_MAX` is more |",
            "| those of a head; from {doors::HEADERS_BYTES_FREE} on they count as body; fixed |",
            "| `FOREBAY_RECORDS_BYTES_MAX`, `FOREBAY_RECORDS_MAX`, the device's bursts | {FOREBAY_RECORDS_BYTES_MAX}, {FOREBAY_RECORDS_MAX} |",
            "| `FOREBAY_BODY_BYTES_MAX` | {FOREBAY_BODY_BYTES_MAX} |",
            "| `FOREBAY_BODY_TIMEOUT` | {FOREBAY_BODY_TIMEOUT} |",
            "| `FOREBAY_BODY_RATE_MIN`, after {body::GRACE} | {FOREBAY_BODY_RATE_MIN}/s |",
            "| what is read of a refused body | {discard::BYTES_MAX}, {discard::TIMEOUT}; fixed |",
            "| {FOREBAY_DEVICE_RATE}/s, {FOREBAY_DEVICE_BYTE_RATE}/s |",
            "| {FOREBAY_ADDRESS_RATE}/s, off |",
            "`FOREBAY_DEVICES_MAX`; {limits::ADDRESSES_MAX} addresses | {FOREBAY_DEVICES_MAX} |",
            "| {events::room::EVENTS_WAITING_MAX} of a gateway; usage of {carried::DEVICES_CARRIED_MAX} devices of a worker beside them; fixed: dropped",
            "| {h2::STREAMS_MAX} (h2), {h3::room::STREAMS_AT_FIRST} at first and {h3::room::STREAMS_MAX} from when {h3::room::MANY_REQUESTS} are open (h3); fixed |",
            "| {h2::PENDING_RESETS_MAX} that wait, fixed: GOAWAY |",
            "| {h2::REQUESTS_MAX} that are on their way, fixed: none begins |",
            "| {h2::ERROR_RESETS_MAX}, fixed: GOAWAY |",
            "| {overhead::BURST_BYTES}, and {overhead::BYTES_PER_SECOND}/s in the long run; fixed: closed, counted, audited |",
            "| {metered::AT_ONCE_BYTES}, fixed | | a busy connection",
            "| frame, HPACK table, h2 | {h2::FRAME_BYTES_MAX}, {h2::HPACK_TABLE_BYTES}; fixed |",
            "| {frames::FRAME_BYTES_MAX}, fixed: the end of its request, or of the connection |",
            "| {frames::MEANINGLESS_MAX}, fixed | | a request that never gets on",
            "| {h3::UNANSWERED_MAX} more than answered, fixed: closed |",
            "| {accept::quic::UNI_STREAMS_MAX} at once, {uni::STREAMS_MAX} in all; fixed: closed |",
            "| {h2::SEND_BUFFER_BYTES} a stream (h2), the idle time-out |",
            "| {h2::STREAM_WINDOW_BYTES} a stream, {h2::CONNECTION_WINDOW_BYTES} a connection; fixed |",
            "| windows, h2 and QUIC | {accept::quic::STREAM_WINDOW_BYTES} a stream, {accept::quic::CONNECTION_WINDOW_BYTES} a connection;",
            "| `FOREBAY_IDLE_TIMEOUT` | {FOREBAY_IDLE_TIMEOUT:min} |",
            "| {admission::RECORD_OVERHEAD_BYTES}, and {admission::DECLARED_BYTES_AT_ONCE_MAX} more where that is declared; fixed |",
            "| counts, beyond {head::RECKONED_BYTES} |",
            "| nothing below {body::PINNING_PIECE_BYTES_MIN}, half of it beyond; fixed |",
            "| {connections::CONNECTIONS_MAX}, {admin::CONNECTION_TIMEOUT} each, {admin::HEAD_TIMEOUT} for a head;",
            "| {live::WATCHERS_MAX}, {admin::CONNECTION_TIMEOUT} to take a second's news;",
            "| {expiring::DEVICES_MAX} that end first, fixed |",
            "| the last {recent::RECENT_MAX}, fixed |",
            "| {parse::OPEN_MAX}, fixed: 400 `not-json` |",
            "| {schema::BACKTRACKS_MAX}, fixed: a violation |",
            "its copies together; {rules::file::EDITS_MAX} edits, fixed | {FOREBAY_BODY_BYTES_MAX} |",
            "| {journal::QUEUE_MAX} lines waiting, {audit::PER_SECOND_MAX} a second of a kind; fixed |",
            "`sampled`: more than {audit::PER_SECOND_MAX} a second of a kind;",
        ],
    ),
    (
        "docs/protocol.md",
        &[
            "The body is 1 byte to {FOREBAY_BODY_BYTES_MAX} (the operator may choose up to {resolve::BODY_BYTES_LIMIT})",
            "names the record for good: 1 to {head::IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters",
            "readings and {FOREBAY_RECORDS_BYTES_MAX}, decoded (the operator may choose up to 10,000 and {resolve::RECORDS_BYTES_LIMIT})",
            "here of 1 to {head::RECORDS_KEY_CHARS_MAX} characters",
            "An encoded body may be {head::ENCODING_OVERHEAD_BYTES} longer",
            "too long ({head::IDEMPOTENCY_KEY_CHARS_MAX} characters, {head::RECORDS_KEY_CHARS_MAX} for many readings)",
            "A head has at most {http::HEAD_BYTES_MAX} and {http::HEADER_FIELDS_MAX} fields. A larger one is 431; on HTTP/2 one of {h2::HEAD_LIST_BYTES} or more ends",
            "must arrive within {FOREBAY_HEADER_TIMEOUT}. A body must arrive within {FOREBAY_BODY_TIMEOUT}, and from its {body::GRACE:th} second on be no slower, all in all, than {FOREBAY_BODY_RATE_MIN} for",
            "| open requests at once | 1 (HTTP/1.1), {h2::STREAMS_MAX} (HTTP/2) | {h3::room::STREAMS_AT_FIRST} at first, {h3::room::STREAMS_MAX} from when {h3::room::MANY_REQUESTS} are open |",
            "begins within {FOREBAY_HANDSHAKE_TIMEOUT},",
            "({FOREBAY_HANDSHAKE_TIMEOUT} is what the operator may set for one flight)",
            "A connection without a request is closed after {FOREBAY_IDLE_TIMEOUT:minutes}.",
            "A connection may send {overhead::BURST_BYTES}, and {overhead::BYTES_PER_SECOND}/s in the long run, that come to nothing",
            "exactly one, 1 to {record::DEVICE_ID_CHARS_MAX} characters of",
            "may have {FOREBAY_DEVICE_CONNECTIONS_MAX}: back off",
            "have more than {verifier::AUTHORITY_NAMES_BYTES_MAX})",
            "records of the gateway have up to {stream::PLAINTEXT_BYTES_MAX}, those",
            "remembers the last {sessions::SESSIONS_MAX} of them for up to {sessions::LIFETIME:hours},",
            "| more than {http::HEAD_BYTES_MAX} or {http::HEADER_FIELDS_MAX} fields of head |",
            "the gateway gives the stream {FOREBAY_ACK_TIMEOUT}.",
            "reads on for up to {discard::BYTES_MAX} or {discard::TIMEOUT}, so",
            "has at most {frames::FRAME_BYTES_MAX}, and a request at most {frames::MEANINGLESS_MAX} frames",
            "{h3::UNANSWERED_MAX} more requests given up than answered, more than {uni::STREAMS_MAX} streams of one direction, and more than {overhead::BURST_BYTES}, or {overhead::BYTES_PER_SECOND} a second in the long run",
            "has less than {FOREBAY_EXPIRY_NOTICE:days} left",
        ],
    ),
    (
        "docs/front-doors.md",
        &[
            "may have {doors::HEADERS_BYTES_FREE} of them beside a body",
            "up to {record::RECORD_ID_CHARS_MAX} visible ASCII characters; it wins",
            "**{iot_core::BODY_BYTES_MAX}** is the largest payload",
        ],
    ),
    (
        "docs/spool.md",
        &[
            "answered after a second",
            "tried after {back_off::BACK_OFF_MIN} to {back_off::BACK_OFF_MAX}, with jitter",
            "At most {read_ahead::WINDOW_RECORDS:plain} records and {read_ahead::WINDOW_BYTES} are read ahead",
            "are tried every {back_off::BACK_OFF_MAX} at least",
            "last written ({room::CURSOR_INTERVAL})",
            "a {segment::SEGMENTS_PER_QUOTA:th} of the quota, {segment::SEGMENT_BYTES_MIN} to {segment::SEGMENT_BYTES_MAX}, more",
            "frames begin at {segment::FRAMES_START:plain}.",
            "a header of {frame::HEADER_BYTES}, the body, and padding to {frame::ALIGNMENT:plain} bytes.",
            "without padding; {frame::BODY_BYTES_MAX} at most",
            "when the {record::TRACE_PARENT_BYTES:number} characters of a `traceparent`",
            "every {room::CURSOR_INTERVAL} while it lags behind ({room::CURSOR_RANGES_MAX:plain} ranges)",
            "{room::CURSOR_RANGES_MAX:plain} ranges is taken before",
            "within the last {segment::RUN_BYTES_MAX}, which one sync",
            "copies it to `quarantine/` ({quarantine::BYTES_MAX} at most;",
            "cannot read is tried {reader::FAILURES_MAX:word} times",
            "to create a segment after {engine::probe::INTERVAL_MIN}, then less and less often, every {engine::probe::INTERVAL_MAX} at least",
            "in addition, {spooled::SPOOL_BYTES_MIN} at least, and reject",
            "between {thread::QUEUE_BYTES_MIN} and {thread::QUEUE_BYTES_MAX}; beyond it",
            "the cursor, which lags by up to {room::CURSOR_INTERVAL}, had not seen",
        ],
    ),
    (
        "docs/kinesis.md",
        &[
            "**What it saves.** A shard takes {pace::RECORDS_PER_SECOND} records a second",
            "up to {entry::AGGREGATE_BYTES_MAX} together",
            "fits a record of {kinesis::RECORD_BYTES_MAX_DEFAULT} goes",
            "no answer in {call::CALL_TIMEOUT} |",
            "| {pace::RECORDS_PER_SECOND} records and {pace::BYTES_PER_SECOND} a second;",
            "| {call::CALL_RECORDS_MAX} records, {call::CALL_BYTES_MAX}; at most {dispatch::CALLS_IN_FLIGHT_MAX:word} on the way",
            "| {kinesis::RECORD_BYTES_MAX_DEFAULT} with its key",
        ],
    ),
    (
        "docs/concepts.md",
        &["A record reserves {admission::RECORD_OVERHEAD_BYTES} with its head"],
    ),
    (
        "docs/devices.md",
        &[
            "less than {FOREBAY_EXPIRY_NOTICE:days} are left",
            "closes a connection after {FOREBAY_IDLE_TIMEOUT:minutes} without a request",
        ],
    ),
    (
        "docs/operations.md",
        &[
            "could not be kept: {events::room::EVENTS_WAITING_MAX} of a gateway",
            "the last of its readings is safe, and {admission::RECORD_OVERHEAD_BYTES} for each",
            "window: {gzip::BYTES} for gzip, for zstd what the frame asks for",
            "that none has confirmed for {stream::REFUSAL_MEMORY} is forgotten",
            "The gateway tries again within {engine::probe::INTERVAL_MAX};",
            "a connection that has just been busy is left {http::NEXT_REQUEST_GRACE}.",
            "how many certificates of devices end, {expiring::DEVICES_MAX} at most",
            "and only while somebody does. {live::WATCHERS_MAX} may watch;",
            "takes nothing for {admin::CONNECTION_TIMEOUT} is cut off",
        ],
    ),
    (
        "docs/rules.md",
        &[
            "more than {parse::OPEN_MAX} arrays and objects that are open",
            "gives up after {schema::BACKTRACKS_MAX} steps",
            "There are {rules::file::EDITS_MAX} edits at most",
        ],
    ),
    (
        "certs/README.md",
        &[
            "has 1 to {record::DEVICE_ID_CHARS_MAX} characters of",
            "| {profile::CRL} days with `forebay pki`;",
        ],
    ),
];

/// Numbers with units that no constant is behind, and why.
pub const OTHERS: &[(&str, &[&str])] = &[
    (
        "docs/security.md",
        &[
            // Of a machine that is an example, and measured.
            "(with 4 GiB of memory",
            "some 20 KiB each, 128 KiB at the very worst",
            "16 bytes each, a binary search",
            "beside bodies of a byte",
            "is in the sink, and the process grows by less than 96 MiB",
            "`tests/e2e/figures.rs` measures what an attack costs…",
            "| none | 1.4 ms…",
            "Hellos from many addresses…",
            "A list of a million entries…",
            "A stolen key and a slow body behind nginx…",
            "| revoked: live connection after 5 s…",
            "| PING, SETTINGS, WINDOW_UPDATE, or unknown frames | 64 MiB…",
            // Other people's.
            "over QUIC 64 KiB (rustls)",
            "a byte that holds 64 KiB of datagrams",
            "heads of 16 KiB beside",
            // What several constants come to.
            "A new list is in force within 5 s of",
            "one that was made more than 5 minutes from now",
        ],
    ),
    (
        "docs/protocol.md",
        &[
            "The body is 1 byte to",
            // Multiples of the handshake's time-out, which may be another.
            "is silent for 10 s at most, and is through after 25 s",
            "A link with 3 s a flight",
            "1 to 5 kB. So:",
            // RFC 9659.
            "window over 8 MiB (RFC 9659)",
            // What a device does.
            "Wait 15 s for an answer",
            "**Back-off.** Wait 1 s, after each further failure twice as long, up to 5 minutes;",
            // An example.
            "may send one request in 5 s, and",
            "`q=3;w=15`: a full bucket…",
        ],
    ),
    (
        "docs/rules.md",
        &[
            // Measured.
            "A reading of 344 bytes, judged",
            "256 KiB of numbers take up to 12 ms, of members 3 ms.",
        ],
    ),
    (
        "docs/spool.md",
        &[
            // The format: held by the tests of src/spool/format.
            "It has a header of 60 bytes, twice",
            "| 56 | 4 | CRC32C of the 56 bytes before |",
            "and the 36 bytes before |",
            "The body holds the stream (2 bytes of length…",
            // Measured.
            "| p99 of a device that is served live…",
        ],
    ),
    (
        "docs/kinesis.md",
        &[
            // What an aggregate adds to a record.
            "(64 bytes and the device id's own)",
            // AWS's prices, and an example.
            "bills each record rounded up to 1 KB; a provisioned stream bills each in units of 25 KB.",
            "a reading of 300 bytes is",
            "Readings of 1 KB and more",
            "what the stream says (up to 10 MiB)",
        ],
    ),
    (
        "docs/devices.md",
        &[
            // What the programs do.
            "50 characters at most, for a key has 64",
            "no answer within 15 s, a connection",
            "**Back-off**: 1 s, doubled with each failure up to 5 minutes, times",
            "some 350 bytes.",
        ],
    ),
    (
        "docs/operations.md",
        &[
            // Measured.
            "7 MiB for each of `FOREBAY_WORKERS`, `FOREBAY_MEMORY_MAX`, and 100 MiB | the last is for the program",
            // RFC 9659.
            "what the frame asks for, 8 MiB at most",
            // What several constants come to.
            "is closed within 2 s, whatever",
            "5 s more than the drain.",
            "within 5 s as well, and",
        ],
    ),
    (
        "certs/README.md",
        &[
            "more than 5 minutes in the future is an error",
            // Of other programs.
            "Certificates last 24 hours",
        ],
    ),
];
