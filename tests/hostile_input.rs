//! The checks of the fuzz targets, with every `cargo test`: noise, and good input with a few bytes changed, which gets
//! further in. The fuzzer finds what this does not; its findings belong into [`REGRESSIONS`].

#[path = "../fuzz/checks/certificate.rs"]
mod certificate;
#[path = "../fuzz/checks/crl.rs"]
mod crl;
#[path = "../fuzz/checks/decode.rs"]
mod decode_body;
#[path = "../fuzz/checks/devices.rs"]
mod devices;
#[path = "support/encoded.rs"]
mod encoded;
#[path = "../fuzz/checks/h3.rs"]
mod h3;
#[path = "../fuzz/checks/head.rs"]
mod head;
#[path = "../fuzz/checks/pem.rs"]
mod pem;
#[path = "../fuzz/checks/records.rs"]
mod records;
#[path = "../fuzz/checks/rules.rs"]
mod rules;
#[path = "../fuzz/checks/spool_frame.rs"]
mod spool_frame;

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use encoded::{gzip, zstd};
use forebay::internals::config::WhenFull;
use forebay::internals::http::h3::Frames;
use forebay::internals::record::{DeviceId, Headers, Permit, Record, RecordId, Timestamp};
use forebay::internals::spool::Keys;
use forebay::internals::spool::{Draft, decode};
use forebay::internals::spool::{Options, Spool};
use forebay::internals::telemetry::SpoolMetrics;

use proptest::prelude::*;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// Bytes that once were read wrongly, or nearly.
const REGRESSIONS: [&[u8]; 9] = [
    b"",
    b"\n",
    b"\r\n\r\n",
    b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
    b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\nx\n\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"0\r\n\r\nPOST",
    b"-----BEGIN ",
    &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
];

/// A device's certificate and its authority's list, in DER; and an issuingDistributionPoint.
static GOOD: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let key = || KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
    let mut params = CertificateParams::new(["plc-1.example".to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, "plc-1");
    params
        .subject_alt_names
        .push(SanType::URI("urn:plant/plc-1".try_into().expect("ASCII")));
    let point = || CrlDistributionPoint {
        uris: vec!["http://crl.example/1".to_owned()],
    };
    params.crl_distribution_points = vec![point()];
    let device = params.signed_by(&key(), &authority).expect("a certificate");
    let entry = |serial: u64| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2026, 1, 1) + Duration::from_secs(86_400),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: Some(CrlIssuingDistributionPoint {
            distribution_point: point(),
            scope: Some(CrlScope::UserCertsOnly),
        }),
        revoked_certs: [1, 255, 256, u64::MAX].map(entry).to_vec(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&authority).expect("a list");
    let list = list.der().to_vec();
    // It is the last extension, and all of it but its own head is an OCTET STRING's content.
    let uri = b"http://crl.example/1";
    let at = list
        .windows(uri.len())
        .position(|part| part == uri)
        .expect("the list names its place");
    let place = list[at - 8..at + uri.len() + 3].to_vec();
    [device.der().to_vec(), list, place]
});

/// A bundle as people make them: joined without a line break, with text between.
static BUNDLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let section = |label: &str, der: &[u8]| {
        let base64 = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = base64
            .as_bytes()
            .chunks(64)
            .map(|line| str::from_utf8(line).expect("ASCII"))
            .collect();
        let body = lines.join("\n");
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----")
    };
    let [device, list, _] = &*GOOD;
    let (certificate, crl) = (section("CERTIFICATE", device), section("X509 CRL", list));
    format!("{certificate}{certificate}\r\nsubject=CN = plc-1\n  {crl}\n").into_bytes()
});

/// A reading that each of the rules finds something in.
const RECORD: &[u8] =
    br#"{"device":"press-7","a":3,"b":{"a":1},"c":{"c":{}},"d":[],"e":[1],"f":1e999,"g":"\u00fc"}"#;

/// A frame's body after the number of its records, and a segment with that frame.
static SPOOLED: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let record = Record {
        device: DeviceId::parse("plc-1").expect("an id"),
        payload: b"21.5".to_vec().into(),
        content_type: Some("application/json".into()),
        id: RecordId::new(Timestamp(1)),
        trace: None,
        headers: Headers::default(),
        received_at: Timestamp(1),
        permit: Permit::without_budget(),
    };
    let draft = || Draft::new("telemetry", [&record]).expect("a draft");
    let dir = tempfile::tempdir().expect("a folder");
    let (keys, metrics) = (Keys::default(), SpoolMetrics::unseen());
    let options = Options {
        dir: dir.path().into(),
        bytes_max: 0,
        when_full: WhenFull::Reject,
        keys,
        metrics,
    };
    let spool = Spool::open(options).expect("it opens").0;
    spool
        .backlog
        .append(draft(), |answer| assert!(answer.is_ok()));
    spool.close();
    let segment = std::fs::read(dir.path().join("segment-0000000001.spool")).expect("a segment");
    [[&[1], draft().body()].concat(), segment]
});

const HEADS: [&str; 3] = [
    "POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 12\r\n\r\n",
    "POST /v1/streams/alarms?x HTTP/1.1\r\nHost: localhost:8443\r\nTransfer-Encoding: chunked\r\nexpect: 100-continue\r\n\r\n",
    "1a;name=\"value\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nx-trailer: 1\r\n\r\n",
];

/// HTTP/3: a request with a head, a body and trailers; a control stream with settings, a push id and a GOAWAY, after its
/// type; an unknown frame before each.
const STREAMS: [&[u8]; 2] = [
    &[
        0x21, 2, 7, 7, 0x1, 11, 0, 0, 0xd4, 0xd7, 0x50, 1, b'a', 0x51, 2, b'/', b'x', 0x0, 2, b'2',
        b'1', 0x0, 0, 0x1, 6, 0, 0, 0x21, b'x', 1, b'1',
    ],
    &[
        0x21, 0, 0x4, 2, 0x6, 0x10, 0xd, 1, 3, 0x7, 2, 0x40, 9, 0x7, 1, 0,
    ],
];

/// A body in gzip and one in zstd, each of two parts.
static ENCODED: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let text = b"{\"celsius\":21.5}\n".repeat(20);
    [gzip(&text), zstd(&text)].map(|part| part.repeat(2))
});

/// Bodies of many records.
const BODIES: [&[u8]; 3] = [
    b"{\"a\":1}\r\n\n 2 \n\"x\"",
    b" [1, {\"a\": [\"]\", null]},\n-2.5e3 ,\"\\u00e4\"] ",
    b"\x01a\x82\x00bc\x03def",
];

/// Bytes of which bodies of many records are made.
fn parts_of_records() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: [&str; 16] = [
        "[", "]", "{", "}", ",", ":", "\"", "\\", "\n", "\r", " ", "1", "\"a\"", "null", "\u{1}",
        "\u{2}",
    ];
    prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..32)
        .prop_map(|parts| parts.concat().into_bytes())
}

/// Up to eight bytes of `good` are others, and the end may be missing.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    (edits, any::<prop::sample::Index>(), any::<bool>()).prop_map(move |(edits, end, is_cut)| {
        let mut bytes = good.clone();
        edits
            .iter()
            .for_each(|(place, byte)| bytes[place.index(good.len())] = *byte);
        bytes.truncate(if is_cut {
            end.index(good.len())
        } else {
            good.len()
        });
        bytes
    })
}

/// Bytes of which heads and chunks are made.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: [&str; 17] = [
        "\r\n",
        "\n",
        "\r",
        " ",
        ":",
        "0",
        "1",
        "a",
        ";",
        "POST / HTTP/1.1\r\n",
        "host: localhost\r\n",
        "content-length: 3\r\n",
        "transfer-encoding: chunked\r\n",
        "\r\n\r\n",
        "/v1/streams/",
        "telemetry",
        "/records",
    ];
    prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..24)
        .prop_map(|parts| parts.concat().into_bytes())
}

/// Bytes of which PEM files are made.
fn lines_of_pem() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: [&str; 16] = [
        "\n",
        "\r",
        "\r\n",
        " ",
        "-",
        "-----",
        "\\n",
        "\u{feff}",
        "Proc-Type: 4,ENCRYPTED",
        "-----BEGIN CERTIFICATE-----",
        "-----END CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----\n",
        "\n-----END PRIVATE KEY-----",
        "-----begin ",
        "MIIB",
        "AA==",
    ];
    prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..24)
        .prop_map(|parts| parts.concat().into_bytes())
}

/// A devices file with something of everything.
const DEVICES: &str = "# who may speak\n\
    allow press-7  rate=5/20 bytes=64KiB/256KiB streams=alarms,telemetry  # on trial\r\n\
    deny  press-8  # was: rate=1/2\n\
    allow plant-*\n\
    pin sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 as=press-9 rate=0/0\n\
    default deny";

/// Bytes of which devices files are made.
fn lines_of_devices() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: [&str; 18] = [
        "\n",
        "\r\n",
        "\r",
        " ",
        "\t",
        "#",
        "# was: ",
        "allow",
        "deny",
        "default",
        "press-7",
        "press-*",
        "=",
        "rate=1/2",
        "streams=a,b",
        "bytes=1KiB/1KiB",
        "\n allow press-7 ",
        "\ndeny press-7\t",
    ];
    prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..24)
        .prop_map(|parts| parts.concat().into_bytes())
}

/// The seeds that are damaged are good before: otherwise the checks would look at nothing.
#[test]
fn what_is_good_is_taken() {
    let [device, list, place] = &*GOOD;
    assert!(
        forebay::internals::identity::Scope::read(place).is_ok_and(|scope| scope.is_partition())
    );
    assert_eq!(
        forebay::internals::pem::sections(&BUNDLE)
            .expect("PEM")
            .len(),
        3
    );
    assert!(
        forebay::internals::identity::Identity::new(vec![
            forebay::internals::config::IdSource::SanUri
        ])
        .device(device)
        .is_ok()
    );
    assert_eq!(
        forebay::internals::identity::Crl::parse(list)
            .expect("a list")
            .serials()
            .filter(Result::is_ok)
            .count(),
        4
    );
    assert_eq!(
        decode(SPOOLED[0][1..].to_vec().into(), 1)
            .expect("a body")
            .records
            .len(),
        1
    );
    for (stream, mut frames) in STREAMS
        .into_iter()
        .zip([Frames::of_request(), Frames::of_control()])
    {
        let mut stream = Bytes::from_static(stream);
        while frames.next(&mut stream).expect("frames").is_some() {}
        assert_eq!(frames.end(), Ok(()));
    }
    let file = std::path::Path::new("devices");
    assert!(forebay::internals::devices::read_text(DEVICES.as_bytes(), file).is_ok());
    use forebay::internals::ingest::records::{cut_array, cut_delimited, cut_lines};
    for (cut, body) in [cut_lines, cut_array, cut_delimited]
        .into_iter()
        .zip(BODIES)
    {
        assert!(cut(body, 10).is_ok_and(|places| places.len() >= 3));
    }
    assert!(SPOOLED[1].windows(4).any(|part| part == b"FBf1"));
    assert!(
        HEADS[..2]
            .iter()
            .all(|head| forebay::internals::http::h1::parse(head.as_bytes(), true).is_ok())
    );
}

#[test]
fn regressions() {
    let good = GOOD
        .iter()
        .chain(&*SPOOLED)
        .map(Vec::as_slice)
        .chain(HEADS.iter().map(|head| head.as_bytes()))
        .chain([BUNDLE.as_slice(), DEVICES.as_bytes()])
        .chain(ENCODED.iter().map(Vec::as_slice))
        .chain(BODIES)
        .chain(STREAMS);
    for data in REGRESSIONS.into_iter().chain(good) {
        certificate::check(data);
        crl::check(data);
        decode_body::check(data);
        devices::check(data);
        h3::check(data);
        head::check(data);
        pem::check(data);
        records::check(data);
        rules::check(data);
        spool_frame::check(data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn certificates(data in prop_oneof![damaged(GOOD[0].clone()), prop::collection::vec(any::<u8>(), 0..200)]) {
        certificate::check(&data);
    }

    #[test]
    fn bodies_of_records(data in prop_oneof![
        prop::sample::select(BODIES.to_vec()).prop_flat_map(|body| damaged(body.into())),
        parts_of_records(),
        prop::collection::vec(any::<u8>(), 0..200),
    ]) {
        records::check(&data);
    }

    #[test]
    fn lists(data in prop_oneof![
        damaged(GOOD[1].clone()),
        damaged(GOOD[2].clone()),
        prop::collection::vec(any::<u8>(), 0..200),
    ]) {
        crl::check(&data);
    }

    #[test]
    fn pem_files(data in prop_oneof![damaged(BUNDLE.clone()), lines_of_pem()]) {
        pem::check(&data);
    }

    #[test]
    fn devices_files(data in prop_oneof![damaged(DEVICES.into()), lines_of_devices()]) {
        devices::check(&data);
    }

    #[test]
    fn records_of_streams_with_rules(data in prop_oneof![
        damaged(RECORD.to_vec()),
        r#"[\[\]{}":,\\ud8e01\-. a-g]{0,40}"#.prop_map(String::into_bytes),
        r#"(\{"[a-g]{1,2}":|\[|[0-9]{1,3}|"x"|,|\}|\]){0,30}"#.prop_map(String::into_bytes),
        "(\\[|\\{\"a\":){0,80}".prop_map(String::into_bytes),
    ]) {
        rules::check(&data);
    }

    #[test]
    fn spool_frames(data in prop_oneof![damaged(SPOOLED[0].clone()), damaged(SPOOLED[1].clone())]) {
        spool_frame::check(&data);
    }

    #[test]
    fn streams_of_h3(data in prop_oneof![
        prop::sample::select(STREAMS.to_vec()).prop_flat_map(|stream| damaged(stream.into())),
        prop::collection::vec(0..0x28_u8, 0..60),
        prop::collection::vec(any::<u8>(), 0..200),
    ]) {
        h3::check(&data);
    }

    #[test]
    fn heads(data in prop_oneof![
        prop::sample::select(HEADS.to_vec()).prop_flat_map(|head| damaged(head.into())),
        wire(),
        prop::collection::vec(any::<u8>(), 0..200),
    ]) {
        head::check(&data);
    }
}

proptest! {
    // A decoder costs more than the others.
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn encoded_bodies(data in prop_oneof![
        damaged(ENCODED[0].clone()),
        damaged(ENCODED[1].clone()),
        prop::collection::vec(any::<u8>(), 0..200),
    ]) {
        decode_body::check(&data);
    }
}
