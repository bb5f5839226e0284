//! The order of the house: which room may use which, and which crate lives in which room.
//!
//! The tables below are the rank table of the design. A room uses lower rooms only; rooms of one rank are blind to each
//! other; a room may use its own inside. Code is checked, tests are not: they may use what they like. Whatever the
//! tables do not know fails, and so does an exception that nothing needs any more.

#[path = "house/circles.rs"]
mod circles;
#[path = "house/scan.rs"]
mod scan;

use std::collections::HashSet;
use std::path::Path;

use scan::Source;

/// Low to high. A file belongs to the room with the longest name that its module starts with.
const RANKS: &[&[&str]] = &[
    &[
        "sync",
        "durable",
        "hex",
        "pem",
        "lifecycle",
        "jitter",
        "protobuf",
        "words",
    ],
    &["handover", "topic"],
    &["record"],
    &[
        "config",
        "telemetry::gather",
        "telemetry::log",
        "telemetry::metrics",
    ],
    &[
        "devices",
        "health",
        "telemetry::expiring",
        "telemetry::journal",
        "telemetry::top",
    ],
    &["telemetry::audit", "telemetry::access"],
    &["telemetry::otlp"],
    &["telemetry::spans"],
    &["telemetry::observers"],
    &["spool::format", "spool::disk"],
    &["spool::store"],
    &["spool::commit"],
    &["spool", "sink"],
    &["sink::file", "sink::kafka", "sink::kinesis"],
    &["delivery"],
    &["batcher", "limits", "admission", "identity", "rules"],
    &["ingest", "events"],
    &["tls"],
    &["http"],
    &["accept", "telemetry::admin"],
    &["worker"],
    &["gateway", "pki"],
    &["cli"],
    &["main", "internals"],
];

/// Files that only say which rooms there are.
const MAPS: &[&str] = &["lib", "telemetry"];

/// From a room to one that the ranks forbid, and why it may.
const ROOM_EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "telemetry::log",
    "config",
    "it takes its own section, LogConfig; the configuration never logs",
)];

/// Rooms that may see the whole configuration; every other room gets its section.
const WHOLE_CONFIG_ROOMS: &[&str] = &["config", "gateway", "cli"];

/// A crate that is walled in, and the modules that it lives in.
struct Wall {
    krate: &'static str,
    modules: &'static [&'static str],
    reason: &'static str,
}

const fn wall(krate: &'static str, modules: &'static [&'static str], reason: &'static str) -> Wall {
    Wall {
        krate,
        modules,
        reason,
    }
}

const WALLS: &[Wall] = &[
    wall(
        "hyper",
        &["telemetry::admin"],
        "the admin address is HTTP of its own, plain and above http in rank",
    ),
    wall(
        "hyper_util",
        &["telemetry::admin", "sink::kinesis::failure"],
        "the AWS client's errors are hyper's: only they tell a connection that failed from a call that was lost",
    ),
    wall("h2", &["http"], "protocols end in http"),
    wall("h3", &["http"], "protocols end in http"),
    wall(
        "quinn",
        &["accept::quic", "accept::steer", "http::h3"],
        "steer makes the connection ids by which packets find their worker",
    ),
    wall(
        "rustls",
        &["tls", "accept"],
        "accept asks how a handshake went, and quinn needs its configuration in accept::quic",
    ),
    wall(
        "x509_parser",
        &["identity", "pki"],
        "one reader of devices' certificates; pki reads back what it made",
    ),
    wall("rcgen", &["pki"], "certificates are made in pki only"),
    wall(
        "aws_lc_rs",
        &["tls", "identity", "spool::format::keys", "rules::key"],
        "the TLS provider, the fingerprint of a certificate, the spool's encryption, and what edits hide",
    ),
    wall(
        "flate2",
        &["ingest::decode::gzip"],
        "bodies are decoded in one room, a module a coding",
    ),
    wall("zstd_safe", &["ingest::decode::zstd"], "likewise"),
    wall(
        "jsonschema",
        &["rules::schema", "rules::instance", "rules::number"],
        "one validator, which sees records as trees",
    ),
    wall(
        "json_event_parser",
        &["rules::parse"],
        "one parser of records",
    ),
    wall("toml", &["rules::file"], "one file is written in it"),
    wall("crc32c", &["spool"], "checksums of what lies on disk"),
    wall(
        "rustix",
        &["spool::disk"],
        "two system calls that the standard library lacks",
    ),
    wall(
        "opentelemetry",
        &["telemetry::otlp"],
        "clients live in their exporter",
    ),
    wall(
        "opentelemetry_sdk",
        &["telemetry::otlp"],
        "clients live in their exporter",
    ),
    wall(
        "opentelemetry_otlp",
        &["telemetry::otlp"],
        "clients live in their exporter",
    ),
    wall("rdkafka", &["sink::kafka"], "clients live in their sink"),
    wall(
        "aws_config",
        &["sink::kinesis", "sink::kafka::login::msk"],
        "clients live in their sink, and Amazon's Kafka is logged in to with AWS credentials",
    ),
    wall(
        "aws_credential_types",
        &["sink::kinesis", "sink::kafka::login::msk"],
        "likewise",
    ),
    wall(
        "aws_sigv4",
        &["sink::kafka::login::msk"],
        "the SDK signs its own requests",
    ),
    wall(
        "reqwest",
        &["sink::kafka::login"],
        "tokens are fetched with it, nothing else",
    ),
    wall(
        "aws_sdk_kinesis",
        &["sink::kinesis"],
        "clients live in their sink",
    ),
    wall(
        "md5",
        &["sink::kinesis::shards", "sink::kinesis::aggregate"],
        "Kinesis' own hash and KPL's checksum, nothing else",
    ),
    wall(
        "datasketches",
        &["telemetry::top"],
        "one count of the busiest devices",
    ),
    wall(
        "metrics",
        &["telemetry::metrics"],
        "rooms count by telemetry::metrics, handles resolved",
    ),
    wall(
        "metrics_exporter_prometheus",
        &["telemetry::metrics"],
        "one exporter",
    ),
    wall(
        "tracing_subscriber",
        &["telemetry::log"],
        "rooms log by tracing; who reads it is set up once",
    ),
    wall("clap", &["cli"], "arguments end in cli"),
    wall(
        "clap_complete",
        &["cli::manual"],
        "packages are made with it, nothing else",
    ),
    wall(
        "clap_mangen",
        &["cli::manual"],
        "packages are made with it, nothing else",
    ),
    wall(
        "anyhow",
        &["cli", "gateway"],
        "typed errors in rooms; gateway reports what keeps it from starting",
    ),
    wall(
        "mimalloc",
        &["main"],
        "the program chooses its allocator, a library does not",
    ),
    wall(
        "socket2",
        &["gateway::listen"],
        "listeners are bound in one place",
    ),
    wall(
        "libc",
        &["config::host", "accept::steer"],
        "system calls that no crate offers",
    ),
];

/// Modules that hold `unsafe` blocks.
const UNSAFE_MODULES: &[(&str, &str)] = &[
    (
        "config::host",
        "getrlimit and setrlimit: the open-file limit; sched_setscheduler: delivery lets workers go on; gethostname: a replica's name",
    ),
    ("accept::steer", "setsockopt: SO_ATTACH_REUSEPORT_CBPF"),
    (
        "gateway::listen::activated",
        "sockets that systemd passes are known by their numbers only",
    ),
    (
        "sink::kafka::native",
        "what librdkafka's Rust client does not wrap: topic handles, a queue that wakes, a message's status",
    ),
];

/// Lines of a file outside its test module.
const LINES_MAX: usize = 400;

#[test]
fn the_house_is_in_order() {
    let sources = scan::read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(
        sources.len() > RANKS.len(),
        "only {} sources were found",
        sources.len()
    );
    let mut faults: Vec<String> = sources.iter().flat_map(faults).collect();
    faults.extend(needless_exceptions(&sources));
    faults.extend(needless_walls(&sources));
    faults.extend(needless_unsafe_modules(&sources));
    faults.extend(circles::circles(&sources));
    assert!(
        faults.is_empty(),
        "{}\n(the tables and their reasons are in tests/house.rs)",
        faults.join("\n")
    );
}

/// Everything that is out of order in one file.
fn faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    if !source.text.starts_with("//! ") {
        faults.push("does not start with a header, `//! …`".to_owned());
    }
    if !source.is_test() {
        faults.extend(faults_in_code(source));
    }
    faults
        .iter()
        .map(|fault| format!("src/{}: {fault}", source.file))
        .collect()
}

fn faults_in_code(source: &Source) -> Vec<String> {
    let module = source.module.join("::");
    let Some(room) = room_of(&source.module) else {
        return vec!["belongs to no room that the ranks know".to_owned()];
    };
    let mut faults = Vec::new();
    if source.lines >= LINES_MAX {
        faults.push(format!(
            "has {} lines without its tests: fewer than {LINES_MAX}",
            source.lines
        ));
    }
    let has_unsafe = source.tokens.iter().find(|token| token.text == "unsafe");
    if let Some(token) =
        has_unsafe.filter(|_| !UNSAFE_MODULES.iter().any(|(listed, _)| *listed == module))
    {
        faults.push(format!(
            "line {}: `unsafe`, and the module is not listed",
            token.line
        ));
    }
    for used in source.paths() {
        let fault = room_fault(room, &used.path);
        faults.extend(fault.map(|fault| {
            format!(
                "line {}: crate::{} {fault}",
                used.line,
                used.path.join("::")
            )
        }));
    }
    for (krate, line) in source.roots() {
        if let Some(wall) = WALLS
            .iter()
            .find(|wall| wall.krate == krate && !is_within_any(&module, wall.modules))
        {
            faults.push(format!(
                "line {line}: {krate} lives in {} only: {}",
                wall.modules.join(", "),
                wall.reason
            ));
        }
    }
    faults
}

/// Why `room` may not name this path.
fn room_fault(room: &str, path: &[String]) -> Option<String> {
    if room == "main" && path == ["run"] {
        return None; // what the library is for
    }
    if path == ["config", "Config"] && !WHOLE_CONFIG_ROOMS.contains(&room) {
        return Some("is the whole configuration: a room gets its own section".into());
    }
    let Some(other) = room_of(path) else {
        return Some("is in no room that the ranks know".into());
    };
    let (own_rank, other_rank) = (rank(room), rank(other));
    let may = is_within(other, room) || other_rank < own_rank || is_excepted(room, other);
    (!may).then(|| format!("is forbidden: {room} uses rooms below it only, and {other} is not"))
}

fn is_excepted(room: &str, other: &str) -> bool {
    ROOM_EXCEPTIONS
        .iter()
        .any(|(from, to, _)| *from == room && *to == other)
}

fn needless_exceptions(sources: &[Source]) -> Vec<String> {
    let used: HashSet<(&str, &str)> = sources
        .iter()
        .filter_map(|source| Some((room_of(&source.module)?, source.paths())))
        .flat_map(|(room, paths)| {
            paths
                .into_iter()
                .filter_map(move |used| Some((room, room_of(&used.path)?)))
        })
        .collect();
    let needless = ROOM_EXCEPTIONS
        .iter()
        .filter(|(from, to, _)| !used.contains(&(*from, *to)));
    needless
        .map(|(from, to, _)| format!("nothing needs the exception from {from} to {to}"))
        .collect()
}

/// Finds the walls that let a crate into a module that does not use it.
fn needless_walls(sources: &[Source]) -> Vec<String> {
    let mut needless = Vec::new();
    for wall in WALLS {
        for module in wall.modules {
            let uses = |source: &&Source| source.roots().any(|(krate, _)| krate == wall.krate);
            if !within(sources, module).any(|source| uses(&source)) {
                needless.push(format!("{module} does not use {}", wall.krate));
            }
        }
    }
    needless
}

fn needless_unsafe_modules(sources: &[Source]) -> Vec<String> {
    let is_unsafe = |source: &Source| source.tokens.iter().any(|token| token.text == "unsafe");
    UNSAFE_MODULES
        .iter()
        .filter(|(module, _)| !within(sources, module).any(is_unsafe))
        .map(|(module, _)| format!("{module} has no `unsafe`"))
        .collect()
}

fn within<'a>(sources: &'a [Source], module: &str) -> impl Iterator<Item = &'a Source> {
    sources
        .iter()
        .filter(move |source| is_within(&source.module.join("::"), module))
}

/// The room or map with the longest name that the path starts with; a map is met by its own name only.
fn room_of(path: &[String]) -> Option<&'static str> {
    let path = path.join("::");
    let rooms = RANKS
        .iter()
        .copied()
        .flatten()
        .filter(|room| is_within(&path, room));
    let map = MAPS.iter().find(|map| **map == path);
    rooms.max_by_key(|room| room.len()).or(map).copied()
}

/// A map is as high as the highest of its rooms: who names it may use any of them.
fn rank(room: &str) -> usize {
    let own = RANKS.iter().position(|rooms| rooms.contains(&room));
    let highest_inside = || {
        RANKS
            .iter()
            .rposition(|rooms| rooms.iter().any(|inner| is_within(inner, room)))
    };
    own.or_else(highest_inside).unwrap_or(0)
}

fn is_within(module: &str, room: &str) -> bool {
    module
        .strip_prefix(room)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_within_any(module: &str, rooms: &[&str]) -> bool {
    rooms.iter().any(|room| is_within(module, room))
}

/// Lists the checker's findings on a file of this text.
fn faults_of(file: &str, code: &str) -> Vec<String> {
    faults(&Source::new(file, &format!("//! A room.\n\n{code}")))
}

#[test]
fn what_is_in_order_passes() {
    for (file, code) in [
        (
            "ingest.rs",
            "use crate::limits::{Limits, Clock};\nuse crate::record::Record;",
        ),
        (
            "sink/kafka/verify.rs",
            "use super::Settings;\nuse super::super::SinkError;\nuse rdkafka::Message;",
        ),
        ("sink.rs", "fn open() { crate::sink::kafka::open() }"),
        ("telemetry/log.rs", "use crate::config::LogConfig;"),
        ("telemetry/admin.rs", "use hyper::service::service_fn;"),
        (
            "cli.rs",
            "use crate::{gateway, telemetry};\nuse crate::config::Config;",
        ),
        ("main.rs", "fn main() { forebay::run() }"),
        ("config/host.rs", "fn f() { unsafe { libc::getrlimit() } }"),
        (
            "record.rs",
            "// crate::gateway\n/* hyper::Body /* unsafe */ */ const A: &str = \"crate::http::x unsafe\";",
        ),
        (
            "record.rs",
            "const A: &str = r#\"\"crate::http\" unsafe\"#; fn f<'a>(c: &'a str) -> char { '\"' }",
        ),
        (
            "record.rs",
            "#[cfg(test)]\nmod tests { use crate::gateway::run; fn f() { unsafe { hyper::x() } } }",
        ),
        ("limits/tests.rs", "use crate::gateway::run;"),
    ] {
        assert_eq!(
            faults_of(file, code),
            Vec::<String>::new(),
            "{file}: {code}"
        );
    }
}

#[test]
fn what_is_out_of_order_is_found() {
    for (file, code, says) in [
        (
            "record.rs",
            "use crate::sink::Sink;",
            "line 3: crate::sink::Sink is forbidden",
        ),
        ("limits.rs", "use crate::admission::Shed;", "is forbidden"),
        (
            "sink/kafka.rs",
            "use super::file::FileSink;",
            "crate::sink::file::FileSink is forbidden",
        ),
        (
            "spool/store/index.rs",
            "use crate::spool::commit::engine::Engine;",
            "crate::spool::commit::engine::Engine is forbidden",
        ),
        (
            "spool/commit/log.rs",
            "use crate::spool::Spool;",
            "crate::spool::Spool is forbidden",
        ),
        (
            "spool/format.rs",
            "use super::disk::Disk;",
            "crate::spool::disk::Disk is forbidden",
        ),
        (
            "sink/kafka/verify.rs",
            "use super::super::kinesis::X;",
            "crate::sink::kinesis::X is forbidden",
        ),
        (
            "batcher.rs",
            "use crate::{record::Batch, http::{self, h1}};",
            "crate::http::h1 is forbidden",
        ),
        (
            "batcher.rs",
            "fn f() { let x = crate::worker::run; }",
            "crate::worker::run is forbidden",
        ),
        (
            "sink.rs",
            "use crate::telemetry;",
            "crate::telemetry is forbidden",
        ),
        (
            "telemetry/metrics.rs",
            "use super::admin::Status;",
            "crate::telemetry::admin::Status is forbidden",
        ),
        (
            "lib.rs",
            "use crate::record::Record;",
            "crate::record::Record is forbidden",
        ),
        (
            "worker.rs",
            "use crate::config::Config;",
            "the whole configuration",
        ),
        (
            "worker.rs",
            "use crate::basement::Rat;",
            "no room that the ranks know",
        ),
        ("basement.rs", "", "belongs to no room"),
        ("telemetry/trace.rs", "", "belongs to no room"),
        (
            "ingest.rs",
            "use hyper::Body;",
            "line 3: hyper lives in telemetry::admin only",
        ),
        (
            "identity.rs",
            "fn f(x: &rustls::Error) {}",
            "rustls lives in",
        ),
        (
            "sink/kinesis.rs",
            "const A: &str = \"//\"; fn f() { rdkafka::x() }",
            "rdkafka lives in",
        ),
        (
            "sink/kinesis.rs",
            "const A: char = '\"'; fn f<'a>() { unsafe {} } // \"",
            "`unsafe`",
        ),
        ("config.rs", "unsafe fn f() {}", "`unsafe`"),
        (
            "record.rs",
            "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::http::x;",
            "line 5: crate::http::x",
        ),
    ] {
        let faults = faults_of(file, code).join("\n");
        assert!(
            faults.contains(says),
            "{file}: {code}\nexpected: {says}\nfound: {faults}"
        );
    }
}

#[test]
fn neighbours_that_use_each_other_are_found() {
    let source = |file: &str, code: &str| Source::new(file, &format!("//! A room.\n{code}"));
    let told = circles::circles(&[
        source("a.rs", "use b::X;"),
        source("a/b.rs", "use super::c::X; use super::Y;"),
        source("a/c.rs", "use super::d::X;"),
        source("a/d.rs", ""),
        source("a/d/e.rs", "use crate::a::b::X;"),
        source("a/f.rs", "use super::b::X;"),
    ]);
    assert_eq!(told, ["a: b → c → d → b"]);
}

#[test]
fn a_file_needs_a_header_and_has_a_bound() {
    assert!(faults(&Source::new("record.rs", "use std::fmt;\n"))[0].contains("header"));
    assert!(faults(&Source::new("limits/tests.rs", "use super::*;\n"))[0].contains("header"));
    let long = "//! A room.\n".to_owned() + &"const A: u8 = 0;\n".repeat(LINES_MAX - 1);
    assert!(faults(&Source::new("record.rs", &long))[0].contains("400 lines"));
    let tests = "//! A room.\n#[cfg(test)]\nmod tests {\n".to_owned()
        + &"const A: u8 = 0;\n".repeat(LINES_MAX)
        + "}\n";
    assert_eq!(
        faults(&Source::new("record.rs", &tests)),
        Vec::<String>::new()
    );
}
