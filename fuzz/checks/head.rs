//! Any bytes in the place of an HTTP/1.1 request's head, of its path, and of a chunked body.

use forebay::internals::config::StreamConfig;
use forebay::internals::http::h1::{BrokenFraming, Chunked};
use forebay::internals::http::h1::{Framing, end, parse};
use forebay::internals::ingest::{Authorities, RequestHead, Routes};
use forebay::internals::record::DeviceId;

pub fn check(data: &[u8]) {
    check_head(data);
    check_path(data);
    assert_eq!(
        decode(data, data.len().max(1)),
        decode(data, 1),
        "it matters how a body arrives"
    );
}

/// A head ends at the same place however it arrives, and one that is understood can be read in one way only.
fn check_head(data: &[u8]) {
    let whole = end(data, 0).ok().flatten();
    let Some(length) = whole else { return };
    for seen in 0..length {
        assert_eq!(
            end(data, seen).ok().flatten(),
            whole,
            "it matters how a head arrives"
        );
    }
    let Ok(parsed) = parse(&data[..length], true) else {
        return;
    };
    let text = String::from_utf8_lossy(&data[..length]).to_ascii_lowercase();
    assert!(
        !text.replace("\r\n", "").contains(['\r', '\n']),
        "a line that others end elsewhere"
    );
    let count = |name: &str| {
        text.lines()
            .skip(1)
            .filter(|line| line.starts_with(name))
            .count()
    };
    let (codings, lengths) = (count("transfer-encoding"), count("content-length:"));
    match parsed.framing {
        Framing::Chunked => assert!(codings == 1 && lengths == 0),
        Framing::Length(bytes) => {
            assert!(codings == 0 && lengths <= 1 && (lengths == 1 || bytes == 0))
        }
    }
}

/// Only the four paths of the contract lead to a stream.
fn check_path(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    let streams = ["telemetry", "alarms"].map(|name| StreamConfig {
        name: name.into(),
        target: name.into(),
    });
    let routes = Routes::new(Authorities::new(["localhost"]), &streams, &[]);
    let device = DeviceId::parse("plc-1").expect("an id");
    let head = RequestHead::new("POST", path, Some("localhost"));
    let leads = routes
        .resolve(&head, &device, None)
        .ok()
        .map(|target| (target.stream.get(), target.is_records));
    let expected = match path {
        "/v1/telemetry" | "/v1/streams/telemetry" => Some((0, false)),
        "/v1/telemetry/records" | "/v1/streams/telemetry/records" => Some((0, true)),
        "/v1/streams/alarms" => Some((1, false)),
        "/v1/streams/alarms/records" => Some((1, true)),
        _ => None,
    };
    assert_eq!(leads, expected);
    // Any authority is another name, or none at all.
    let head = RequestHead::new("POST", "/v1/telemetry", Some(path));
    let host = path
        .rsplit_once(':')
        .map_or(path, |(host, _)| host)
        .trim_end_matches('.');
    assert!(
        routes.resolve(&head, &device, None).is_err() || host.eq_ignore_ascii_case("localhost")
    );
}

/// The data of a chunked body that arrives in pieces of this size, and whether it has ended.
fn decode(data: &[u8], piece_bytes: usize) -> Result<(Vec<u8>, bool), BrokenFraming> {
    let (mut decoder, mut body) = (Chunked::default(), Vec::new());
    for mut piece in data.chunks(piece_bytes) {
        while !piece.is_empty() && !decoder.is_ended() {
            let step = decoder.decode(piece)?;
            body.extend_from_slice(&piece[step.data]);
            piece = &piece[step.consumed_bytes..];
        }
    }
    Ok((body, decoder.is_ended()))
}
